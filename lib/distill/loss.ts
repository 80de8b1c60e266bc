/** The loss of knowledge distillation: labels, and what a teacher thinks of all classes. */
import { isFloat } from '../core/dtype'
import { ArgumentError, DTypeError, ShapeError, show } from '../core/errors'
import { checkNumber, sameShape, showShape } from '../core/shape'
import { add, div, eq, mul, where } from '../ops/arithmetic'
import { crossEntropy, klDiv } from '../ops/loss'
import { logSoftmax, softmax } from '../ops/softmax'
import { cast } from '../ops/unary'
import { noGrad } from '../tensor/context'
import { checkTensor, type Tensor } from '../tensor/tensor'

export interface SoftenOptions {
  /** T: logits are divided by it before the softmax; any number above 0, default 4. */
  temperature?: number
}

export interface LossOptions extends SoftenOptions {
  /** Share of the labels' loss, from 0 (the teacher alone) to 1 (the labels alone); default 0.5. */
  alpha?: number
}

/** Logits of one teacher, or of several that teach together. */
export type TeacherLogits = Tensor | readonly Tensor[]

/** The options with their defaults, or an error that names the first wrong one. */
export function checkLossOptions(op: string, options: LossOptions): { temperature: number; alpha: number } {
  if (typeof options !== 'object' || options === null)
    throw new ArgumentError(`${op}: expected options, got ${show(options)}`)
  const temperature = checkNumber(op, 'temperature', options.temperature ?? 4)
  if (!(temperature > 0 && Number.isFinite(temperature)))
    throw new ArgumentError(`${op}: temperature must be a finite number above 0, got ${temperature}`)
  const alpha = checkNumber(op, 'alpha', options.alpha ?? 0.5)
  if (!(alpha >= 0 && alpha <= 1)) throw new ArgumentError(`${op}: alpha must be a number from 0 to 1, got ${alpha}`)
  return { temperature, alpha }
}

/** In float32, whatever the model computes in: a bfloat16 has 3 digits for a difference of two logarithms. */
function checkLogits(op: string, name: string, value: unknown): Tensor<'float32'> {
  const logits = checkTensor(op, name, value)
  if (!isFloat(logits.dtype)) throw new DTypeError(`${op}: ${name} must be a float tensor, it is ${logits.dtype}`)
  if (logits.rank < 2)
    throw new ShapeError(`${op}: ${name} must have a batch axis and an axis of classes, got ${showShape(logits.shape)}`)
  return logits.dtype === 'float32' ? (logits as Tensor<'float32'>) : cast(logits, 'float32')
}

function checkTeachers(op: string, teacherLogits: TeacherLogits, student: Tensor): Tensor[] {
  const list: readonly unknown[] = Array.isArray(teacherLogits) ? teacherLogits : [teacherLogits]
  if (list.length === 0) throw new ArgumentError(`${op}: teacherLogits is an empty array`)
  return list.map((value, i) => {
    const name = Array.isArray(teacherLogits) ? `teacherLogits[${i}]` : 'teacherLogits'
    const logits = checkLogits(op, name, value)
    if (!sameShape(logits.shape, student.shape)) {
      throw new ShapeError(
        `${op}: studentLogits ${showShape(student.shape)} and ${name} ${showShape(logits.shape)} must have one shape`,
      )
    }
    return logits
  })
}

/**
 * KL(teacher || student) of the softened distributions, the sum over the classes and the mean over everything else:
 * 'batchmean' for [n, c]. Not yet multiplied by T^2.
 */
function divergence(student: Tensor<'float32'>, teachers: readonly Tensor[], temperature: number): Tensor<'float32'> {
  const x = logSoftmax(div(student, temperature), 1)
  const target = noGrad(() => {
    const soft = teachers.map((logits) => softmax(div(logits, temperature), 1) as Tensor)
    return soft.length === 1 ? (soft[0] as Tensor) : (div(soft.reduce(add), soft.length) as Tensor)
  })
  const positions = student.size / (student.shape[1] as number)
  // A class that both rule out, with logits of -Infinity, counts nothing: 0 * (0 + Infinity) would be NaN.
  const counted = where(eq(target, 0), 0, x) as Tensor
  return div(klDiv(counted, target, { reduction: 'sum' }), positions) as Tensor<'float32'>
}

