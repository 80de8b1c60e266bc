/** Files: safetensors and .npy. */
export { loadNpy, parseNpy, saveNpy, serializeNpy } from './npy'
export {
  loadSafetensors,
  type Metadata,
  parseSafetensors,
  readSafetensorsInfo,
  type SafetensorsInfo,
  saveSafetensors,
  serializeSafetensors,
  type TensorDict,
} from './safetensors'
export type { PathLike } from './source'
