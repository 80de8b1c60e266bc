/** Files: safetensors, .npy, and compressed ones. */
export {
  type CompressedReport,
  type CompressedTensorInfo,
  compressedReport,
  type LoadCompressedOptions,
  loadCompressed,
  parseCompressed,
  saveCompressed,
  serializeCompressed,
} from './compressed'
export { loadNpy, parseNpy, saveNpy, serializeNpy } from './npy'
export {
  loadSafetensors,
  parseSafetensors,
  readSafetensorsInfo,
  type SafetensorsInfo,
  saveSafetensors,
  serializeSafetensors,
} from './safetensors'
export type { TensorEncoding } from './sections'
export { type SharedWeights, type ShareWeightsOptions, type StatefulModel, shareWeights } from './share-weights'
export type { PathLike } from './source'
export type { Metadata, TensorDict } from './tensor-dict'
