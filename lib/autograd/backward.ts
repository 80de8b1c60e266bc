/**
 * Reverse-mode differentiation: walks the tape from a result back to its leaves.
 *
 * Memory. Every gradient under way sits in a slot that holds a tensor object of its own (a rule that answers one tensor
 * for two inputs gets a second view of it), so "nobody else looks at these bytes" is exactly `ownsStorage`: then a
 * further contribution is added in place, and a consumed gradient is disposed, which hands its warm bytes to the next
 * rule. Whatever a rule makes and does not return is disposed too. Leaves get their gradients at the very end, so an
 * error on the way changes nothing.
 */
import { ArgumentError, DisposedError, DTypeError, NativeError, ShapeError, show } from '../core/errors'
import { sameShape, showShape } from '../core/shape'
import { native } from '../native/call'
import { context, runWith } from '../tensor/context'
import { nextSequence, releaseNode, type TapeNode } from '../tensor/tape'
import { checkTensor, copyTo, empty, keep, Tensor } from '../tensor/tensor'

export interface BackwardOptions {
  /** Keeps the graph for another backward() through it; default false: it is let go, and its memory with it. */
  retainGraph?: boolean
}

/**
 * Adds d(result)/d(leaf) to the `grad` of every leaf that `result` depends on and that has `requiresGrad`.
 *
 * @param result a tensor that was computed from such leaves, usually a loss of one element
 * @param grad the gradient of `result` itself, of its shape and dtype; may be left out for one element, where it is 1
 * @throws ArgumentError when `result` depends on no leaf, has several elements and no `grad`, or when its graph was
 *   let go by an earlier backward(); DisposedError when a tensor of the graph was disposed
 */
export function backward(result: Tensor, grad?: Tensor | null, options: BackwardOptions = {}): void {
  const leaves = gradients(result, grad, options.retainGraph === true)
  for (const [leaf, slot] of leaves) leaveAt(leaf, slot)
}

/**
 * The gradients of `result` with respect to `inputs` (leaves), as new tensors; nobody's `grad` changes. An input that
 * `result` does not depend on gets zeros.
 *
 * @param grad as in backward()
 */
export function grad(
  result: Tensor,
  inputs: readonly Tensor[],
  gradient?: Tensor | null,
  options: BackwardOptions = {},
): Tensor[] {
  for (const [i, input] of inputs.entries()) {
    checkTensor('grad', `inputs[${i}]`, input)
    if (!input.requiresGrad || input.node)
      throw new ArgumentError(`grad: inputs[${i}] must be a leaf that requires a gradient`)
  }
  const leaves = gradients(result, gradient, options.retainGraph === true)
  const found = new Set<Tensor>()
  const list = inputs.map((input) => {
    const slot = leaves.get(input)
    if (slot === undefined) {
      const zeros = empty(input.dtype, input.shape, input.device)
      native.fill(zeros, 0)
      return zeros
    }
    found.add(input)
    const own = exclusive(slot)
    context().scope?.add(own)
    return own
  })
  for (const [leaf, slot] of leaves) if (!found.has(leaf)) slot.dispose()
  return list
}

/** Runs the rules; answers the sum of what arrived at every leaf. */
function gradients(result: Tensor, grad: Tensor | null | undefined, retainGraph: boolean): Map<Tensor, Tensor> {
  checkTensor('backward', 'the tensor', result)
  if (!result.requiresGrad) {
    throw new ArgumentError(
      'backward: the tensor does not depend on any tensor with requiresGrad (or was made under noGrad)',
    )
  }
  const first = firstGradient(result, grad)
  const leaves = new Map<Tensor, Tensor>()
  if (result.node === null) return leaves.set(result, first)

  const known = new Set<TapeNode>()
  const nodes = reachable(result.node, known)
  const slots = new Map<TapeNode, Tensor>([[result.node, first]])
  const walk: Walk = { slots, leaves, made: new Set(), known }
  runWith({ grad: false, scope: walk.made, autocast: null }, () => run(nodes, walk, retainGraph))
  return leaves
}

