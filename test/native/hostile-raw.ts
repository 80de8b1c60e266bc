/**
 * Calls of the native ops of quantization and of sparse weights that are nearly right, on the CPU or on a GPU: any number of the page
 * changed, other buffers, changed bytes of packed weights. What a program of hostile calls runs.
 */
import * as kerf from 'kerf'
import { dtypeCode } from '#lib/core/dtype'
import { pairBytesCuda, qpackedBytesCuda, sparseBytesCuda, wpackedBytesCuda } from '#lib/native/cuda'
import { addon } from '#lib/native/load'
import { oddNumbers, pick, random, survives } from './hostile-tools'

type Tensor = kerf.Tensor
export type Place = 'cpu' | 'cuda'
type Argument = Tensor | number | null
interface RawCall {
  op: string
  args: Argument[]
  /** Stays as it is: 2:4 weights for tensor cores, whose places in an order that is none leave a GPU's result undefined. */
  whole?: Tensor | null
}

const view = (t: Tensor) => [t.code, t.rank, t.offset, ...t.shape, ...t.strides]
const flat = (args: Argument[]) => args.flatMap((x) => (x === null ? [-1] : typeof x === 'number' ? [x] : view(x)))
const buffersOf = (args: Argument[]) => args.flatMap((x) => (x === null || typeof x === 'number' ? [] : [x.buffer]))
type Raw = Record<string, (...buffers: unknown[]) => void>

/** Tensors of zeros and ones on a device. */
function makers(device: Place) {
  const zeros = (shape: number[], dtype: kerf.DType = 'float32') => kerf.zeros(shape, { dtype, device })
  return {
    zeros,
    ones: (shape: number[], dtype: kerf.DType = 'float32') => kerf.ones(shape, { dtype, device }),
    bytes: (shape: number[], dtype: 'int8' | 'uint8' = 'int8') => zeros(shape, dtype),
    int32: (shape: number[]) => zeros(shape, 'int32'),
    one: (value = 1) => kerf.tensor(value, { dtype: 'float32', device }),
    list: (values: number[], dtype: kerf.DType) => kerf.tensor(values, { dtype, device }),
  }
}

/** A right call of each op. */
function rawCalls(device: Place): RawCall[] {
  const { zeros, ones, bytes, int32, one } = makers(device)
  const cpu = device === 'cpu'
  const packed = (onCpu: () => number, onGpu: () => number) => bytes([cpu ? onCpu() : onGpu()], 'uint8')
  const [x, out] = [ones([4, 6]), bytes([4, 6], 'uint8')]
  const [scale, zero] = [kerf.expand(kerf.reshape(one(0.5), [1, 1]), [4, 6]), kerf.expand(int32([4, 1]), [4, 6])]
  const [codes, four] = [bytes([7, 6]), bytes([7, 3], 'uint8')]
  const groups = [zeros([7, 2]), int32([7, 2])] as const
  const columns = (k: number, n: number) =>
    packed(
      () => addon.qpackedBytes(k, n),
      () => qpackedBytesCuda(k, n),
    )
  const q = columns(6, 7)
  const w = packed(
    () => addon.wpackedBytes(6, 7, 4, 4, 0, 1),
    () => wpackedBytesCuda(6, 7, 4, 4, true),
  )
  const signed = packed(
    () => addon.wpackedBytes(6, 7, 8, 4, 1, 0),
    () => wpackedBytesCuda(6, 7, 8, 4, false),
  )
  const images = [zeros([2, 7, 4, 5]), ones([2, 3, 5, 6]), 1, one(), int32([]), columns(12, 7)] as const
  return [
    { op: 'quantize', args: [out, x, scale, zero, 0, 255] },
    { op: 'dequantize', args: [zeros([4, 6]), out, scale, zero] },
    { op: 'fakeQuantize', args: [zeros([4, 6]), x, scale, zero, -8, 7] },
    { op: 'fakeQuantizeGrad', args: [zeros([4, 6]), x, x, scale, null, -8, 7] },
    { op: 'dynamicQuantize', args: [out, zeros([4]), int32([4]), x] },
    { op: 'dynamicQuantize', args: [out, zeros([]), int32([]), x] },
    { op: 'packInt4', args: [bytes([4, 3], 'uint8'), bytes([4, 6])] },
    { op: 'unpackInt4', args: [bytes([4, 6]), bytes([4, 3], 'uint8')] },
    { op: 'qpack', args: [q, bytes([6, 7], 'uint8')] },
    {
      op: 'qmatmul',
      args: [zeros([4, 7]), x, 1, one(), int32([]), zeros([6]), q, zeros([7]), int32([7]), null, null, zeros([7]), 1],
    },
    {
      op: 'qmatmul',
      args: [bytes([4, 7]), bytes([4, 6]), 0, zeros([4]), int32([4]), null, q, one(), null, one(), int32([]), null, 0],
    },
    { op: 'qmatmul', args: [int32([4, 7]), out, 0, null, null, null, q, null, int32([7]), null, null, null, 0] },
    { op: 'qconv2d', args: [...images, zeros([7]), int32([7]), zeros([7]), 1, 2, 2, 1, 1, 0, 0, 1, 1] },
    { op: 'wpack', args: [w, four, ...groups, 6, 4, 4, 0] },
    { op: 'wpack', args: [signed, codes, groups[0], null, 6, 8, 4, 1] },
    { op: 'wmatmul', args: [zeros([4, 7]), x, w, zeros([7]), 2, 4, 4, 0, 1] },
    ...sparseCalls(device),
  ]
}

