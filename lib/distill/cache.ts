/**
 * What teachers said of every sample of a dataset, kept by the sample's index: whatever the order of the batches, a
 * sample meets its own logits. Logits and not probabilities, so that one cache serves all temperatures and ensembles.
 */
import { createHash, type Hash } from 'node:crypto'
import { ArgumentError, FormatError, show } from '../core/errors'
import { type Batch, type Dataset, TensorDataset } from '../data/dataset'
import { Loader } from '../data/loader'
import { loadSafetensors, readSafetensorsInfo, saveSafetensors } from '../io/safetensors'
import { checkPath, type PathLike } from '../io/source'
import { Module } from '../nn/module'
import { cat } from '../ops/join'
import { slice } from '../ops/shape'
import { noGrad, scope } from '../tensor/context'
import { copyTo, keep, Tensor } from '../tensor/tensor'
import { ask, type Teacher } from './teacher'

/**
 * Where teachers' logits are kept: 'memory', or a safetensors file, which is made when it is not there. A file says what
 * it was made of: the inputs of all samples, the teachers' structure and weights, and `key`. One made of others is refused.
 * A function cannot be told from another one, so with functions among the teachers `key` must name them.
 */
export type CacheOption = 'memory' | { path: PathLike; key?: string }

export interface Cache {
  loader: Loader
  path: PathLike | null
  key: string
}

/** The option, checked against the teachers and the data that it is for. */
export function checkCache(op: string, given: unknown, teachers: readonly Teacher[], data: unknown): Cache {
  if (!(data instanceof Loader))
    throw new ArgumentError(`${op}: cache needs data to be a Loader, which knows its samples, got ${show(data)}`)
  if (data.transform !== null)
    throw new ArgumentError(`${op}: cache needs the same sample for the same index each time: data has a transform`)
  if (given === 'memory') return { loader: data, path: null, key: '' }
  if (typeof given !== 'object' || given === null)
    throw new ArgumentError(`${op}: cache must be 'memory' or { path }, got ${show(given)}`)
  const { path, key } = given as { path?: unknown; key?: unknown }
  const checked = checkPath(op, path)
  if (key !== undefined && typeof key !== 'string')
    throw new ArgumentError(`${op}: cache.key must be a string, got ${show(key)}`)
  if (key === undefined && teachers.some((teacher) => !(teacher instanceof Module)))
    throw new ArgumentError(`${op}: cache.key must name the teachers when one of them is a function`)
  return { loader: data, path: checked, key: key ?? '' }
}

const FORMAT = 'kerf teacher logits 1'
const nameOf = (teacher: number) => `logits.${teacher}`

async function hashTensor(hash: Hash, tensor: Tensor, shape: readonly number[]): Promise<void> {
  const values = await tensor.data()
  hash.update(`${tensor.dtype} [${shape}]\0`)
  hash.update(new Uint8Array(values.buffer, values.byteOffset, values.byteLength))
}

/** Digest of the teachers: structure, weights, masks and buffers by name, and what the user says of them. */
async function teachersDigest(teachers: readonly Teacher[], key: string): Promise<string> {
  const hash = createHash('sha256').update(`${FORMAT}\0${key}\0`)
  for (const teacher of teachers) {
    hash.update(teacher instanceof Module ? `module\0${teacher}\0` : 'function\0')
    if (!(teacher instanceof Module)) continue
    for (const [name, value] of Object.entries(teacher.stateDict())) {
      hash.update(`${name}\0`)
      await hashTensor(hash, value, value.shape)
    }
  }
  return hash.digest('hex')
}

async function logitsDigest(logits: readonly Tensor[]): Promise<string> {
  const hash = createHash('sha256')
  for (const tensor of logits) await hashTensor(hash, tensor, tensor.shape)
  return hash.digest('hex')
}

/** Batches of all samples by index. */
const inOrder = ({ loader }: Cache) => new Loader(loader.dataset, { batchSize: loader.batchSize })

function inputOf(op: string, batch: Batch): Tensor {
  const [input] = batch
  if (input instanceof Tensor && input.rank > 0) return input
  throw new ArgumentError(`${op}: a batch of data must begin with a tensor of inputs, got ${show(input)}`)
}

/** Digest of all inputs; the labels are nothing to a teacher. */
async function dataDigest(op: string, cache: Cache): Promise<string> {
  const hash = createHash('sha256').update(`${cache.loader.dataset.length}\0`)
  for await (const batch of inOrder(cache)) await hashTensor(hash, inputOf(op, batch), inputOf(op, batch).shape)
  return hash.digest('hex')
}

/**
 * Asks the teachers for all samples: one tensor [samples, ...] each. Always for as many at once as a batch of the loader
 * has, the last time for some again: a kernel may round a row otherwise when there are fewer.
 */