interface Walk {
  /** What has arrived so far at nodes that are still to come, and at leaves. */
  slots: Map<TapeNode, Tensor>
  leaves: Map<Tensor, Tensor>
  /** What the current rule has made. */
  made: Set<Tensor>
  /** All nodes that have had their turn or will have it. */
  known: Set<TapeNode>
}

function run(nodes: readonly TapeNode[], walk: Walk, retainGraph: boolean): void {
  const { slots, leaves, made } = walk
  for (const node of nodes) {
    const incoming = slots.get(node)
    if (incoming === undefined) continue // every consumer's rule answered null
    slots.delete(node)
    if (node.replay) runAgain(node, node.replay, incoming, walk)
    else {
      const answer = node.vjp(incoming)
      const incomingWasReturned = distribute(node, incoming, answer, made, slots, leaves)
      if (!incomingWasReturned) incoming.dispose()
    }
    for (const temporary of made) temporary.dispose()
    made.clear()
    if (!retainGraph) releaseNode(node)
  }
}

/**
 * Puts the graph that a node stands for into its place. Its nodes are the latest of all, so they have their turn now, and what
 * they give goes into the same slots in the same order as if they had been there from the start: the same bits.
 */
function runAgain(node: TapeNode, replay: () => Tensor, incoming: Tensor, walk: Walk): void {
  const since = nextSequence()
  const forward = new Set<Tensor>()
  try {
    const result = runWith({ grad: true, scope: forward }, replay)
    if (!sameShape(result.shape, incoming.shape) || result.dtype !== incoming.dtype || !result.node)
      throw new ArgumentError(`backward: '${node.op}' ran again and made ${result} instead of ${node.op}'s ${incoming}`)
    const nodes = reachable(result.node, walk.known, { since, before: node.sequence })
    walk.slots.set(result.node, incoming)
    run(nodes, walk, false)
  } finally {
    for (const tensor of forward) tensor.dispose()
  }
}

/** The gradient of the result itself, as a tensor object of our own. */
function firstGradient(result: Tensor, grad: Tensor | null | undefined): Tensor {
  if (grad === undefined || grad === null) {
    if (result.size !== 1) {
      throw new ArgumentError(
        `backward: a tensor of shape ${showShape(result.shape)} needs a gradient of that shape; only one element needs none`,
      )
    }
    const one = keep(empty(result.dtype, result.shape, result.device))
    native.fill(one, 1)
    return one
  }
  checkTensor('backward', 'grad', grad)
  if (!sameShape(grad.shape, result.shape)) {
    throw new ShapeError(`backward: grad has shape ${showShape(grad.shape)}, the tensor ${showShape(result.shape)}`)
  }
  if (grad.dtype !== result.dtype) throw new DTypeError(`backward: grad is ${grad.dtype}, the tensor ${result.dtype}`)
  return keep(alias(grad))
}

/** Puts what a rule answered into the slots of its inputs. True when the incoming gradient itself went on. */
function distribute(
  node: TapeNode,
  incoming: Tensor,
  answer: readonly (Tensor | null)[],
  made: Set<Tensor>,
  slots: Map<TapeNode, Tensor>,
  leaves: Map<Tensor, Tensor>,
): boolean {
  let incomingWasReturned = false
  // First a tensor object for every input, then the sums: those dispose what they have added.
  const own = node.inputs.map((input, i) => {
    const gradient = answer[i]
    if (!gradient || !input.requiresGrad) return null
    checkAnswer(node, i, input, gradient)
    // The rule made it, and it has not been given to another input (it would have left `made`): ours alone.
    if (made.delete(gradient)) return gradient
    if (gradient === incoming && !incomingWasReturned) {
      incomingWasReturned = true
      return gradient
    }
    const view = alias(gradient)
    made.delete(view)
    return view
  })
  for (const [i, gradient] of own.entries()) {
    if (gradient === null) continue
    const input = node.inputs[i] as Tensor
    if (input.node) put(slots, input.node, gradient, made)
    else put(leaves, input, gradient, made)
  }
  return incomingWasReturned
}

