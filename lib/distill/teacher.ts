/** Who teaches: modules and functions, one or several, run without gradients and without dropout. */
import { ArgumentError, show } from '../core/errors'
import { besideModel } from '../nn/model'
import { Module } from '../nn/module'
import { noGrad } from '../tensor/context'
import { Tensor } from '../tensor/tensor'

/** What answers logits for the input of a batch: a module, or any function. */
export type Teacher = Module | ((input: Tensor) => Tensor | Promise<Tensor>)

/** The teachers as a list, or an error that names the first that is none. */
export function checkTeachers(op: string, given: unknown): Teacher[] {
  const list: unknown[] = Array.isArray(given) ? given : [given]
  if (list.length === 0) throw new ArgumentError(`${op}: teacher is an empty array`)
  for (const [i, teacher] of list.entries()) {
    if (teacher instanceof Module || typeof teacher === 'function') continue
    const name = Array.isArray(given) ? `teacher[${i}]` : 'teacher'
    throw new ArgumentError(`${op}: ${name} must be a Module or a function, got ${show(teacher)}`)
  }
  return list as Teacher[]
}

/** What the teachers say of an input, in evaluation mode and without gradients; constants. */
export async function ask(op: string, teachers: readonly Teacher[], input: Tensor): Promise<Tensor[]> {
  const answers: Tensor[] = []
  for (const [i, teacher] of teachers.entries()) {
    if (teacher instanceof Module) teacher.eval() // each time: a callback may have trained it meanwhile
    const logits = await noGrad(async () =>
      teacher instanceof Module ? teacher.forward(...besideModel(teacher, input)) : await teacher(input),
    )
    if (!(logits instanceof Tensor))
      throw new ArgumentError(`${op}: teacher ${i} must answer a tensor of logits, got ${show(logits)}`)
    answers.push(logits)
  }
  return answers
}
