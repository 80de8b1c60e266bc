/** Trains a student on labels and on what teachers say. */
import { isIterable } from '../core/checks'
import { ArgumentError, show } from '../core/errors'
import { Means } from '../core/means'
import { checkInteger } from '../core/shape'
import { checkBatch } from '../data/dataset'
import { besideModel, checkModel, keepingModes } from '../nn/model'
import { Module } from '../nn/module'
import { add } from '../ops/arithmetic'
import { detach } from '../ops/clone'
import { zeros } from '../ops/create'
import { stack } from '../ops/join'
import { scope } from '../tensor/context'
import type { Tensor } from '../tensor/tensor'
import { type Cache, type CacheOption, checkCache, withAnswers } from './cache'
import { checkLossOptions, type LossOptions, lossParts, weighed } from './loss'
import { ask, checkTeachers, type Teacher } from './teacher'
import { checkTerms, type FeatureTerm, Terms } from './terms'

/** What moves the student: any optimizer of kerf/optim, or something like it. */
export interface StudentOptimizer {
  readonly paramGroups: readonly { readonly params: readonly Tensor[] }[]
  zeroGrad(): void
  step(): void
}

/** Batches: arrays of the input, the labels, and what else there is. */
export type DistillData = Iterable<readonly Tensor[]> | AsyncIterable<readonly Tensor[]>

export interface Progress {
  /** Counted from 0. */
  epoch: number
  /** Steps done in this epoch, and in all epochs. */
  step: number
  totalSteps: number
  /** The loss of this step. */
  loss: number
}

export interface DistillOptions extends LossOptions {
  /** A module or a function; an array teaches the mean of its softened probabilities. May be left out when alpha is 1. */
  teacher?: Teacher | readonly Teacher[] | null
  student: Module
  /** `[input, labels]` a batch; with alpha 0, `[input]` will do. It is iterated once an epoch: an array or a loader. */
  data: DistillData
  /** Of the student's parameters. Made after prepareQat or structured pruning, which change what those are. */
  optimizer: StudentOptimizer
  /**
   * Asks the teachers once for every sample of the loader's dataset, before training, and keeps their logits: in memory, or
   * in a file that later runs read. The student becomes the same to the last bit when all batches have one size (dropLast):
   * a kernel may round a row otherwise when there are fewer. The dataset must give the same sample for the same index each
   * time. `data` must be a Loader. Default: the teachers are asked for every batch.
   */
  cache?: CacheOption
  /** Further terms of the loss, between layers inside the student and inside a teacher. Not together with `cache`. */
  features?: readonly FeatureTerm[]
  /** Default 1. */
  epochs?: number
  /** Moves the learning rate: its step() is called after every step of the optimizer. */
  schedule?: { step(): void }
  /** Called after each epoch, the student in evaluation mode; what it answers is the epoch's `score`. */
  validate?: (student: Module, epoch: number) => number | Promise<number>
  /** Called, and waited for, after each step; pruning little by little can happen here. */
  progress?: (progress: Progress) => void | Promise<void>
}

/** Means over the batches of one epoch. */
export interface DistillEpoch {
  /** Counted from 0. */
  epoch: number
  steps: number
  /** alpha * hard + (1 - alpha) * soft + features. */
  loss: number
  /** Cross entropy with the labels; null when alpha is 0. */
  hard: number | null
  /** T^2 * KL; null when alpha is 1. */
  soft: number | null
  /** Sum of the terms of `features`, each times its weight; null without them. */
  features: number | null
  /** What `validate` said; null without it. */
  score: number | null
  seconds: number
}

function checkOptimizer(op: string, student: Module, teachers: readonly Teacher[], given: unknown): StudentOptimizer {
  const optimizer = given as StudentOptimizer
  if (typeof optimizer?.step !== 'function' || typeof optimizer.zeroGrad !== 'function' || !optimizer.paramGroups)
    throw new ArgumentError(`${op}: optimizer must be an optimizer of kerf/optim, got ${show(given)}`)
  const held = new Set(optimizer.paramGroups.flatMap(({ params }) => params))
  if (!student.parameters().some((parameter) => held.has(parameter)))
    throw new ArgumentError(`${op}: the optimizer holds no parameter of the student: make it after changing the model`)
  for (const [i, teacher] of teachers.entries()) {
    if (!(teacher instanceof Module)) continue
    const shared = teacher.modules().some((module) => student.modules().includes(module))
    if (shared) throw new ArgumentError(`${op}: teacher ${i} shares modules with the student: teach with a copy`)
    const moved = teacher.namedParameters().find(([, parameter]) => held.has(parameter))
    if (moved) throw new ArgumentError(`${op}: the optimizer holds '${moved[0]}' of teacher ${i}`)
  }
  return optimizer
}

function checkProjections(op: string, features: readonly FeatureTerm[], { paramGroups }: StudentOptimizer): void {
  const held = new Set(paramGroups.flatMap(({ params }) => params))
  for (const [i, { loss }] of features.entries()) {
    const left =
      loss instanceof Module ? loss.namedParameters().find(([, parameter]) => !held.has(parameter)) : undefined
    if (left) throw new ArgumentError(`${op}: the optimizer lacks '${left[0]}' of features[${i}].loss`)
  }
}

function checkFunction(op: string, name: string, value: unknown): void {
  if (value !== undefined && typeof value !== 'function')
    throw new ArgumentError(`${op}: ${name} must be a function, got ${show(value)}`)
}

