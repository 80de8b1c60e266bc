// What drivers of elementwise quantization ask of their views, on the CPU and on a GPU alike.
#pragma once
#include "view.h"

namespace kerf {

// Scales and zero points of out's elements.
KERF_INLINE bool scales_of(const View& out, const View& scale, const OptView& zero) {
  return same_shape(out, scale) && scale.dtype == DType::float32_ &&
         (!present(zero) || (same_shape(out, zero) && zero.dtype == DType::int32_));
}

KERF_INLINE bool is_byte(DType dtype) { return dtype == DType::int8_ || dtype == DType::uint8_; }

KERF_INLINE bool quantizes(const View& out, const View& a, f64 low, f64 high) {
  const bool fits = out.dtype == DType::int8_ ? low >= -128 && high <= 127 : low >= 0 && high <= 255;
  return same_shape(out, a) && is_byte(out.dtype) && low <= high && fits;
}

KERF_INLINE bool dequantizes(const View& out, const View& a) {
  return same_shape(out, a) && (is_byte(a.dtype) || a.dtype == DType::int32_);
}

// The scales of the whole of a, or one for each of its rows.
KERF_INLINE bool quantizes_by_range(const View& out, const View& scale, const View& zero, const View& a) {
  if (!same_shape(out, a) || out.dtype != DType::uint8_ || !contiguous(out) || !contiguous(a) || a.rank < 1) return false;
  if (scale.dtype != DType::float32_ || zero.dtype != DType::int32_ || !contiguous(scale) || !contiguous(zero)) return false;
  const int64_t n = a.shape[a.rank - 1], scales = count(scale);
  return count(zero) == scales && (scales == 1 || scales == count(a) / (n ? n : 1));
}

// Two 4-bit values a byte along the last axis.
KERF_INLINE bool holds_pairs(const View& packed, const View& values) {
  if (packed.rank != values.rank || values.rank < 1 || !contiguous(packed) || !contiguous(values)) return false;
  if (packed.dtype != DType::uint8_ || !is_byte(values.dtype)) return false;
  for (int i = 0; i < values.rank - 1; i++)
    if (packed.shape[i] != values.shape[i]) return false;
  return packed.shape[packed.rank - 1] == (values.shape[values.rank - 1] + 1) / 2;
}

// A zero point of a walk's elements; the scale stands in for one that is absent, and is not read as such.
KERF_INLINE const View& or_scale(const OptView& zero, const View& scale) {
  return present(zero) ? static_cast<const View&>(zero) : scale;
}

}  // namespace kerf
