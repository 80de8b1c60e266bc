/** Data sets and batches. */
export { type AugmentOptions, augment } from './augment'
export { type Batch, type Dataset, Subset, split, TensorDataset } from './dataset'
export { readIdx } from './idx'
export {
  cutout,
  type ImageSize,
  type ImageTransform,
  normalize,
  randomErasing,
  randomHorizontalFlip,
  randomRotation,
  randomShift,
} from './images'
export { Loader, type LoaderOptions, type LoaderState, loader, type Transform, type TransformContext } from './loader'
export { type MnistOptions, mnist } from './mnist'
