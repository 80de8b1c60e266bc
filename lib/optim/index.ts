/** Optimizers, learning-rate schedules, gradient clipping. */
export { Adam, type AdamOptions, AdamW } from './adam'
export { clipGradNorm, clipGradValue } from './clip'
export { OneCycleLR, type OneCycleOptions } from './one-cycle'
export {
  type Group,
  type GroupOptions,
  Optimizer,
  type OptimizerState,
  type ParamGroup,
  type ParamState,
  type Params,
  type StepOptions,
} from './optimizer'
export { type PlateauOptions, type PlateauState, ReduceLROnPlateau } from './plateau'
export {
  CosineAnnealingLR,
  ExponentialLR,
  LambdaLR,
  LinearLR,
  MultiStepLR,
  type Schedulable,
  Schedule,
  type ScheduleState,
  SequentialLR,
  StepLR,
} from './schedules'
export { SGD, type SGDOptions } from './sgd'