/** Adds a gradient to a slot, in place where nobody else looks at the bytes. */
function put<K>(slots: Map<K, Tensor>, key: K, gradient: Tensor, made: Set<Tensor>): void {
  const sum = slots.get(key)
  if (sum === undefined) {
    slots.set(key, gradient)
  } else if (sum.ownsStorage && sum.contiguous) {
    native.add(sum, sum, gradient)
    gradient.dispose()
  } else {
    const total = gradient.ownsStorage && gradient.contiguous ? gradient : empty(sum.dtype, sum.shape, sum.device)
    native.add(total, sum, gradient)
    made.delete(total)
    slots.set(key, total)
    sum.dispose()
    if (total !== gradient) gradient.dispose()
  }
}

/**
 * The nodes that `root` depends on, latest first: every node comes before the nodes of its inputs. All are put into `known`.
 *
 * @param replayed only those recorded since a replay began; older ones must be known and older than the replayed node
 */
function reachable(
  root: TapeNode,
  known: Set<TapeNode>,
  replayed: { since: number; before: number } | null = null,
): TapeNode[] {
  known.add(root)
  const nodes = [root]
  for (let i = 0; i < nodes.length; i++) {
    const node = nodes[i] as TapeNode
    if (node.released) {
      throw new ArgumentError(
        `backward: the graph of '${node.op}' was let go by an earlier backward(); give that one { retainGraph: true }`,
      )
    }
    for (const input of node.inputs) {
      if (!input.requiresGrad) continue
      if (input.disposed) {
        const cause = 'dispose() or the end of a scope()'
        throw new DisposedError(
          `backward: an input of '${node.op}' of shape ${showShape(input.shape)} is gone (${cause})`,
        )
      }
      if (!input.node) continue
      if (replayed && input.node.sequence < replayed.since) {
        if (!known.has(input.node) || input.node.sequence >= replayed.before) throw notAnInput(input, input.node)
      } else if (!known.has(input.node)) {
        known.add(input.node)
        nodes.push(input.node)
      }
    }
  }
  return nodes.sort((a, b) => b.sequence - a.sequence)
}

function notAnInput(tensor: Tensor, { op }: TapeNode): ArgumentError {
  return new ArgumentError(
    `backward: a checkpoint's function uses the result of '${op}', of shape ${showShape(tensor.shape)}, that is not among its inputs`,
  )
}

/** Leaves the gradient at the leaf: the first one as it is, later ones added. */
function leaveAt(leaf: Tensor, slot: Tensor): void {
  const before = leaf.grad
  if (before === null || before.disposed) {
    leaf.grad = keep(exclusive(slot))
    return
  }
  if (!sameShape(before.shape, leaf.shape) || before.dtype !== leaf.dtype) {
    throw new ShapeError(`backward: the grad of a leaf ${leaf} was set to ${before}`)
  }
  if (before.ownsStorage && before.contiguous) {
    native.add(before, before, slot)
    slot.dispose()
  } else {
    const total = keep(empty(leaf.dtype, leaf.shape, leaf.device))
    native.add(total, before, slot)
    slot.dispose()
    leaf.grad = total
  }
}

/** A contiguous tensor whose bytes nobody else sees, so that optimizers may change it in place. */
function exclusive(slot: Tensor): Tensor {
  if (slot.ownsStorage && slot.contiguous) return slot
  const copy = copyTo(slot, slot.dtype)
  slot.dispose()
  return copy
}

function alias(tensor: Tensor): Tensor {
  return tensor.view('backward', tensor.shape, tensor.strides, tensor.offset)
}

function checkAnswer(node: TapeNode, i: number, input: Tensor, gradient: unknown): void {
  const what = `backward: the rule of '${node.op}' for input ${i}`
  if (!(gradient instanceof Tensor))
    throw new ArgumentError(`${what} must answer a tensor or null, got ${show(gradient)}`)
  if (!sameShape(gradient.shape, input.shape) || gradient.dtype !== input.dtype) {
    const got = `${gradient.dtype} ${showShape(gradient.shape)}`
    throw new NativeError(`${what} answers ${got} for ${input.dtype} ${showShape(input.shape)}: a bug in that rule`)
  }
}
