// Runs one case: a folder with model.onnx and test_data_set_*/input_*.pb, output_*.pb.
import { readdirSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { isFloat } from '#lib/core/dtype'
import type { Tensor } from '#lib/tensor/tensor'
import { compare, onGpu, read } from '../matrix'
import { map, type Nd } from '../oracle/array'
import { ulp } from '../oracle/float'
import type { Adapter } from './adapter'
import { adapters } from './adapters'
import { misstated, unsupported } from './adapters/unsupported'
import { Call } from './call'
import {
  dtypeOf,
  type OnnxModel,
  type OnnxNode,
  type OnnxTensor,
  type OnnxValue,
  readModel,
  readTensor,
  toNd,
  typeName,
} from './model'
import { Skip } from './skip'
import { Message } from './wire'

export interface Outcome {
  /** Of the node; a model of several has none. */
  opType: string
  /** Why the case was not run. */
  skipped?: string
  /** What was wrong. */
  failures: string[]
}

/** What may be a DeviceError where tensors are on a GPU (test/matrix.ts's onGpu). */
const NOT_ON_CUDA = new Set(onGpu ? ['ConvInteger', 'MatMulInteger', 'QLinearMatMul'] : [])

export function runCase(folder: string): Outcome {
  const model = readModel(readFileSync(path.join(folder, 'model.onnx')))
  const node = model.nodes[0] as OnnxNode
  if (model.nodes.length !== 1) return { opType: '', skipped: 'a graph of several nodes', failures: [] }
  const opType = node.opType
  try {
    const adapter = adapterOf(path.basename(folder), opType)
    const sets = readdirSync(folder).filter((name) => name.startsWith('test_data_set_'))
    if (sets.length === 0) throw new Error('there is no test_data_set_*')
    return { opType, failures: sets.flatMap((set) => runSet(model, node, adapter, path.join(folder, set))) }
  } catch (error) {
    if (error instanceof Skip) return { opType, skipped: error.message, failures: [] }
    if (NOT_ON_CUDA.has(opType) && (error as { code?: string }).code === 'ERR_DEVICE')
      return { opType, skipped: 'no CUDA kernel yet', failures: [] }
    return { opType, failures: [error instanceof Error ? (error.stack ?? error.message) : String(error)] }
  }
}

function adapterOf(name: string, opType: string): Adapter {
  const wrong = misstated.get(name)
  if (wrong !== undefined) throw new Skip(wrong)
  const adapter = adapters.get(opType)
  if (adapter === undefined) throw new Skip(unsupported.get(opType) ?? 'an op that no adapter knows')
  return adapter
}

/** The tensors of input_0.pb, ... or output_0.pb, ... by the names that the graph has for them. */
function readValues(folder: string, kind: string, values: readonly OnnxValue[]): Map<string, OnnxTensor> {
  const tensors = new Map<string, OnnxTensor>()
  for (const [i, { name, type }] of values.entries()) {
    if (type === null) throw new Skip(`${kind} ${i} is not a tensor`)
    const tensor = readTensor(new Message(readFileSync(path.join(folder, `${kind}_${i}.pb`))))
    // numpy has no bfloat16: the files call its bits uint16
    if (typeName(tensor.type) === 'uint16' && typeName(type) === 'bfloat16') tensor.type = type
    if (tensor.type !== type) throw new Error(`${kind} ${i} is ${typeName(tensor.type)}, should be ${typeName(type)}`)
    tensors.set(name, tensor)
  }
  return tensors
}

function runSet(model: OnnxModel, node: OnnxNode, adapter: Adapter, folder: string): string[] {
  const inputs = readValues(folder, 'input', model.inputs)
  const outputs = readValues(folder, 'output', model.outputs)
  const given = node.inputs.map((name) => {
    const value = inputs.get(name)
    if (value === undefined && name !== '') throw new Error(`no input ${name}`)
    return value ?? null
  })
  const call = new Call(node, given, model.opsets.get(node.domain) ?? 0)
  const results = [adapter.run(call)].flat()
  return Array.from(outputs, ([name, want]) => {
    const output = node.outputs.indexOf(name)
    return check(call, name, results[output], want, output, adapter)
  }).flat()
}

function check(
  call: Call,
  name: string,
  got: Tensor | undefined,
  wanted: OnnxTensor,
  output: number,
  { bound }: Adapter,
): string[] {
  if (got === undefined) return [`${name}: the adapter gives no output ${output}`]
  const dtype = dtypeOf(wanted.type)
  if (got.dtype !== dtype) return [`${name}: dtype is ${got.dtype}, should be ${dtype}`]
  const exact = toNd(wanted)
  const want = typeName(wanted.type) === 'double' ? map(exact, Math.fround) : exact
  if (!isFloat(dtype)) return compare(name, got, want)
  const allowed = bound(call, want, output)
  const differences = compare(name, got, want, (flat, x) => {
    const tolerance = allowed(flat)
    // both sides round a 16-bit result once more
    return tolerance > 0 && dtype !== 'float32' ? tolerance + ulp(dtype, x) : tolerance
  })
  return differences.length > 0 ? differences : wrongZeros(name, got, want, allowed)
}

/** compare() takes 0 and -0 for equal; where nothing is rounded the sign has to be right too. */
function wrongZeros(name: string, got: Tensor, want: Nd, allowed: (flat: number) => number): string[] {
  const { data } = read(got)
  const at = want.data.findIndex((x, i) => x === 0 && allowed(i) === 0 && !Object.is(x, data[i]))
  return at < 0 ? [] : [`${name}: element ${at} is a zero of the other sign`]
}
