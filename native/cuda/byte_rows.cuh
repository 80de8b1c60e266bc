// Rows as products of bytes read them: int8, K padded with zeros to whole chunks of 16, from floats that are quantized on the way or
// from bytes. uint8 becomes int8, 128 less.
#pragma once
#include "block.cuh"
#include "byte_source.cuh"

namespace kerf {
namespace cuda {

struct ByteRows {
  ByteSource from;      // element [row][k] at row * row_step + k * k_step
  int64_t row_step, k_step;
  uint32_t rows, k, padded;
  const float* scale;   // one value, or one a row
  const int32_t* zero;  // null: 0
  bool one_scale;
  const float* multiplier;  // [k]: a is multiplied by it first; or null
  uint8_t* out;             // [rows][padded]
  int32_t* sums;            // of the bytes of each row; or null
};

struct AddInts { CU_FUNCTION int operator()(int a, int b) const { return a + b; } };

// A block a row; each thread makes words of four neighbours. Shared memory: kFoldBytes.
__global__ void byte_rows(ByteRows r) {
  for (uint32_t row = blockIdx.x; row < r.rows; row += gridDim.x) {
    const int64_t first = row * r.row_step;
    float scale = 1.0f;
    int32_t zero = 0;
    if (r.from.quantize != Quantize::none) {
      scale = cu::load_global(r.scale + (r.one_scale ? 0 : row));
      if (r.zero) zero = cu::load_global(r.zero + (r.one_scale ? 0 : row));
    }
    int sum = 0;
    for (uint32_t p = threadIdx.x * 4; p < r.padded; p += blockDim.x * 4) {
      uint32_t word = 0;
#pragma unroll
      for (uint32_t i = 0; i < 4; i++) {
        if (p + i >= r.k) break;
        const float multiplier = r.multiplier ? cu::load_global(r.multiplier + p + i) : 1.0f;
        const int32_t value = r.from.byte(first + (p + i) * r.k_step, multiplier, scale, zero);
        sum += value;
        word |= static_cast<uint32_t>(value & 255) << (8 * i);
      }
      cu::store_global(reinterpret_cast<uint32_t*>(r.out + static_cast<size_t>(row) * r.padded + p), word);
    }
    if (!r.sums) continue;
    sum = fold(sum, cu::shared_memory(), AddInts());
    if (threadIdx.x == 0) cu::store_global(r.sums + row, sum);
  }
}

}  // namespace cuda
}  // namespace kerf
