/** Knowledge distillation: a small model learns from what larger ones think of all classes. */
export { type BornAgainOptions, bornAgain, type Generation } from './born-again'
export type { CacheOption } from './cache'
export {
  type DistillData,
  type DistillEpoch,
  type DistillOptions,
  distill,
  type Progress,
  type StudentOptimizer,
} from './distill'
export { Capture, capture } from './features'
export { type LossOptions, loss, type SoftenOptions, softLoss, type TeacherLogits } from './loss'
export { type AttentionTransferOptions, attentionTransfer, Hint } from './matching'
export type { Teacher } from './teacher'
export type { FeatureTerm } from './terms'
