// Quantization of runs of n elements: float to int8 or uint8, back, there and back again, and the range of floats.
// Include the target's qmatmul_simd.h first.
//
// Integers are clip(rint(a / scale) + zero): the quotient is the correctly rounded one, because references divide and a
// product with the reciprocal differs from it next to ties. With fused multiplies one correction of the product gives
// the same (Markstein 1990), at a third of the time of a division: compared for every mantissa of the scale around every
// tie. The dividend is clipped first then, so that nothing overflows on the way; scales whose own products could are
// left to the division.
#pragma once
#include "../core/kernels.h"
#include "vectors.h"

namespace kerf::KERF_TARGET {

constexpr float kSmallestForReciprocal = 1e-30f;

// One scale, which may be negative, and one zero point for a whole run.
struct OneScale {
  vf scale;
  bool by_reciprocal;
  vf size, sign, inverse;  // the scale's magnitude and sign bit, and 1 / size
  vf lowest, highest;      // of the quotient, or with the reciprocal of the dividend times the sign

  OneScale(float s, int32_t zero, float low, float high) : scale(set1(s)) {
    const float magnitude = s < 0 ? -s : s, z = static_cast<float>(zero);
    by_reciprocal = kFused && magnitude >= kSmallestForReciprocal && magnitude <= 1 / kSmallestForReciprocal;
    size = set1(magnitude);
    sign = set1(s < 0 ? -0.0f : 0.0f);
    inverse = set1(1.0f / magnitude);
    lowest = set1(by_reciprocal ? (low - z) * magnitude : low - z);
    highest = set1(by_reciprocal ? (high - z) * magnitude : high - z);
  }
};

// a / scale, clipped; NaN is the lowest.
template <bool reciprocal>
KERF_INLINE vf quotient(const OneScale& one, vf a) {
  if constexpr (!reciprocal) return min(max(div(a, one.scale), one.lowest), one.highest);
  const vf clipped = min(max(bit_xor(a, one.sign), one.lowest), one.highest);
  const vf q = mul(clipped, one.inverse);
  return fma(fnma(q, one.size, clipped), one.inverse, q);
}

KERF_INLINE void put_bytes(void* p, vi x, All) { store_bytes(p, x); }
KERF_INLINE void put_bytes(void* p, vi x, Some lanes) { store_bytes_n(p, x, lanes.n); }
KERF_INLINE vi get_i(const int32_t* p, All) { return load_i(p); }
KERF_INLINE vi get_i(const int32_t* p, Some lanes) { return load_in(p, lanes.n); }

// Contiguous elements with one scale: the inner loop of quantize and of the packing of a float A.
template <class T, bool reciprocal, bool multiplied>
static void quantize_run(int64_t n, uint8_t* out, const T* a, const float* multiplier, const OneScale& one, int32_t zero) {
  const vi offset = set1i(zero);
  for_vectors(n, [&](int64_t i, auto lanes) {
    vf x = get(a + i, lanes);
    if constexpr (multiplied) x = mul(x, get(multiplier + i, lanes));
    put_bytes(out + i, add_i(to_int(quotient<reciprocal>(one, x)), offset), lanes);
  });
}

template <class T>
static void quantize_row(int64_t n, uint8_t* out, const T* a, const float* multiplier, float scale, int32_t zero, float low,
                         float high) {
  const OneScale one(scale, zero, low, high);
  auto run = one.by_reciprocal ? (multiplier ? quantize_run<T, true, true> : quantize_run<T, true, false>)
                               : (multiplier ? quantize_run<T, false, true> : quantize_run<T, false, false>);
  run(n, out, a, multiplier, one, zero);
}

template <class T>
static void quantize(int64_t n, void* out, const QuantizeRun& r) {
  const T* a = static_cast<const T*>(r.a);
  uint8_t* to = static_cast<uint8_t*>(out);
  if (n == 0) return;
  if (r.stride_a == 1 && r.stride_scale == 0 && r.stride_zero == 0)
    return quantize_row(n, to, a, nullptr, *r.scale, r.zero ? *r.zero : 0, r.low, r.high);
  for (int64_t i = 0; i < n; i++) {
    const int32_t zero = r.zero ? r.zero[i * r.stride_zero] : 0;
    const float q = quantized(one(a[i * r.stride_a]), r.scale[i * r.stride_scale], zero, r.low, r.high);
    to[i] = static_cast<uint8_t>(static_cast<int32_t>(q) + zero);
  }
}

template <class T>
static void fake_quantize(int64_t n, void* out, const QuantizeRun& r) {
  const T* a = static_cast<const T*>(r.a);
  T* to = static_cast<T*>(out);
  if (n == 0) return;
  if (r.stride_a == 1 && r.stride_scale == 0 && r.stride_zero == 0) {
    const OneScale one(*r.scale, r.zero ? *r.zero : 0, r.low, r.high);
    for_vectors(n, [&](int64_t i, auto lanes) {
      const vf x = get(a + i, lanes);
      const vf q = one.by_reciprocal ? quotient<true>(one, x) : quotient<false>(one, x);
      put(to + i, mul(add(round(q), set1(0.0f)), one.scale), lanes);  // as in quantized()
    });
    return;
  }
  for (int64_t i = 0; i < n; i++) {
    const float scale = r.scale[i * r.stride_scale];
    const int32_t zero = r.zero ? r.zero[i * r.stride_zero] : 0;
    put_one(to + i, quantized(one(a[i * r.stride_a]), scale, zero, r.low, r.high) * scale);
  }
}

// The straight-through estimator: 1 where rint(a / scale) + zero is within [low, high], else 0.
template <class T>
static void fake_quantize_grad(int64_t n, void* out, const void* grad, int64_t stride_grad, const QuantizeRun& r) {
  const T *a = static_cast<const T*>(r.a), *g = static_cast<const T*>(grad);
  T* to = static_cast<T*>(out);
  for (int64_t i = 0; i < n; i++) {
    const int32_t zero = r.zero ? r.zero[i * r.stride_zero] : 0;
    const bool kept = is_kept(one(a[i * r.stride_a]), r.scale[i * r.stride_scale], zero, r.low, r.high);
    put_one(to + i, kept ? one(g[i * stride_grad]) : 0.0f);
  }
}

KERF_INLINE int32_t integer(DType type, const void* a, int64_t i) {
  if (type == DType::int8_) return static_cast<const int8_t*>(a)[i];
  if (type == DType::uint8_) return static_cast<const uint8_t*>(a)[i];
  return static_cast<const int32_t*>(a)[i];
}
KERF_INLINE vi get_integers(DType type, const void* a, int64_t i, All) {
  if (type == DType::int8_) return load_s8(static_cast<const int8_t*>(a) + i);
  if (type == DType::uint8_) return load_u8(static_cast<const uint8_t*>(a) + i);
  return load_i(static_cast<const int32_t*>(a) + i);
}
KERF_INLINE vi get_integers(DType type, const void* a, int64_t i, Some lanes) {
  if (type == DType::int8_) return load_s8_n(static_cast<const int8_t*>(a) + i, lanes.n);
  if (type == DType::uint8_) return load_u8_n(static_cast<const uint8_t*>(a) + i, lanes.n);
  return load_in(static_cast<const int32_t*>(a) + i, lanes.n);
}

template <class T>
static void dequantize(int64_t n, void* out, DType a_type, const QuantizeRun& r) {
  T* to = static_cast<T*>(out);
  if (n == 0) return;
  if (r.stride_a == 1 && r.stride_scale == 0 && r.stride_zero == 0) {
    const vf scale = set1(*r.scale);
    const vi zero = set1i(r.zero ? *r.zero : 0);
    for_vectors(n, [&](int64_t i, auto lanes) {
      put(to + i, mul(to_float32(sub_i(get_integers(a_type, r.a, i, lanes), zero)), scale), lanes);
    });
    return;
  }
  for (int64_t i = 0; i < n; i++) {
    const int32_t zero = r.zero ? r.zero[i * r.stride_zero] : 0;
    put_one(to + i, dequantized(integer(a_type, r.a, i * r.stride_a), zero, r.scale[i * r.stride_scale]));
  }
}

template <class T>
static void range(int64_t n, const void* data, Range* result) {
  const T* a = static_cast<const T*>(data);
  vf low[2] = {set1(result->min), set1(result->min)}, high[2] = {set1(result->max), set1(result->max)};
  vf taint = set1(0.0f);  // x * 0 is NaN for NaN and for infinities
  int64_t i = 0;
  for (; i + 2 * W <= n; i += 2 * W) {
#pragma GCC unroll 2
    for (int j = 0; j < 2; j++) {
      const vf x = load(a + i + j * W);
      low[j] = min(x, low[j]);
      high[j] = max(x, high[j]);
      taint = fma(x, set1(0.0f), taint);
    }
  }
  float lowest = reduce_min(min(low[0], low[1])), highest = reduce_max(max(high[0], high[1]));
  float tainted = reduce_add(taint);
  for (; i < n; i++) {
    const float x = one(a[i]);
    if (x < lowest) lowest = x;
    if (x > highest) highest = x;
    tainted += x * 0.0f;
  }
  result->min = lowest;
  result->max = highest;
  result->finite &= tainted == tainted;
}

template <class T>
static void install_quantize_float(Kernels& row, DType dtype) {
  const int d = static_cast<int>(dtype);
  row.quantize[d] = quantize<T>;
  row.dequantize[d] = dequantize<T>;
  row.fake_quantize[d] = fake_quantize<T>;
  row.fake_quantize_grad[d] = fake_quantize_grad<T>;
  row.range[d] = range<T>;
}

KERF_INLINE void install_quantize_cells(Kernels& row) {
  install_quantize_float<float>(row, DType::float32_);
  install_quantize_float<f16>(row, DType::float16_);
  install_quantize_float<bf16>(row, DType::bfloat16_);
}

}  // namespace kerf::KERF_TARGET
