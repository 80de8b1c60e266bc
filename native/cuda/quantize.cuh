// Quantization by core/affine.h, so with the bits of the CPU: elements with any strides, ranges by blocks, pairs of 4-bit values.
#pragma once
#include "../core/affine.h"
#include "block.cuh"

namespace kerf {
namespace cuda {

// What elements are quantized by; no zero points: 0.
struct Steps {
  const float* scale;
  const int32_t* zero;
  float low, high;
  CU_FUNCTION float scale_at(int64_t at) const { return cu::load_global(scale + at); }
  CU_FUNCTION int32_t zero_at(int64_t at) const { return zero ? cu::load_global(zero + at) : 0; }
};

// out, a, scale, zero point
template <class A>
__global__ void quantize_elements(uint32_t n, Layout<4> layout, uint8_t* out, A a, Steps by) {
  for (uint32_t i = first_element(); i < n; i += element_step()) {
    int64_t at[4];
    locate(layout, i, at);
    const int32_t zero = by.zero_at(at[3]);
    const float q = quantized(a.own(at[1]), by.scale_at(at[2]), zero, by.low, by.high);
    cu::store_global(out + at[0], static_cast<uint8_t>(static_cast<int32_t>(q) + zero));
  }
}

// out, a, scale, zero point
template <class Out>
__global__ void dequantize_elements(uint32_t n, Layout<4> layout, Out out, Integers a, Steps by) {
  for (uint32_t i = first_element(); i < n; i += element_step()) {
    int64_t at[4];
    locate(layout, i, at);
    out.put(at[0], dequantized(static_cast<int32_t>(a.own(at[1])), by.zero_at(at[3]), by.scale_at(at[2])));
  }
}

// out, a, scale, zero point
template <class A>
__global__ void fake_quantize_elements(uint32_t n, Layout<4> layout, A out, A a, Steps by) {
  for (uint32_t i = first_element(); i < n; i += element_step()) {
    int64_t at[4];
    locate(layout, i, at);
    const float scale = by.scale_at(at[2]);
    out.put(at[0], quantized(a.own(at[1]), scale, by.zero_at(at[3]), by.low, by.high) * scale);
  }
}

// out, grad, a, scale, zero point
template <class A>
__global__ void fake_quantize_grad_elements(uint32_t n, Layout<5> layout, A out, A grad, A a, Steps by) {
  for (uint32_t i = first_element(); i < n; i += element_step()) {
    int64_t at[5];
    locate(layout, i, at);
    const bool kept = is_kept(a.own(at[2]), by.scale_at(at[3]), by.zero_at(at[4]), by.low, by.high);
    out.put(at[0], kept ? grad.own(at[1]) : 0.0f);
  }
}

// ---- ranges

// The range of some numbers and 0. A NaN stays in `most`; it makes the width NaN, an infinity makes it infinite: dynamic_scale()
// finds both.
struct Extent {
  float least, most;
  CU_FUNCTION Extent operator+(const Extent& b) const { return {b.least < least ? b.least : least, Larger()(b.most, most)}; }
  CU_FUNCTION void store_scale(float* scale, int32_t* zero) const {
    float s;
    int32_t z;
    dynamic_scale(kerf::Range{least, most, true}, &s, &z);
    cu::store_global(scale, s);
    cu::store_global(zero, z);
  }
};

// Contiguous floats in rows; `multiplier`, one a column, null: 1.
template <class A>
struct Multiplied {
  A a;
  const float* multiplier;
  uint32_t columns;
  CU_FUNCTION Extent at(uint32_t i, uint32_t column) const {
    const float x = multiplier ? a.get(i) * cu::load_global(multiplier + column) : a.get(i);
    return {x, x};
  }
};

CU_FUNCTION Extent fold_extents(const Extent& own, uint8_t* slots) {
  return fold(own, slots, [](const Extent& a, const Extent& b) { return a + b; });
}

template <class A>
__global__ void row_scales(uint32_t rows, Multiplied<A> a, float* scale, int32_t* zero) {
  uint8_t* const slots = cu::shared_memory();
  for (uint32_t row = blockIdx.x; row < rows; row += gridDim.x) {
    Extent found{0, 0};
    for (uint32_t i = threadIdx.x; i < a.columns; i += blockDim.x) found = found + a.at(row * a.columns + i, i);
    found = fold_extents(found, slots);
    if (threadIdx.x == 0) found.store_scale(scale + row, zero + row);
  }
}

// Each block finds the range of its elements; the one that ends last joins the ranges. parts: two floats a block; arrived: 0 before
// the launch and after it.
struct Parts {
  float* found;
  unsigned* arrived;
};

constexpr int kScaleBytes = kFoldBytes + 4;  // shared memory of tensor_scale

template <class A>
__global__ void tensor_scale(uint32_t n, Multiplied<A> a, Parts parts, float* scale, int32_t* zero) {
  uint8_t* const slots = cu::shared_memory();
  unsigned* const flag = reinterpret_cast<unsigned*>(slots + kFoldBytes);
  Extent found{0, 0};
  for (uint32_t i = first_element(); i < n; i += element_step()) found = found + a.at(i, a.multiplier ? i % a.columns : 0);
  found = fold_extents(found, slots);
  if (threadIdx.x == 0) {
    cu::store_global(parts.found + 2 * blockIdx.x, found.least);
    cu::store_global(parts.found + 2 * blockIdx.x + 1, found.most);
    cu::fence_global();
    const unsigned earlier = cu::atomic_add(parts.arrived, 1);
    cu::fence_global();
    if (earlier == gridDim.x - 1) cu::store_global(parts.arrived, 0u);
    cu::store_shared(flag, earlier);
  }
  cu::sync_threads();
  if (cu::load_shared(flag) != gridDim.x - 1) return;
  for (uint32_t part = threadIdx.x; part < gridDim.x; part += blockDim.x)
    found = found + Extent{cu::load_written(parts.found + 2 * part), cu::load_written(parts.found + 2 * part + 1)};
  found = fold_extents(found, slots);
  if (threadIdx.x == 0) found.store_scale(scale, zero);
}

// ---- pairs of 4-bit values: a thread has a byte of `packed`, in rows of `bytes`, for rows of n values

struct Pairs {
  uint32_t n, bytes;
  CU_FUNCTION int64_t first(uint32_t i) const { return static_cast<int64_t>(i / bytes) * n + i % bytes * 2; }
  CU_FUNCTION bool whole(uint32_t i) const { return i % bytes * 2 + 1 < n; }
};

__global__ void pack_pairs(uint32_t size, Pairs pairs, uint8_t* packed, const uint8_t* values) {
  for (uint32_t i = first_element(); i < size; i += element_step()) {
    const int64_t at = pairs.first(i);
    const uint32_t low = cu::load_global(values + at) & 15, high = pairs.whole(i) ? cu::load_global(values + at + 1) : 0;
    cu::store_global(packed + i, static_cast<uint8_t>(low | high << 4));
  }
}

// sign: 8 where the values are signed: (x ^ 8) - 8 extends the sign
__global__ void unpack_pairs(uint32_t size, Pairs pairs, uint8_t* values, const uint8_t* packed, uint32_t sign) {
  for (uint32_t i = first_element(); i < size; i += element_step()) {
    const int64_t at = pairs.first(i);
    const uint32_t both = cu::load_global(packed + i);
    auto extended = [&](uint32_t nibble) { return static_cast<uint8_t>((nibble ^ sign) - sign); };
    cu::store_global(values + at, extended(both & 15));
    if (pairs.whole(i)) cu::store_global(values + at + 1, extended(both >> 4));
  }
}

}  // namespace cuda
}  // namespace kerf
