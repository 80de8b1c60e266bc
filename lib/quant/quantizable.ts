/** The kinds of layers that are quantized, and what differs between them. */
import { type Granularity, perChannel } from '../core/quantization'
import { Conv2d } from '../nn/conv'
import { Linear } from '../nn/linear'
import { type LayerFilter, layersOf } from '../nn/linear-layers'
import type { AnyModule } from '../nn/module'
import { QuantizedConv2d } from '../nn/quantized-conv'
import type { QuantizedParts } from '../nn/quantized-layer'
import { QuantizedLinear } from '../nn/quantized-linear'
import { type QuantConfig, weightOnly } from './config'

/** What is quantized. */
export type Quantizable = Linear | Conv2d
/** What it becomes. */
export type Quantized = QuantizedLinear | QuantizedConv2d

/** Layers to leave alone. */
export type Skip = LayerFilter<Quantizable>

/** The layers of a model that can be quantized. */
export const quantizableLayers = (op: string, model: AnyModule, skip: Skip | undefined): [string, Quantizable][] =>
  layersOf<Quantizable>(op, model, [Linear, Conv2d], { skip })

/**
 * What a config asks of a layer. Images have neither tokens, nor columns to smooth, nor kernels for 4 bits; and bytes are not
 * convolved in groups, so that such a layer's input stays float.
 */
export function configFor(config: QuantConfig, layer: Quantizable): QuantConfig {
  if (layer instanceof Linear) return config
  if (config.kind === 'weightOnly') return weightOnly({ granularity: perChannel(0), symmetric: config.symmetric })
  // A config counts axes of matrices, where the first one may be called -2.
  const granularity: Granularity = config.granularity.kind === 'tensor' ? config.granularity : perChannel(0)
  if (layer.groups !== 1) return { ...weightOnly({ granularity: perChannel(0) }), granularity }
  const plain = { granularity, smoothQuant: null }
  return config.kind === 'int8Dynamic' ? { ...config, ...plain, input: 'tensor' } : { ...config, ...plain }
}

/** The quantized layer of these parts. */
export function quantizedOf(layer: Quantizable, parts: QuantizedParts): Quantized {
  if (layer instanceof Linear) return new QuantizedLinear(parts)
  return new QuantizedConv2d({ ...parts, options: layer.options })
}