/**
 * The teacher's part of the loss: T^2 * KL(p_T || q_T), p_T and q_T the softmax of the teacher's and of the student's
 * logits divided by the temperature T (Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015).
 * T^2 keeps the gradient's size as T grows: it tends to (z_s - z_t) / (classes * n) for logits of mean 0 (their eq. 4).
 *
 * The gradient is exact to a few 2^-24 * T. The value itself is a small difference of logarithms times T^2, so it carries
 * an absolute error of a few 2^-24 * T^2 * log(classes): nothing at 20, 0.5 at 1000.
 *
 * @param studentLogits float [n, c], or [n, c, d1, ...] with the classes on axis 1
 * @param teacherLogits the same shape; of an array, the mean of the softened probabilities teaches. Constants: no gradient
 * @returns float32 []: the sum over the classes, the mean over the rest
 * @throws ArgumentError, DTypeError, ShapeError
 */
export function softLoss(
  studentLogits: Tensor,
  teacherLogits: TeacherLogits,
  options: SoftenOptions = {},
): Tensor<'float32'> {
  const op = 'softLoss'
  const { temperature } = checkLossOptions(op, options)
  const student = checkLogits(op, 'studentLogits', studentLogits)
  const teachers = checkTeachers(op, teacherLogits, student)
  return mul(divergence(student, teachers, temperature), temperature * temperature) as Tensor<'float32'>
}

/** Both parts of the loss, before they are weighed; null for one that has no weight. */
export function lossParts(
  op: string,
  studentLogits: Tensor,
  teacherLogits: TeacherLogits | null,
  labels: Tensor | null,
  { temperature, alpha }: { temperature: number; alpha: number },
): { hard: Tensor<'float32'> | null; soft: Tensor<'float32'> | null } {
  const student = checkLogits(op, 'studentLogits', studentLogits)
  let soft: Tensor<'float32'> | null = null
  if (alpha < 1) {
    if (teacherLogits === null) throw new ArgumentError(`${op}: alpha ${alpha} needs teacherLogits`)
    const teachers = checkTeachers(op, teacherLogits, student)
    soft = mul(divergence(student, teachers, temperature), temperature * temperature) as Tensor<'float32'>
  }
  if (alpha > 0 && labels === null) throw new ArgumentError(`${op}: alpha ${alpha} needs labels`)
  return { hard: alpha > 0 ? crossEntropy(student, labels as Tensor) : null, soft }
}

/** alpha * hard + (1 - alpha) * soft. */
export function weighed(
  { hard, soft }: { hard: Tensor<'float32'> | null; soft: Tensor<'float32'> | null },
  alpha: number,
): Tensor<'float32'> {
  if (hard === null) return soft as Tensor<'float32'>
  if (soft === null) return hard
  return add(mul(hard, alpha), mul(soft, 1 - alpha)) as Tensor<'float32'>
}

/**
 * alpha * CE(student, labels) + (1 - alpha) * T^2 * KL(teacher_T || student_T), the KL term as `softLoss` has it.
 *
 * @param studentLogits float [n, c], or [n, c, d1, ...] with the classes on axis 1
 * @param teacherLogits the same shape, or an array of such: an ensemble teaches the mean of its softened probabilities.
 * Constants: they get no gradient. May be null when alpha is 1
 * @param labels as crossEntropy takes them: integers of that shape without the classes, or probabilities; -100 for a sample
 * that the teacher alone teaches (a batch of such alone gives NaN). May be null when alpha is 0
 * @param options.temperature default 4
 * @param options.alpha default 0.5
 * @returns float32 []
 * @throws ArgumentError, DTypeError, ShapeError
 * @example
 * const loss = distill.loss(student.forward(x), noGrad(() => teacher.forward(x)), y, { temperature: 4, alpha: 0.1 })
 */
export function loss(
  studentLogits: Tensor,
  teacherLogits: TeacherLogits | null,
  labels: Tensor | null,
  options: LossOptions = {},
): Tensor<'float32'> {
  const op = 'loss'
  const checked = checkLossOptions(op, options)
  return weighed(lossParts(op, studentLogits, teacherLogits, labels, checked), checked.alpha)
}