/**
 * Trains the student, in place, on `alpha * CE + (1 - alpha) * T^2 * KL` (see `loss`). Teachers run in evaluation mode and
 * without gradients; they and the student are in their own modes again afterwards, also when this throws.
 *
 * Masks of a pruned student hold, since the optimizer keeps them; a student prepared by quant.prepareQat learns with its
 * rounding.
 *
 * @returns a line for every epoch
 * @throws ArgumentError for wrong options, before anything is trained; what model, data and callbacks throw
 * @example
 * const optimizer = new optim.AdamW(student.parameters(), { lr: 1e-3 })
 * await distill.distill({ teacher, student, data: loader, temperature: 4, alpha: 0.1, optimizer, epochs: 10 })
 */
export async function distill(options: DistillOptions): Promise<DistillEpoch[]> {
  const plan = checkPlan('distill', options)
  const { student, data, epochs, cache, teachers, features, weights } = plan
  const { validate, progress } = options
  const modules = [student, ...teachers.filter((teacher) => teacher instanceof Module)]
  return keepingModes(modules, async () => {
    const answers = cache ? await withAnswers('distill', cache, teachers) : null
    const terms = new Terms(features, student, teachers)
    const history: DistillEpoch[] = []
    let totalSteps = 0
    try {
      for (let epoch = 0; epoch < epochs; epoch++) {
        const start = performance.now()
        const means = new Means(4)
        student.train()
        if (cache) cache.loader.epoch++ // as if it had been iterated itself
        for await (const batch of answers?.batches ?? data) {
          const parts = await step(plan, terms, checkBatch('distill', batch))
          const values = (await parts.data()) as Float32Array
          parts.dispose()
          means.add(values)
          totalSteps++
          await progress?.({ epoch, step: means.rows, totalSteps, loss: values[0] as number })
        }
        if (means.rows === 0)
          throw new ArgumentError(`distill: data was empty in epoch ${epoch} (an array or a loader, not a generator)`)
        student.eval()
        const score = validate ? await validate(student, epoch) : null
        history.push({
          epoch,
          steps: means.rows,
          loss: means.mean(0),
          hard: weights.alpha > 0 ? means.mean(1) : null,
          soft: weights.alpha < 1 ? means.mean(2) : null,
          features: features.length > 0 ? means.mean(3) : null,
          score,
          seconds: (performance.now() - start) / 1000,
        })
      }
    } finally {
      terms.release()
      answers?.dispose()
    }
    return history
  })
}

/** The options, checked against each other. */
interface Plan {
  weights: { temperature: number; alpha: number }
  student: Module
  teachers: readonly Teacher[]
  data: DistillData
  optimizer: StudentOptimizer
  schedule: { step(): void } | undefined
  epochs: number
  cache: Cache | null
  features: readonly FeatureTerm[]
}

function checkPlan(op: string, options: DistillOptions): Plan {
  const weights = checkLossOptions(op, options)
  const { student, data, schedule } = options
  checkModel(op, student)
  const wanted = options.teacher !== undefined && options.teacher !== null
  if (!wanted && weights.alpha < 1) throw new ArgumentError(`${op}: alpha ${weights.alpha} needs a teacher`)
  const teachers = wanted ? checkTeachers(op, options.teacher) : []
  const epochs = checkInteger(op, 'epochs', options.epochs ?? 1, 1)
  if (!isIterable(data)) throw new ArgumentError(`${op}: data must be an iterable of batches, got ${show(data)}`)
  if (schedule !== undefined && typeof schedule?.step !== 'function')
    throw new ArgumentError(`${op}: schedule must have step(), got ${show(schedule)}`)
  checkFunction(op, 'validate', options.validate)
  checkFunction(op, 'progress', options.progress)
  const optimizer = checkOptimizer(op, student, teachers, options.optimizer)
  const cache = options.cache === undefined ? null : checkCache(op, options.cache, teachers, data)
  const features = checkTerms(op, options.features ?? [], student, teachers)
  if (features.length > 0 && cache)
    throw new ArgumentError(`${op}: features need the teachers' layers, which a cache does not hold`)
  checkProjections(op, features, optimizer)
  // With the labels alone nobody is asked.
  return {
    weights,
    student,
    teachers,
    data,
    optimizer,
    schedule,
    epochs,
    cache: weights.alpha < 1 ? cache : null,
    features,
  }
}

/** One step of the optimizer; answers the losses, [4]. With a cache, the teachers' logits are the batch's last fields. */
function step(plan: Plan, terms: Terms, given: readonly Tensor[]): Promise<Tensor> {
  const { weights, student, teachers, optimizer, schedule, cache, features } = plan
  const op = 'distill'
  return scope(async () => {
    const fields = given.length - (cache ? teachers.length : 0)
    const beside = (tensors: readonly Tensor[]) => besideModel(student, ...tensors)
    const [input, labels = null] = beside(given.slice(0, fields)) as [Tensor, Tensor?]
    terms.clear()
    const asked = weights.alpha < 1 || features.length > 0
    const answers = !asked ? null : beside(cache ? given.slice(fields) : await ask(op, teachers, input))
    const parts = lossParts(op, student.forward(input), answers, labels, weights)
    const outer = weighed(parts, weights.alpha)
    const inner = terms.loss(op)
    const total = inner === null ? outer : (add(outer, inner) as Tensor)
    optimizer.zeroGrad()
    total.backward()
    optimizer.step()
    schedule?.step()
    return shown([total, parts.hard, parts.soft, inner])
  })
}

/** Losses in one tensor, read at once; 0 for one that is not. */
function shown(losses: readonly (Tensor | null)[]): Tensor {
  const { device } = losses.find((loss) => loss !== null) as Tensor
  return stack(losses.map((loss) => (loss ? detach(loss) : (zeros([], { device }) as Tensor))))
}
