/** Pruning: weights that are 0 and stay so, or whole neurons that go, chosen by what they are worth. */

export type { CalibrationData, RunBatch } from '../nn/calibrate'
export type { LayerFilter } from '../nn/linear-layers'
export { densify, sparsify } from '../ops/sparse'
export { type SparseFormat, type SparseParts, SparseTensor } from '../tensor/sparse'
export { type ConvertedLayer, type ConvertOptions, type ConvertReport, convert, type FormatCost } from './convert'
export type { Importance } from './groups'
export type { LayerOptions, Scope, SparsityOptions } from './layers'
export { type LotteryOptions, type LotteryRound, lotteryTicket, rewind, snapshot } from './lottery'
export { applyMetadata, fromTensors, metadata, toTensors } from './metadata'
export { type MovementOptions, MovementScores, movement } from './movement'
export { type BlockOptions, block, type SemiStructuredOptions, semiStructured } from './patterns'
export { type LayerReport, type PruneReport, removeMasks, report } from './report'
export {
  CubicSchedule,
  LinearSchedule,
  OneShotSchedule,
  type RampOptions,
  type SparsitySchedule,
} from './schedules'
export { type LayerSensitivity, type SensitivityOptions, type SensitivityReport, sensitivity } from './sensitivity'
export { type SparseGptOptions, sparseGpt } from './sparse-gpt'
export { SparseLinear, type SparseLinearParts } from './sparse-linear'
export { type StructuredOptions, structured } from './structured'
export type { LeftAlone, ResizedLayer, StructuredReport } from './structured-report'
export { magnitude, type RandomOptions, random } from './unstructured'
export { type CalibratedOptions, wanda } from './wanda'
