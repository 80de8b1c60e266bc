// A loader's position: what was left of an epoch comes, and then the epochs that follow.
import { data, manualSeed, tensor } from 'kerf'
import t from 'tap'

const numbers = (n: number) => new data.TensorDataset(tensor(Float32Array.from({ length: n }, (_, i) => i)))
const made = (options: data.LoaderOptions = {}) =>
  data.loader(numbers(10), { batchSize: 3, shuffle: true, seed: 1, ...options })
const epoch = (loader: Iterable<readonly { dataSync(): ArrayLike<number> }[]>) => {
  const seen: number[][] = []
  for (const [x] of loader) seen.push(Array.from((x as { dataSync(): ArrayLike<number> }).dataSync()))
  return seen
}

t.test('goes on anywhere', (t) => {
  const loader = made()
  const want = [epoch(loader), epoch(loader), epoch(loader)]
  for (let stop = 0; stop <= 4; stop++) {
    const first = made()
    epoch(first)
    let taken = 0
    if (stop > 0) for (const _ of first) if (++taken === stop) break
    const state = first.stateDict()
    t.same(state, { epoch: 1, batch: stop, seed: 1 })
    // Another seed and order: those of the state count.
    const second = made({ seed: 2 })
    second.loadStateDict(JSON.parse(JSON.stringify(state)))
    t.same(second.stateDict(), state, 'before it is iterated')
    t.same(epoch(second), (want[1] as number[][]).slice(stop))
    t.same(second.stateDict(), { epoch: 2, batch: 0, seed: 1 })
    t.same(epoch(second), want[2])
    first.epoch = 2
    t.same(epoch(first), want[2], 'epoch is a position too')
  }
  t.end()
})

t.test('a seed that came from manualSeed is in the state', (t) => {
  manualSeed(9)
  const first = made({ seed: undefined })
  const want = epoch(first)
  const second = made({ seed: undefined })
  t.not(String(epoch(second)), String(want))
  second.loadStateDict({ ...first.stateDict(), epoch: 0 })
  t.same(epoch(second), want)
  t.end()
})

t.test('states that are none', (t) => {
  const loader = made()
  for (const [state, message] of [
    [null, /expected what stateDict\(\) returns, got null/],
    [{ epoch: -1, batch: 0, seed: 0 }, /epoch must be/],
    [{ epoch: 0, batch: 5, seed: 0 }, /batch must be/],
    [{ epoch: 0, batch: 0, seed: 0.5 }, /seed must be/],
  ] as const)
    t.throws(() => loader.loadStateDict(state as never), { code: 'ERR_ARGUMENT', message })
  t.same(loader.stateDict(), { epoch: 0, batch: 0, seed: 1 })
  t.throws(
    () => {
      loader.epoch = -1
    },
    { code: 'ERR_ARGUMENT' },
  )
  t.end()
})
