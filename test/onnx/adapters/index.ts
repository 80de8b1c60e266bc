// The table of adapters, one file an area: a new area is a file beside these and a line here, and its ops leave
// unsupported.ts.
import type { Adapters } from '../adapter'
import { activations } from './activations'
import { convolutions } from './conv'
import { creation } from './create'
import { elementwise } from './elementwise'
import { images } from './images'
import { indexing } from './indexing'
import { losses } from './loss'
import { products } from './matmul'
import { optimizers } from './optim'
import { quantization } from './quantize'
import { recurrent } from './recurrent'
import { reductions } from './reduce'
import { rows } from './rows'
import { shapes } from './shape'

export const areas: readonly Adapters[] = [
  elementwise,
  activations,
  reductions,
  products,
  convolutions,
  recurrent,
  rows,
  images,
  losses,
  shapes,
  indexing,
  creation,
  optimizers,
  quantization,
]

export const adapters = new Map(areas.flatMap((area) => Object.entries(area)))
