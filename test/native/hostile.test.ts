/** No input from JavaScript, however wrong, may crash the process: these programs run in a child that must exit 0. */
import { spawnSync } from 'node:child_process'
import path from 'node:path'
import t from 'tap'

const programs = ['hostile-calls', 'hostile-quantized']

for (const [program, threads] of programs.flatMap((name) => ['1', '3'].map((n) => [name, n]))) {
  t.test(`${program}, ${threads} thread(s)`, (t) => {
    const child = spawnSync(process.execPath, [path.join(__dirname, `${program}.js`)], {
      encoding: 'utf8',
      env: { ...process.env, KERF_THREADS: threads },
      timeout: 300_000,
    })
    const lines = child.stdout.trim().split('\n')
    const last = lines.pop()
    t.same({ status: child.status, signal: child.signal }, { status: 0, signal: null }, child.stderr.slice(-2000))
    t.same(lines, [], 'every call ended as it should')
    const survived = Number(/^survived (\d+)$/.exec(last ?? '')?.[1])
    t.ok(survived > 10_000, `${last}`)
    t.end()
  })
}
