/** Knowledge distillation: a small model learns from what larger ones think of all classes. */
export type { CacheOption } from './cache'
export {
  type DistillData,
  type DistillEpoch,
  type DistillOptions,
  distill,
  type Progress,
  type StudentOptimizer,
} from './distill'
export { type LossOptions, loss, type SoftenOptions, softLoss, type TeacherLogits } from './loss'
export type { Teacher } from './teacher'