/** A form of sparse weights: its number, and for 8 x 8 with a non-zero in every row the count and the size. */
type Sparse = [dtype: 'float32' | 'float16' | 'bfloat16' | 'int8', form: number, count: number, size: number]

function cpuForms(pointers: Tensor, columns: Tensor): Sparse[] {
  const dtypes = ['float32', 'float16', 'bfloat16', 'int8'] as const
  return dtypes.flatMap((dtype) =>
    [0, 1, 2, 3].flatMap((form): Sparse[] => {
      const weights = dtypeCode[dtype]
      if (addon.sparseRows(weights, form) === 0) return []
      const [p, c] = [pointers.dataSync() as Int32Array, columns.dataSync() as Int32Array]
      const count = addon.sparseMeasure(weights, form, p, c, 8)
      return [[dtype, form, count, addon.sparseBytes(weights, form, 8, 8, count)]]
    }),
  )
}
/** CSR, and 2:4 for mma.sp and for wgmma.sp (lib/ops/sparse-kernels.ts). */
const cudaForms = (): Sparse[] => [
  ['float32', 0, 8, sparseBytesCuda(4, 8, 8)],
  ['int8', 0, 8, sparseBytesCuda(1, 8, 8)],
  ...[1, 2].flatMap((form): Sparse[] => [
    ['float16', form, 8, pairBytesCuda(2, 8, 8, form === 2)],
    ['bfloat16', form, 8, pairBytesCuda(2, 8, 8, form === 2)],
    ['int8', form, 8, pairBytesCuda(1, 8, 8, form === 2)],
  ]),
]

/** Each form's calls of sppack and of a product. */
function sparseCalls(device: Place): RawCall[] {
  const { zeros, ones, bytes, list } = makers(device)
  const pointers = list([0, 1, 2, 3, 4, 5, 6, 7, 8], 'int32')
  const columns = list([0, 1, 2, 3, 4, 5, 0, 1], 'int32')
  const forms = device === 'cpu' ? cpuForms(pointers, columns) : cudaForms()
  return forms.flatMap(([dtype, form, count, size]): RawCall[] => {
    const packed = bytes([size], 'uint8')
    const whole = device === 'cuda' && form > 0 ? packed : null
    // tensor cores multiply two of a kind
    const [out, bias] = [zeros([4, 8]), ones([8])]
    const x = ones([4, 8], dtype === 'int8' || device === 'cpu' ? 'float32' : dtype)
    const pack: RawCall = { op: 'sppack', args: [packed, ones([8], dtype), pointers, columns, 8, form, count] }
    const images = [zeros([2, 8, 3, 5]), ones([2, 8, 3, 5], dtype === 'int8' ? 'float32' : dtype)] as const
    const steps = [1, 1, 1, 1, 0, 0, 1, 1]
    const convolves = dtype !== 'int8' && (device === 'cpu' ? form === 3 : form === 0)
    return [
      ...(convolves ? [pack, { op: 'spconv2d', args: [...images, packed, bias, 1, count, ...steps] }] : []),
      pack,
      dtype === 'int8'
        ? { op: 'spqmatmul', args: [out, x, 4, null, null, ones([8]), packed, ones([8]), bias, 1, form, count], whole }
        : { op: 'spmatmul', args: [out, x, packed, bias, 1, dtypeCode[dtype], form, count], whole },
    ]
  })
}

