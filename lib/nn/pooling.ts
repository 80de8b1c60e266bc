/** Pooling as modules. */

import { show } from '../core/errors'
import { checkPair, type Pair } from '../core/pair'
import {
  type AvgPool2dOptions,
  adaptiveAvgPool2d,
  avgPool2d,
  checkWindow,
  type MaxPool2dOptions,
  maxPool2d,
} from '../ops/pooling'
import type { Tensor } from '../tensor/tensor'
import { Module } from './module'

function describe(options: object): string {
  return Object.entries(options)
    .map(([name, value]) => `${name}=${show(value)}`)
    .join(', ')
}

/** The largest element of every window of an image [n, channels, h, w]. */
export class MaxPool2d extends Module {
  readonly options: Readonly<MaxPool2dOptions>

  constructor(kernelSize: Pair, options: Omit<MaxPool2dOptions, 'kernelSize'> = {}) {
    super()
    this.options = { kernelSize, ...options }
    checkWindow('MaxPool2d', this.options)
  }

  forward(input: Tensor): Tensor {
    return maxPool2d(input, this.options)
  }

  override describe(): string {
    return describe(this.options)
  }
}

/** The average of every window of an image [n, channels, h, w]. */
export class AvgPool2d extends Module {
  readonly options: Readonly<AvgPool2dOptions>

  constructor(kernelSize: Pair, options: Omit<AvgPool2dOptions, 'kernelSize'> = {}) {
    super()
    this.options = { kernelSize, ...options }
    checkWindow('AvgPool2d', this.options)
  }

  forward(input: Tensor): Tensor {
    return avgPool2d(input, this.options)
  }

  override describe(): string {
    return describe(this.options)
  }
}

/** Averages of an image [n, channels, h, w] over as many windows as asked for: AdaptiveAvgPool2d(1) is the mean of a channel. */
export class AdaptiveAvgPool2d extends Module {
  constructor(readonly outputSize: Pair) {
    super()
    checkPair('AdaptiveAvgPool2d', 'outputSize', outputSize, 1)
  }

  forward(input: Tensor): Tensor {
    return adaptiveAvgPool2d(input, this.outputSize)
  }

  override describe(): string {
    return `outputSize=${show(this.outputSize)}`
  }
}
