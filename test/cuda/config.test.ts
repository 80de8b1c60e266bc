// The table of products: every kernel can be launched, and a sensible one is chosen for the shapes that are measured.
import { spawnSync } from 'node:child_process'
import t from 'tap'
import { shapes, sparseShapes, weightShapes } from '#lib/bench/shapes'
import { compile, noEmulator, root } from './programs'

interface Config {
  config: string
  kind: string
  tokens: number
  threads: number
  shared: number
}
interface Choice {
  choice: string
  parts: number
  candidates: number
  explain: string
}

t.test('configs and choices', { skip: noEmulator }, async (t) => {
  const program = await compile('config_check.cc', root, 'config')
  const lines = (input: string, ...args: string[]) =>
    spawnSync(program, args, { encoding: 'utf8', input }).stdout.trim().split('\n')
  const table = lines('').map((line) => JSON.parse(line) as Config)
  t.ok(table.length > 40)
  t.equal(new Set(table.map(({ config }) => config)).size, table.length, 'names are unique')
  for (const c of table) {
    t.ok(c.shared <= 227 * 1024 && c.threads % 32 === 0 && c.threads <= 1024, `${c.config} can be launched on sm_90`)
    if (!c.kind.startsWith('wgmma')) t.ok(c.shared <= 99 * 1024, `${c.config} can be launched on sm_89 and sm_120`)
  }

  // features, tokens, k, type, out, weights, sm, multiprocessors. A product of bench/shapes.ts has m rows (tokens), n
  // features
  const choose = (descs: (string | number)[][]) =>
    lines(descs.map((desc) => desc.join(' ')).join('\n'))
      .slice(table.length)
      .map((line) => JSON.parse(line) as Choice)
  const cards = [
    [80, 108],
    [89, 128],
    [90, 132],
    [120, 170],
  ] as const
  const descs = cards.flatMap(([sm, count]) => [
    ...shapes.flatMap(({ m, n, k }) => ['f16', 'bf16'].map((type) => [n, m, k, type, type, 'dense', sm, count])),
    ...weightShapes
      .filter((s) => !s.bytes)
      .map(({ m, n, k, bits }) => [n, m, k, 'f16', 'f16', `codes${bits}`, sm, count]),
    ...sparseShapes
      .filter((s) => s.format === '2:4')
      .map(({ m, n, k, dtype }) => [
        n,
        m,
        k,
        dtype === 'int8' ? 'i8' : 'bf16',
        dtype === 'int8' ? 'f32' : 'bf16',
        'kept',
        sm,
        count,
      ]),
  ])
  const choices = choose(descs)
  t.equal(choices.length, descs.length)
  descs.forEach(([features, tokens, k, type], i) => {
    const choice = choices[i] as Choice
    const aligned = (Number(k) * (type === 'i8' ? 1 : 2)) % 16 === 0
    t.equal(choice.choice !== '', aligned, choice.explain)
    t.ok(choice.explain.startsWith(`${features}x${tokens}x${k} ${type} on sm_`))
    if (!aligned) t.match(choice.explain, /no kernel$/)
  })

  const one = (...desc: (string | number)[]) => choose([desc])[0] as Choice
  t.equal(one(8192, 8192, 8192, 'bf16', 'bf16', 'dense', 90, 132).choice, 'wgmma_bf16_bf16_128x256')
  t.equal(one(8192, 8192, 8192, 'bf16', 'bf16', 'dense', 80, 108).choice, 'mma_bf16_bf16_128x128')
  t.equal(one(8192, 8192, 8192, 'i8', 'f32', 'kept', 90, 132).choice, 'wgmma_sparse_i8_any_128x128')
  t.equal(one(8192, 8192, 8192, 'f32', 'f32', 'dense', 90, 132).choice, 'simt_f32_f32_128x128')
  const token = one(4096, 1, 4096, 'f16', 'f16', 'dense', 90, 132)
  t.equal(token.choice, 'split_f16_f16_128x8')
  t.ok(token.parts > 4, 'one token: K is split to fill the GPU')
  t.equal(one(4096, 8, 4096, 'f16', 'f16', 'codes4', 90, 132).choice, 'codes4_f16_any_128x8')
  t.equal(one(100, 4, 7, 'f16', 'f16', 'dense', 90, 132).choice, '', 'rows of 14 bytes: no kernel')

  // sm, threads, shared bytes, registers: limited by threads, registers, shared memory; and what does not fit
  const occupancy = ['90 256 1024 32', '90 128 1024 255', '90 128 98320 128', '120 128 102400 32', '80 128 81920 64']
  t.same(lines(occupancy.join('\n'), 'occupancy'), ['8', '2', '2', '0', '2'])
})
