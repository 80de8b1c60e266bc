/** `kerf doctor`: what kerf found on this machine, and the cure when something is missing. */
import type { Info } from '../info'

function text(i: Info): string {
  const rows = i.targets.map((row) => {
    const state = !row.compiled ? 'not in this binary' : row.supported ? 'yes' : 'this CPU lacks it'
    return `  ${row.name === i.target ? '*' : ' '} ${row.name.padEnd(12)} ${state.padEnd(20)} ${row.features}`
  })
  const sparse = (forms: Record<string, string>) => Object.values(forms).join(', ')
  const products = {
    ...{ ...i.matmul, int8: i.qmatmul, weights: i.wmatmul },
    ...{ sparse: sparse(i.spmatmul), 'sparse int8': sparse(i.spqmatmul) },
  }
  const kernels = Object.entries(products).map(([dtype, name]) => `  ${dtype.padEnd(11)} ${name ?? 'none'}`)
  return [
    `kerf ${i.version}, node ${i.node}, ${i.platform}, built by ${i.builder}`,
    `cpu      ${i.cpu}, ${i.cores} cores`,
    `threads  ${i.threads} (${i.threadsFrom})`,
    `target   ${i.target} (${i.targetFrom})`,
    ...rows,
    'matmul',
    ...kernels,
    `cuda     ${i.cuda.available ? 'yes' : 'no'} (${i.cuda.reason})`,
    '',
  ].join('\n')
}

/** What could be better, one line each; an empty list is a clean bill of health. */
export function advice(i: Info): string[] {
  const lines: string[] = []
  const lost = i.targets.filter((row) => row.supported && !row.compiled)
  if (lost.length > 0) {
    lines.push(
      `this CPU could run ${lost.map((row) => row.name).join(', ')}: rebuild with a newer compiler (npm rebuild kerf)`,
    )
  }
  const best = i.targets.filter((row) => row.compiled && row.supported).at(-1)
  if (best && best.name !== i.target) lines.push(`KERF_TARGET holds back ${best.name}: unset it`)
  if (i.threads > i.cores)
    lines.push(`${i.threads} threads on ${i.cores} cores wait for each other: lower KERF_THREADS`)
  return lines
}

/** Prints the report; answers the exit code. */
export function doctor(json: boolean): number {
  let info: Info
  try {
    info = (require('../info') as typeof import('../info')).info()
  } catch (error) {
    const message = (error as Error).message
    if (json) process.stdout.write(`${JSON.stringify({ ok: false, error: message })}\n`)
    else process.stderr.write(`${message}\n`)
    return 1
  }
  const todo = advice(info)
  if (json) process.stdout.write(`${JSON.stringify({ ok: true, ...info, advice: todo }, null, 2)}\n`)
  else process.stdout.write(text(info) + todo.map((line) => `! ${line}\n`).join(''))
  return 0
}
