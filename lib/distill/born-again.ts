/** Self-distillation: networks that teach networks of their own kind. */
import { ArgumentError, show } from '../core/errors'
import { checkInteger } from '../core/shape'
import { Module } from '../nn/module'
import { type DistillEpoch, type DistillOptions, distill, type StudentOptimizer } from './distill'
import { checkLossOptions } from './loss'

export interface BornAgainOptions<O extends StudentOptimizer>
  extends Omit<DistillOptions, 'teacher' | 'student' | 'optimizer' | 'schedule' | 'features'> {
  /** A new network, with random weights of its own, for each generation. */
  create: (generation: number) => Module | Promise<Module>
  /** A new optimizer for it, and its schedule. */
  optimizer: (student: Module, generation: number) => O
  schedule?: (optimizer: O, generation: number) => { step(): void }
  /** How many are taught; default 3. */
  generations?: number
  /** Who teaches generation 1; without it, a generation 0 is trained on the labels alone. */
  teacher?: Module
  /** Each is taught by all before it, as an ensemble, and not by the last alone. Default false. */
  byAll?: boolean
}

export interface Generation {
  generation: number
  student: Module
  history: DistillEpoch[]
}

/**
 * Born-again networks (Furlanello et al., 2018): each generation is taught by the one before it, of the same kind, and
 * often is better than it. An ensemble of all of them is `generations.map(({ student }) => student)`, which `distill` takes as
 * teachers.
 *
 * @returns the generations, in order; number 0 only without `teacher`
 * @throws ArgumentError for options out of range; what `distill` and the callbacks throw
 * @example
 * const generations = await distill.bornAgain({
 *   create: () => net(), optimizer: (student) => new optim.AdamW(student.parameters(), { lr: 1e-3 }),
 *   data: loader, epochs: 5, temperature: 1, alpha: 0, generations: 2,
 * })
 */
export async function bornAgain<O extends StudentOptimizer>(options: BornAgainOptions<O>): Promise<Generation[]> {
  const op = 'bornAgain'
  checkLossOptions(op, options)
  const { create, optimizer: optimizerOf, schedule: scheduleOf, generations: count, teacher, byAll, ...rest } = options
  const last = checkInteger(op, 'generations', count ?? 3, 1)
  for (const [name, value] of [
    ['create', create],
    ['optimizer', optimizerOf],
    ['schedule', scheduleOf ?? optimizerOf],
  ] as const)
    if (typeof value !== 'function') throw new ArgumentError(`${op}: ${name} must be a function, got ${show(value)}`)
  if (teacher !== undefined && !(teacher instanceof Module))
    throw new ArgumentError(`${op}: teacher must be a Module, got ${show(teacher)}`)
  const cache: unknown = rest.cache
  // One file cannot hold what other teachers say.
  if (cache !== undefined && cache !== 'memory')
    throw new ArgumentError(`${op}: cache must be 'memory', got ${show(cache)}`)
  const teachers: Module[] = teacher ? [teacher] : []
  const made: Generation[] = []
  for (let generation = teacher ? 1 : 0; generation <= last; generation++) {
    const student = await create(generation)
    const optimizer = optimizerOf(student, generation)
    const history = await distill({
      ...rest,
      ...(teachers.length > 0 ? { teacher: byAll ? teachers : teachers.slice(-1) } : { alpha: 1, cache: undefined }),
      student,
      optimizer,
      schedule: scheduleOf?.(optimizer, generation),
    })
    teachers.push(student)
    made.push({ generation, student, history })
  }
  return made
}
