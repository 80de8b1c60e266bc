/** Data sets and batches. */
export { type Batch, type Dataset, Subset, split, TensorDataset } from './dataset'
export { readIdx } from './idx'
export { Loader, type LoaderOptions, type LoaderState, loader, type Transform, type TransformContext } from './loader'
export { type MnistOptions, mnist } from './mnist'
