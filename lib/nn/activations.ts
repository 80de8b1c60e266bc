/** The elementwise functions as modules, to stand in a Sequential. */
import { ArgumentError } from '../core/errors'
import { checkInteger, sizeOf } from '../core/shape'
import { reshape } from '../ops/shape'
import { gelu, relu, sigmoid, silu, tanh } from '../ops/unary'
import type { Tensor } from '../tensor/tensor'
import { Module } from './module'

/** max(x, 0). */
export class ReLU extends Module {
  forward(input: Tensor): Tensor {
    return relu(input)
  }
}

/** x / 2 * (1 + erf(x / sqrt(2))). */
export class GELU extends Module {
  forward(input: Tensor): Tensor {
    return gelu(input)
  }
}

/** x * sigmoid(x). */
export class SiLU extends Module {
  forward(input: Tensor): Tensor {
    return silu(input)
  }
}

/** 1 / (1 + e^-x). */
export class Sigmoid extends Module {
  forward(input: Tensor): Tensor {
    return sigmoid(input)
  }
}

/** Hyperbolic tangent. */
export class Tanh extends Module {
  forward(input: Tensor): Tensor {
    return tanh(input)
  }
}

/** What comes in goes out. */
export class Identity extends Module {
  forward(input: Tensor): Tensor {
    return input
  }
}

/** Axes startAxis (default 1) to endAxis (default the last) as one. */
export class Flatten extends Module {
  constructor(
    readonly startAxis = 1,
    readonly endAxis = -1,
  ) {
    super()
    checkInteger('Flatten', 'startAxis', startAxis)
    checkInteger('Flatten', 'endAxis', endAxis)
  }

  forward(input: Tensor): Tensor {
    const { shape, rank } = input
    const first = this.startAxis < 0 ? this.startAxis + rank : this.startAxis
    const last = this.endAxis < 0 ? this.endAxis + rank : this.endAxis
    if (first < 0 || last >= rank || first > last) {
      throw new ArgumentError(
        `Flatten: axes ${this.startAxis} to ${this.endAxis} do not exist in a tensor of ${rank} axes`,
      )
    }
    return reshape(input, [...shape.slice(0, first), sizeOf(shape.slice(first, last + 1)), ...shape.slice(last + 1)])
  }

  override describe(): string {
    return `startAxis=${this.startAxis}, endAxis=${this.endAxis}`
  }
}
