/** Losses between what layers inside a student and a teacher answer. */
import { ArgumentError, ShapeError, show } from '../core/errors'
import { checkAxis, sameShape, showShape } from '../core/shape'
import { Module } from '../nn/module'
import { div, eq, maximum, mul, sub, where } from '../ops/arithmetic'
import { detach } from '../ops/clone'
import { mean, sum } from '../ops/reduce'
import { reshape } from '../ops/shape'
import { cast, sqrt } from '../ops/unary'
import { checkTensor, type Tensor } from '../tensor/tensor'

/**
 * A hint (Romero et al., "FitNets: Hints for Thin Deep Nets", 2015, eq. 3): the student's features, through a learned
 * projection to the teacher's size, come close to the teacher's: 1/2 * |teacher - projection(student)|^2, summed over the
 * features and averaged over the batch. The projection's parameters belong into the optimizer.
 *
 * @example
 * const hint = new distill.Hint(new nn.Linear(64, 256))
 * const optimizer = new optim.AdamW([...student.parameters(), ...hint.parameters()], { lr: 1e-3 })
 */
export class Hint extends Module<[student: Tensor, teacher: Tensor], Tensor<'float32'>> {
  readonly projection: Module | null

  /** @param projection from the student's features to the teacher's; null where they have one size */
  constructor(projection: Module | null) {
    super()
    if (projection !== null && !(projection instanceof Module))
      throw new ArgumentError(`Hint: projection must be a Module or null, got ${show(projection)}`)
    this.projection = projection
  }

  /**
   * @param student float [n, ...]
   * @param teacher float, of the projected shape; a constant: it gets no gradient
   * @returns float32 []
   */
  forward(student: Tensor, teacher: Tensor): Tensor<'float32'> {
    const projected = this.projection ? this.projection.forward(student) : student
    const [x, y] = [float32('Hint', 'student', projected), detach(float32('Hint', 'teacher', teacher))]
    if (!sameShape(x.shape, y.shape)) {
      throw new ShapeError(
        `Hint: the student's features are ${showShape(x.shape)}${this.projection ? ' after the projection' : ''}, the teacher's ${showShape(y.shape)}`,
      )
    }
    const difference = sub(x, y)
    return div(sum(mul(difference, difference)), 2 * (x.shape[0] as number)) as Tensor<'float32'>
  }
}

export interface AttentionTransferOptions {
  /**
   * 'paper' (default): the norm of the difference of two maps, summed over the batch, as published. 'code': the mean of the
   * squared differences over batch and positions, as in the authors' own program. They weigh samples otherwise, and
   * their sizes differ by far: a weight for one is none for the other.
   */
  form?: 'paper' | 'code'
  /** The axis of features that are summed up; default 1, as in [n, c, h, w]; -1 for tokens, [n, positions, c]. */
  axis?: number
}

/**
 * Attention transfer (Zagoruyko and Komodakis, "Paying More Attention to Attention", 2017): where the student's features are
 * large, not what they are. A map is the sum of the squares over the features, one value a position, divided by its norm.
 *
 * @param student float [n, c, ...], any number of features
 * @param teacher float, of the student's shape but for the features; a constant: it gets no gradient
 * @returns float32 []
 * @throws ArgumentError, ShapeError
 */
export function attentionTransfer(
  student: Tensor,
  teacher: Tensor,
  options: AttentionTransferOptions = {},
): Tensor<'float32'> {
  const op = 'attentionTransfer'
  const { form = 'paper', axis = 1 } = options ?? {}
  if (form !== 'paper' && form !== 'code')
    throw new ArgumentError(`${op}: form must be 'paper' or 'code', got ${show(form)}`)
  const [own, other] = [squares(op, 'student', student, axis), detach(squares(op, 'teacher', teacher, axis))]
  if (!sameShape(own.shape, other.shape)) {
    throw new ShapeError(
      `${op}: without their features the student is ${showShape(own.shape)}, the teacher ${showShape(other.shape)}`,
    )
  }
  const difference = sub(normalised(own), normalised(other))
  if (form === 'code') return mean(mul(difference, difference)) as Tensor<'float32'>
  return sum(norm(difference)) as Tensor<'float32'>
}

/** The squares summed over the features: [n, ...positions]. */
function squares(op: string, name: string, value: Tensor, axis: number): Tensor {
  const x = float32(op, name, value)
  if (x.rank < 3)
    throw new ShapeError(`${op}: ${name} must have axes of batch, features and positions, got ${showShape(x.shape)}`)
  const along = checkAxis(op, axis, x.rank)
  if (along === 0) throw new ArgumentError(`${op}: axis must not be the batch's, got ${show(axis)}`)
  return sum(mul(x, x), along)
}

/** The norm of each sample: [n, 1]. Its gradient at 0 is 0, and not that of a root, which is infinite there. */
function norm(rows: Tensor): Tensor {
  const flat = reshape(rows, [rows.shape[0] as number, -1])
  const square = sum(mul(flat, flat), 1, { keepdim: true })
  const zero = eq(square, 0)
  return where(zero, 0, sqrt(where(zero, 1, square))) as Tensor
}

/** As rows of norm 1; a map that is 0 everywhere stays so. */
function normalised(maps: Tensor): Tensor {
  const flat = reshape(maps, [maps.shape[0] as number, -1])
  return div(flat, maximum(norm(flat), 1e-12)) as Tensor
}

function float32(op: string, name: string, value: Tensor): Tensor<'float32'> {
  const x = checkTensor(op, name, value)
  return (x.dtype === 'float32' ? x : cast(x, 'float32')) as Tensor<'float32'>
}