/** Runs a call whose page and buffers are given, to its end. */
export function raw(op: string, page: number[], buffers: unknown[], device: Place = 'cpu'): void {
  survives(() => {
    addon.arguments.set(page)
    ;(addon.ops as unknown as Raw)[op]?.(...buffers)
    if (device === 'cpu') addon.wait(addon.state[0] as number)
    else addon.cudaWait(0)
  })
  addon.state[3] = 0
  addon.takeError()
}

/** The right call, which has to work: on a GPU after every other, since a read outside of a buffer ends the device. */
function works({ op, args }: RawCall, device: Place): void {
  addon.arguments.set(flat(args))
  ;(addon.ops as unknown as Raw)[op]?.(...buffersOf(args))
  if (device === 'cuda' && addon.state[3] === 0) addon.cudaWait(0)
  if (addon.state[3] !== 0) console.log(`${op}: the right call fails: ${addon.lastError()}`)
  addon.state[3] = 0
}

/** The places of a call's page that may change. */
function changeable({ args, whole }: RawCall): number[] {
  let at = 0
  return args.flatMap((arg) => {
    const length = flat([arg]).length
    at += length
    return arg !== null && arg === whole ? [] : Array.from({ length }, (_, i) => at - length + i)
  })
}

/** Every number of every right call changed to odd ones, `rounds` times two at once, and other buffers. */
export function nearlyRight(device: Place, rounds: number): void {
  for (const call of rawCalls(device)) {
    const { op, args } = call
    const [page, buffers] = [flat(args), buffersOf(args)]
    works(call, device)
    const near = (x: number) => [...oddNumbers, 0, 1, 2, 3, 4, 6, 7, 8, 16, 64, 4096, x - 1, x + 1, 2 * x, -x]
    const places = changeable(call)
    for (const i of places) for (const value of near(page[i] as number)) raw(op, page.with(i, value), buffers, device)
    for (let round = 0; round < rounds; round++) {
      const [i, j] = [pick(places), pick(places)]
      const changed = page.with(i, pick(near(page[i] as number))).with(j, pick(near(page[j] as number)))
      raw(op, changed, buffers, device)
    }
    for (const i of buffers.keys())
      for (const other of [new ArrayBuffer(0), new ArrayBuffer(3), new ArrayBuffer(1 << 17), {}, null])
        raw(op, page, buffers.with(i, other as never), device)
    raw(op, page, [], device)
    works(call, device)
  }
}

/** Packed weights whose bytes somebody has changed: whatever comes out, nothing outside is read. */
export function changedWeights(device: Place, rounds: number): void {
  const all = sparseCalls(device)
  const calls = all.filter((call, i) => !(call.whole ?? all[i + 1]?.whole))
  for (let round = 0; round < rounds; round++) {
    const at = 2 * (round % (calls.length / 2))
    const [pack, run] = [calls[at], calls[at + 1]] as [RawCall, RawCall]
    raw(pack.op, flat(pack.args), buffersOf(pack.args), device)
    const packed = pack.args[0] as Tensor
    const bytes = device === 'cpu' ? packed : packed.to('cpu')
    const memory = new Uint8Array(bytes.buffer as ArrayBuffer, bytes.offset, bytes.size)
    for (let i = 0; i < 1 + random(8); i++) memory[random(memory.length)] = random(256)
    const buffers = buffersOf(run.args)
    if (device === 'cuda') buffers[buffers.indexOf(packed.buffer)] = bytes.to('cuda').buffer
    raw(run.op, flat(run.args), buffers, device)
  }
  for (const call of calls) works(call, device)
}
