/** Mixed precision: products in 16 bits, everything delicate and the weights themselves in float32. */
export { type AutocastOptions, autocast } from './autocast'
export { GradScaler, type GradScalerOptions, type GradScalerState } from './grad-scaler'
export { float32Ops, lowerOps } from './precision'
export { type PrecisionCount, PrecisionReport } from './report'
