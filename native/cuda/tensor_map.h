// What TMA fetches by: boxes of a matrix.
#pragma once
#include "cu.h"

namespace kerf {
namespace cuda {

// A map of rows of `row_bytes`, a multiple of 16, at a base of 16 bytes; boxes of box_rows x 128 bytes, swizzled, zeros outside.
// Answers null, or what failed.
inline const char* encode_tensor_map(cu::TensorMap* map, const uint8_t* base, int rows, int row_bytes, int box_rows,
                                     int element_bytes) {
#ifdef __CUDACC__
  using Encode = decltype(&cuTensorMapEncodeTiled);
  static const Encode encode = [] {
    void* found = nullptr;
    cudaDriverEntryPointQueryResult result;
    const auto error =
        cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000, cudaEnableDefault, &result);
    return error == cudaSuccess ? reinterpret_cast<Encode>(found) : nullptr;
  }();
  if (!encode) return "the driver has no cuTensorMapEncodeTiled";
  const cuuint64_t sizes[2] = {cuuint64_t(row_bytes / element_bytes), cuuint64_t(rows)};
  const cuuint64_t pitch[1] = {cuuint64_t(row_bytes)};
  const cuuint32_t box[2] = {cuuint32_t(128 / element_bytes), cuuint32_t(box_rows)}, steps[2] = {1, 1};
  const CUtensorMapDataType type = element_bytes == 1 ? CU_TENSOR_MAP_DATA_TYPE_UINT8 : CU_TENSOR_MAP_DATA_TYPE_UINT16;
  const CUresult result = encode(map, type, 2, const_cast<uint8_t*>(base), sizes, pitch, box, steps,
                                 CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                                 CU_TENSOR_MAP_L2_PROMOTION_L2_128B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? nullptr : "cuTensorMapEncodeTiled refuses";
#else
  *map = {base, rows, row_bytes, row_bytes, box_rows, element_bytes};
  return nullptr;
#endif
}

}  // namespace cuda
}  // namespace kerf
