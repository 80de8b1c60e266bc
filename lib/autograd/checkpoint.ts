/** Activations that are computed twice instead of kept (Chen et al. 2016, "Training deep nets with sublinear memory cost"). */
import { ArgumentError, show } from '../core/errors'
import { type RandomState, randomState, setRandomState } from '../core/rng'
import { type Autocast, context, gradEnabled, runWith } from '../tensor/context'
import { record } from '../tensor/tape'
import { checkTensor, Tensor } from '../tensor/tensor'

/**
 * fn(...inputs), without keeping what backward() would need of it: everything that `fn` makes and does not return is disposed at
 * once, and backward() runs `fn` again when it gets there. The memory of a deep model is then that of its checkpoints' results and of one
 * stretch between them, for one more forward pass. Gradients are those of the plain call bit for bit: random numbers (dropout) and
 * autocast are as they were; only a weight that a checkpoint and other code use in one autocast region gets its gradient from
 * two casts, each rounded for itself.
 *
 * `fn` must be a function of `inputs`, of leaves (parameters) and of constants: what depends on other results of ops must be passed in.
 * It runs twice, so it should change nothing, and its inputs must stay as they are until backward(). Checkpoints may nest.
 *
 * @param fn synchronous; returns one tensor
 * @param inputs tensors and anything else; gradients flow to the tensors and to the leaves that `fn` uses
 * @returns what `fn` returned
 * @throws ArgumentError when `fn` returns anything but a tensor; from backward() when `fn` used the result of an op that was not
 *   passed in, or made something else the second time
 */
export function checkpoint<A extends readonly unknown[], R extends Tensor>(fn: (...inputs: A) => R, ...inputs: A): R {
  if (typeof fn !== 'function') throw new ArgumentError(`checkpoint: fn must be a function, got ${show(fn)}`)
  const tensors = inputs.filter((input) => input instanceof Tensor)
  for (const [i, tensor] of tensors.entries()) checkTensor('checkpoint', `inputs[${i}]`, tensor)
  const { autocast, scope: outer } = context()
  const random = randomState()
  const made = new Set<Tensor>()
  // Recorded, though the graph is let go: what is recorded may be computed otherwise (gelu apart from its product).
  const keeping = (result: unknown) => {
    const own = result instanceof Tensor && made.delete(result)
    for (const tensor of made) tensor.dispose()
    return own
  }
  let own = false
  const result = runWith(
    { scope: made },
    () => fn(...inputs),
    (value) => {
      own = keeping(value)
    },
  )
  if (!(result instanceof Tensor)) {
    if ((result as unknown) instanceof Promise) (result as Promise<unknown>).catch(() => {})
    throw new ArgumentError(`checkpoint: fn must return a tensor, it returned ${show(result)}`)
  }
  // One that fn has not made (an input, say) is what it is.
  if (!own) return result
  outer?.add(result)
  if (result.node === null || !gradEnabled()) return result
  record(result, 'checkpoint', tensors, neverAsked)
  const node = result.node as NonNullable<Tensor['node']>
  node.replay = () => again(() => fn(...inputs), random, autocast)
  return result
}

const neverAsked = () => {
  throw new Error('a checkpoint is replayed')
}

/** The same call with the random numbers and the precision that it had. */
function again<R>(call: () => R, random: RandomState, autocast: Autocast | null): R {
  const after = randomState()
  // Casts of its own: those of the first time belong to a region that has ended, or to a graph that was let go.
  const region = autocast && { ...autocast, casts: new Map(), observe: null }
  setRandomState(random)
  try {
    return runWith({ autocast: region }, call)
  } finally {
    setRandomState(after)
    for (const { cast } of region?.casts.values() ?? []) if (cast.node === null) cast.dispose()
  }
}
