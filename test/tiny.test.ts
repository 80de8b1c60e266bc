// The smallest check of every floor at once: if this fails, look here first.
import t from 'tap'
import { addon } from '#lib/native/load'
import { add } from '#lib/ops/arithmetic'
import { tensor } from '#lib/ops/create'
import { matmul } from '#lib/ops/matmul'
import { sum } from '#lib/ops/reduce'

t.test('two plus two', (t) => {
  t.ok(addon.machine().target)
  t.same(add(tensor([1, 2]), tensor([3, 4])).arraySync(), [4, 6])
  t.same(
    matmul(
      tensor([
        [1, 2],
        [3, 4],
      ]),
      tensor([[5], [6]]),
    ).arraySync(),
    [[17], [39]],
  )
  t.equal(sum(tensor([1, 2, 3])).item(), 6)
  t.end()
})

t.test('data() does not block and agrees with dataSync()', async (t) => {
  const a = add(tensor([1, 2]), 1)
  t.same(await a.data(), a.dataSync())
})
