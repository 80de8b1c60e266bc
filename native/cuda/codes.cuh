// Around products by weights of 8- and 4-bit codes: weights put in the order of packed_weights.h, and activations in rows of 16-bit
// floats. Groups along K that are no whole steps of 64 are padded to such, on both sides.
//
// float32 activations are two float16 ones: with the row scaled by a power of two, x = high + low / 2048 to 22 bits. Both are rows of
// the product, so that weights are read once.
#pragma once
#include "block.cuh"
#include "epilogue.h"
#include "pack.h"

namespace kerf {
namespace cuda {

// K in groups, each padded.
struct Groups {
  uint32_t k, group, padded_group, count;
  static Groups of(int64_t k, int64_t group) {
    const auto whole = static_cast<uint32_t>(k), size = static_cast<uint32_t>(group < k ? group : k);
    return {whole, size, (size + 63) / 64 * 64, (whole + size - 1) / size};
  }
  CU_ANYWHERE uint32_t padded() const { return count * padded_group; }
  // Number `at` of the padded K; k where it is padding.
  CU_ANYWHERE uint32_t place(uint32_t at) const {
    const uint32_t number = at / padded_group, within = at % padded_group, place = number * group + within;
    return within < group && place < k ? place : k;
  }
};

struct Codes {
  const uint8_t* codes;  // as wpack has them
  uint32_t rows, pitch;  // pitch in bytes
  int bits;
  bool is_signed;
};

// A thread makes four bytes of the units.
__global__ void pack_units(uint32_t words, Codes from, Groups groups, uint32_t* to) {
  const uint32_t unit_words = static_cast<uint32_t>(code_unit_bytes(from.bits) / 4), steps = groups.padded() / 64;
  for (uint32_t i = first_element(); i < words; i += element_step()) {
    const uint32_t unit = i / unit_words, row0 = unit / steps * 16, k0 = unit % steps * 64;
    const int first = static_cast<int>(i % unit_words * 4);
    uint32_t word = 0;
#pragma unroll
    for (int b = 0; b < 4; b++) {
      const uint8_t byte = codes_byte(from.bits, first + b, [&](int row, int of_step) {
        const uint32_t m = row0 + static_cast<uint32_t>(row), k = groups.place(k0 + static_cast<uint32_t>(of_step));
        if (m >= from.rows || k >= groups.k) return from.bits == 8 ? 128 : 8;
        const uint8_t raw = cu::load_global(from.codes + static_cast<size_t>(m) * from.pitch + (from.bits == 8 ? k : k / 2));
        return code_of(raw, k, from.bits, from.is_signed);
      });
      word |= static_cast<uint32_t>(byte) << (8 * b);
    }
    cu::store_global(to + i, word);
  }
}

// Scales and zero points, from [rows][groups] to [groups][rows rounded up to 16]. zero_to null: none are stored; zero null: all 0.
__global__ void pack_scales(uint32_t n, Codes codes, uint32_t groups, float* scale_to, uint8_t* zero_to, const float* scale,
                            const int32_t* zero) {
  const uint32_t pitch = (codes.rows + 15) / 16 * 16;
  const int middle = codes.is_signed ? codes.bits == 8 ? 128 : 8 : 0;
  for (uint32_t i = first_element(); i < n; i += element_step()) {
    const uint32_t m = i % pitch, from = m * groups + i / pitch;
    cu::store_global(scale_to + i, m < codes.rows ? cu::load_global(scale + from) : 0.0f);
    const int point = m < codes.rows && zero ? cu::load_global(zero + from) : 0;
    if (zero_to) cu::store_global(zero_to + i, static_cast<uint8_t>(point + middle));
  }
}

struct ActivationRows {
  Anything a;  // element [row][k] at row * row_step + k * k_step
  int64_t row_step, k_step;
  uint32_t rows;
  Groups groups;
  uint16_t* out;  // [rows][padded K]; of float32 as many rows again, the low parts
};

// float16 and bfloat16 as they are.
__global__ void lay_activations(ActivationRows r) {
  const uint32_t padded = r.groups.padded();
  for (uint32_t row = blockIdx.x; row < r.rows; row += gridDim.x)
    for (uint32_t i = threadIdx.x; i < padded; i += blockDim.x) {
      const uint32_t k = r.groups.place(i);
      const uint16_t bits = k < r.groups.k ? cu::load_own(static_cast<const uint16_t*>(r.a.data) + row * r.row_step + k * r.k_step) : 0;
      cu::store_global(r.out + static_cast<size_t>(row) * padded + i, bits);
    }
}

constexpr float kLowParts = 2048.0f;  // what a low part is multiplied by: float16 has 11 bits

// float32 as two float16; scale: what a row's sums are to be multiplied by. NaN where the row has a NaN or an infinity.
// Shared memory: kFoldBytes.
__global__ void split_activations(ActivationRows r, float* scale) {
  const uint32_t padded = r.groups.padded();
  const float* const a = static_cast<const float*>(r.a.data);
  for (uint32_t row = blockIdx.x; row < r.rows; row += gridDim.x) {
    const float* const from = a + row * r.row_step;
    float largest = 0;
    for (uint32_t k = threadIdx.x; k < r.groups.k; k += blockDim.x) largest = Larger()(fabsf(cu::load_global(from + k * r.k_step)), largest);
    largest = fold(largest, cu::shared_memory(), Larger());
    const bool finite = largest < INFINITY;
    // The largest becomes 2^14 to 2^15; the factor stays a normal number.
    const int exponent = !finite || largest == 0 ? 0 : 14 - ilogbf(largest) < 126 ? 14 - ilogbf(largest) : 126;
    const float factor = ldexpf(1.0f, exponent);
    if (threadIdx.x == 0) cu::store_global(scale + row, finite ? ldexpf(1.0f, -exponent) : NAN);
    uint16_t* const high = r.out + static_cast<size_t>(row) * padded;
    uint16_t* const low = high + static_cast<size_t>(r.rows) * padded;
    for (uint32_t i = threadIdx.x; i < padded; i += blockDim.x) {
      const uint32_t k = r.groups.place(i);
      const float x = finite && k < r.groups.k ? cu::load_global(from + k * r.k_step) * factor : 0.0f;
      const f16 whole = to_f16(x);
      cu::store_global(high + i, whole.bits);
      cu::store_global(low + i, to_f16((x - to_float(whole)) * kLowParts).bits);
    }
  }
}

// The sums of high and low parts, [2 rows][columns], put together.
template <class Out>
__global__ void join_parts(uint32_t n, uint32_t columns, Out out, const float* sums, const float* scale, const float* bias,
                           Activation activation) {
  for (uint32_t i = first_element(); i < n; i += element_step()) {
    const uint32_t row = i / columns, column = i % columns;
    const float sum = cu::load_global(sums + i) + cu::load_global(sums + static_cast<size_t>(n) + i) * (1.0f / kLowParts);
    out.put(i, activated(activation, sum * cu::load_global(scale + row) + (bias ? cu::load_global(bias + column) : 0.0f)));
  }
}

}  // namespace cuda
}  // namespace kerf
