/** Pruning: weights that are 0 and stay so, chosen by what they are worth. */
export type { LayerFilter } from '../nn/linear-layers'
export type { LayerOptions, Scope, SparsityOptions } from './layers'
export { type BlockOptions, block, type SemiStructuredOptions, semiStructured } from './patterns'
export { type LayerReport, type PruneReport, removeMasks, report } from './report'
export {
  CubicSchedule,
  LinearSchedule,
  OneShotSchedule,
  type RampOptions,
  type SparsitySchedule,
} from './schedules'
export { magnitude, type RandomOptions, random } from './unstructured'
