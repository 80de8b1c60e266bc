// What the tests of sparse int8 layers share: pruned and quantized models, in every way that gives weights that can be sparse.
import { type nn, prune, quant } from 'kerf'
import type { AnyModule } from '#lib/nn/module'
import { inputs, mlp } from '../quant/models'

const { int8Dynamic, int8Static, perChannel, perTensor, quantizeModel, weightOnly } = quant

export const formats: prune.SparseFormat[] = ['csr', '2:4', { block: [1, 16] }, { block: [3, 5] }]
export const sizes = [20, 12, 8]
export const calibrationData = [inputs(90, 40, 20)]

export const configs: Record<string, quant.QuantConfig> = {
  token: int8Dynamic(),
  'tensor, per tensor, smoothed': int8Dynamic({ input: 'tensor', granularity: perTensor, smoothQuant: true }),
  uint8: int8Static(),
  'int8, smoothed': int8Static({ input: 'int8', smoothQuant: 0.3 }),
}
export const floatInput: Record<string, quant.QuantConfig> = {
  float: weightOnly({ granularity: perChannel(0) }),
  'float, awq': weightOnly({ granularity: perChannel(0), method: 'awq' }),
}

export async function pruned(seed: number, shape = sizes): Promise<nn.Sequential> {
  const model = mlp(seed, shape)
  await prune.semiStructured(model)
  return model
}

/** Pruned, and quantized: the same model twice. */
export async function twins(seed: number, config: quant.QuantConfig, dtype: 'float32' | 'bfloat16' = 'float32') {
  const make = async () =>
    quantizeModel((await pruned(seed)).to(dtype), config, { calibrationData: calibrationData.map((x) => x.to(dtype)) })
  return [await make(), await make()] as const
}

export const of = <L extends AnyModule>(model: AnyModule, kind: abstract new (...args: never[]) => L): L[] =>
  model.modules().filter((m): m is L => m instanceof kind)
export const sparseLayers = (model: AnyModule) => of(model, prune.SparseLinear)
export const quantizedLayers = (model: AnyModule) => of(model, quant.QuantizedLinear)
