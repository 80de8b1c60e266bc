/** Terms of the loss between layers inside the student and inside a teacher. */
import { ArgumentError, show } from '../core/errors'
import { checkInteger, checkNumber } from '../core/shape'
import { Module } from '../nn/module'
import { add, mul } from '../ops/arithmetic'
import { Tensor } from '../tensor/tensor'
import { type Capture, capture } from './features'
import type { Teacher } from './teacher'

export interface FeatureTerm {
  /** Path of the student's module whose output is matched, as namedModules() has it. */
  student: string
  /** Path of the teacher's. */
  teacher: string
  /** Position of the teacher, which must be a module, among several; default 0. */
  of?: number
  /** Of the term in the loss; default 1. */
  weight?: number
  /** Answers a scalar: a Hint, attentionTransfer, or any other. A module's parameters belong into the optimizer. */
  loss: Module<[student: Tensor, teacher: Tensor], Tensor> | ((student: Tensor, teacher: Tensor) => Tensor)
}

/** The terms of a run; they watch student and teachers until `release()`. */
export class Terms {
  readonly #terms: readonly FeatureTerm[]
  readonly #own: Capture
  readonly #others: readonly Capture[]

  /** @internal Made by captureTerms(). */
  constructor(terms: readonly FeatureTerm[], student: Module, teachers: readonly Teacher[]) {
    this.#terms = terms
    const others = teachers.map((teacher, i) => {
      const paths = terms.filter(({ of = 0 }) => of === i).map((term) => term.teacher)
      return capture(teacher instanceof Module ? teacher : student, teacher instanceof Module ? paths : [])
    })
    this.#others = others
    this.#own = capture(
      student,
      terms.map((term) => term.student),
    )
  }

  /** Forgets the last batch: what does not run in the next one is an error and not a stale tensor. */
  clear(): void {
    for (const each of [this.#own, ...this.#others]) each.clear()
  }

  /** The sum of weight * loss for the batch that student and teachers have just run. */
  loss(op: string): Tensor | null {
    let total: Tensor | null = null
    for (const [i, term] of this.#terms.entries()) {
      const { student, teacher, of = 0, weight = 1, loss } = term
      const [own, other] = [this.#own.output(student), (this.#others[of] as Capture).output(teacher)]
      const value: unknown = loss instanceof Module ? loss.forward(own, other) : loss(own, other)
      if (!(value instanceof Tensor) || value.rank !== 0)
        throw new ArgumentError(`${op}: features[${i}].loss must answer a tensor of shape [], got ${value}`)
      const part = mul(value, weight) as Tensor
      total = total === null ? part : (add(total, part) as Tensor)
    }
    return total
  }

  release(): void {
    for (const each of [this.#own, ...this.#others]) each.release()
  }
}

/** The terms, checked against the models that they are for. */
export function checkTerms(op: string, given: unknown, student: Module, teachers: readonly Teacher[]): FeatureTerm[] {
  if (!Array.isArray(given)) throw new ArgumentError(`${op}: features must be an array, got ${show(given)}`)
  for (const [i, term] of given.entries()) {
    const name = `features[${i}]`
    if (typeof term !== 'object' || term === null)
      throw new ArgumentError(`${op}: ${name} must be an object, got ${show(term)}`)
    const { of = 0, weight = 1, loss } = term as FeatureTerm
    for (const side of ['student', 'teacher'] as const) {
      const path: unknown = term[side]
      if (typeof path !== 'string') throw new ArgumentError(`${op}: ${name}.${side} must be a path, got ${show(path)}`)
    }
    if (typeof loss !== 'function' && !((loss as unknown) instanceof Module))
      throw new ArgumentError(`${op}: ${name}.loss must be a Module or a function, got ${show(loss)}`)
    if (!Number.isFinite(checkNumber(op, `${name}.weight`, weight)))
      throw new ArgumentError(`${op}: ${name}.weight must be finite, got ${weight}`)
    const teacher = teachers[checkInteger(op, `${name}.of`, of, 0)]
    if (!(teacher instanceof Module))
      throw new ArgumentError(`${op}: ${name} needs teacher ${of} to be a Module, got ${show(teacher)}`)
    teacher.getModule((term as FeatureTerm).teacher)
    student.getModule((term as FeatureTerm).student)
  }
  return given
}