async function askAll(op: string, cache: Cache, teachers: readonly Teacher[]): Promise<Tensor[]> {
  const { dataset, batchSize } = cache.loader
  const rows = Math.min(batchSize, dataset.length)
  const parts = teachers.map((): Tensor[] => [])
  for (let done = 0; done < dataset.length; done += rows) {
    const first = Math.min(done, dataset.length - rows)
    const batch = await dataset.batch(Int32Array.from({ length: rows }, (_, i) => first + i))
    const input = inputOf(op, batch)
    // The scope disposes what the teachers made; samples and answers that somebody holds stay.
    await scope(async () => {
      for (const [i, logits] of (await ask(op, teachers, input)).entries()) {
        if (logits.shape[0] !== rows)
          throw new ArgumentError(`${op}: teacher ${i} answered ${logits} for ${rows} samples`)
        parts[i]?.push(noGrad(() => keep(copyTo(slice(logits, [[done - first]]), logits.dtype))))
      }
    })
    await new Promise<void>((resolve) => setImmediate(resolve))
  }
  return parts.map((list) => {
    const all = noGrad(() => cat(list, 0))
    for (const part of list) part.dispose()
    return all
  })
}

/** Samples that change from one asking to the next cannot be matched with what was said of them. */
async function checkStable(op: string, { loader }: Cache): Promise<void> {
  const some = Int32Array.from({ length: Math.min(loader.batchSize, loader.dataset.length) }, (_, i) => i)
  const digests: string[] = []
  for (let i = 0; i < 2; i++) {
    const hash = createHash('sha256')
    const input = inputOf(op, await loader.dataset.batch(some))
    await hashTensor(hash, input, input.shape)
    digests.push(hash.digest('hex'))
  }
  if (digests[0] !== digests[1])
    throw new ArgumentError(
      `${op}: the dataset gives other samples for the same indices each time: cache cannot be used`,
    )
}

/** What is in the file, or null when there is none. */
async function readFile(
  op: string,
  cache: Cache,
  path: PathLike,
  about: Record<string, string>,
): Promise<Tensor[] | null> {
  let info: Awaited<ReturnType<typeof readSafetensorsInfo>>
  try {
    info = await readSafetensorsInfo(path)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null
    throw error
  }
  const { format, teachers, data, content } = info.metadata
  if (format !== FORMAT) throw new FormatError(`${op}: ${path} holds no teacher's logits`)
  if (teachers !== about.teachers)
    throw new ArgumentError(`${op}: the cache ${path} was made by other teachers: delete it, or name another`)
  if (data !== about.data)
    throw new ArgumentError(`${op}: the cache ${path} was made of other data: delete it, or name another`)
  const tensors = await loadSafetensors(path)
  const logits = Object.keys(tensors).map((_, i) => tensors[nameOf(i)])
  const whole = logits.every((tensor) => tensor?.shape[0] === cache.loader.dataset.length)
  if (!whole || (await logitsDigest(logits as Tensor[])) !== content)
    throw new FormatError(`${op}: the cache ${path} is damaged: delete it`)
  return logits as Tensor[]
}

async function fromFile(op: string, cache: Cache, path: PathLike, teachers: readonly Teacher[]): Promise<Tensor[]> {
  const about = {
    format: FORMAT,
    teachers: await teachersDigest(teachers, cache.key),
    data: await dataDigest(op, cache),
  }
  const known = await readFile(op, cache, path, about)
  if (known) return known
  const logits = await askAll(op, cache, teachers)
  const content = await logitsDigest(logits)
  await saveSafetensors(path, Object.fromEntries(logits.map((tensor, i) => [nameOf(i), tensor])), {
    metadata: { ...about, content },
  })
  return logits
}

/** A dataset with what the teachers said of each sample behind its own fields. */
class Answered implements Dataset {
  readonly length: number

  constructor(
    readonly samples: Dataset,
    readonly answers: Dataset,
  ) {
    this.length = samples.length
  }

  async batch(indices: Int32Array): Promise<Batch> {
    return [...(await this.samples.batch(indices)), ...(await this.answers.batch(indices))]
  }
}

export interface Answers {
  batches: Loader
  dispose(): void
}

/** The loader's batches, in the loader's order, with the teachers' logits as last fields; dispose() the logits when done. */
export async function withAnswers(op: string, cache: Cache, teachers: readonly Teacher[]): Promise<Answers> {
  const { loader, path } = cache
  if (loader.dataset.length === 0) return { batches: loader, dispose: () => {} }
  await checkStable(op, cache)
  const logits = path === null ? await askAll(op, cache, teachers) : await fromFile(op, cache, path, teachers)
  for (const tensor of logits) keep(tensor)
  return {
    batches: loader.over(new Answered(loader.dataset, new TensorDataset(...logits))),
    dispose: () => {
      for (const tensor of logits) tensor.dispose()
    },
  }
}
