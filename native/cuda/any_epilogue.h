// Products whose result has whichever dtype the caller wants, known at run time: one kernel for all of them. Sums of bytes are put
// right by their zero points first,
//
//   sum (w - zw) (x - zx) = sum w x - zx sum_k w - zw (sum_k x - K zx)
//
// modulo 2^32, as in cpu/qmatmul_rules.h.
#pragma once
#include "epilogue.h"

namespace kerf {
namespace cuda {

// The Out of kernels that store any dtype.
struct AnyFormat {};

// What sums of bytes need; all zeros: float32 results, no zero points, a scale for each feature and for each token.
struct ByteSums {
  const int32_t* weight_sum;   // [m], 16-byte aligned, over K; null where no token has a zero point
  const int32_t* weight_zero;  // [m], 16-byte aligned, or one; null: 0
  const int32_t* token_zero;   // [n] or one; null: 0
  const int32_t* token_sum;    // [n], over K; null where weight_zero is
  const float* out_scale;      // one; of a result of bytes
  const int32_t* out_zero;     // one; null: 0
  int32_t shift, k;            // shift: added to every token's zero point
  DType type;                  // of the result: a float dtype, int32, int8 or uint8
  bool one_weight_scale, one_weight_zero, one_token_scale, one_token_zero;
};

template <>
struct Epilogue<AnyFormat> {
  using Out = AnyFormat;
  using Terms = struct AnyTerms;
  const float* weight_scale;
  const float* token_scale;
  const float* bias;
  Activation activation;
  void* out;  // [n][m], row pitch m elements, 16-byte aligned
  ByteSums bytes;
};

// Where four neighbours go, in a tensor whose dtype is known at run time: how many of them there are, and whether they lie together
// at whole fours, all of them there.
struct FourPlaces {
  void* out;
  size_t at[4];
  int left;
  bool whole;

  template <class T, class Four>
  CU_FUNCTION void put(const T (&v)[4], Four four) const {
    T* const to = static_cast<T*>(out);
    if (whole) return cu::store_global(reinterpret_cast<Four*>(to + at[0]), four);
#pragma unroll
    for (int i = 0; i < 4; i++)
      if (i < left) cu::store_global(to + at[i], v[i]);
  }
  template <class Out>
  CU_FUNCTION void put_floats(const float (&v)[4]) const {
    using S = Stored<Out>;
    const typename S::Element each[4] = {S::one(v[0]), S::one(v[1]), S::one(v[2]), S::one(v[3])};
    put(each, S::pack(v));
  }
  CU_FUNCTION void put_as(DType type, const float (&v)[4]) const {
    if (type == DType::float32_) return put_floats<float>(v);
    if (type == DType::float16_) return put_floats<cu::f16>(v);
    put_floats<cu::bf16>(v);
  }
};

// Sums of bytes as floats: each operation rounds, as docs/numerics.md has it.
CU_FUNCTION float real_of(int32_t exact, float scale, float bias, Activation activation) {
  return activated(activation, cu::multiply(static_cast<float>(exact), scale) + bias);
}
// Four of them in a float dtype, or the sums themselves. scale: of the weight and of the token.
CU_FUNCTION void put_exact(const FourPlaces& to, DType type, const int32_t (&exact)[4], const float (&weight_scale)[4],
                           float token_scale, const float (&bias)[4], Activation activation) {
  if (type == DType::int32_) return to.put(exact, int4{exact[0], exact[1], exact[2], exact[3]});
  float v[4];
#pragma unroll
  for (int i = 0; i < 4; i++) v[i] = real_of(exact[i], cu::multiply(token_scale, weight_scale[i]), bias[i], activation);
  to.put_as(type, v);
}
// A sum less what the zero points add to it; rest: sum_k x - K zx, of the token.
CU_FUNCTION int32_t exact_sum(int32_t sum, int32_t token_zero, int32_t weight_sum, int32_t rest, int32_t weight_zero) {
  const auto product = [](int32_t a, int32_t b) { return static_cast<uint32_t>(a) * static_cast<uint32_t>(b); };
  return static_cast<int32_t>(static_cast<uint32_t>(sum) - product(token_zero, weight_sum) - product(rest, weight_zero));
}
CU_FUNCTION int32_t rest_of(int32_t token_sum, int32_t k, int32_t token_zero) {
  return static_cast<int32_t>(static_cast<uint32_t>(token_sum) - static_cast<uint32_t>(k) * static_cast<uint32_t>(token_zero));
}

// The terms of four neighbouring features, loaded once for all tokens.
struct AnyTerms {
  float scale[4], bias[4];
  int32_t sum[4], zero[4];

  CU_FUNCTION AnyTerms(const Epilogue<AnyFormat>& e, int m, int count) {
    const ByteSums& b = e.bytes;
    load_terms(scale, b.one_weight_scale ? nullptr : e.weight_scale, b.one_weight_scale ? cu::load_global(e.weight_scale) : 1.0f, m, count);
    load_terms(bias, e.bias, 0.0f, m, count);
    load_terms(sum, b.weight_sum, 0, m, count);
    load_terms(zero, b.one_weight_zero ? nullptr : b.weight_zero, b.one_weight_zero ? cu::load_global(b.weight_zero) : 0, m, count);
  }
};

CU_FUNCTION FourPlaces places_of(const Epilogue<AnyFormat>& e, int m, int n, int M) {
  const size_t at = static_cast<size_t>(n) * M + m;
  return {e.out, {at, at + 1, at + 2, at + 3}, M - m, M % 4 == 0};
}

CU_FUNCTION void store_four(const Epilogue<AnyFormat>& e, const AnyTerms& terms, const float (&sums)[4], int m, int n, int M) {
  const float token_scale = e.token_scale ? cu::load_global(e.token_scale + (e.bytes.one_token_scale ? 0 : n)) : 1.0f;
  float v[4];
#pragma unroll
  for (int i = 0; i < 4; i++) v[i] = activated(e.activation, sums[i] * (terms.scale[i] * token_scale) + terms.bias[i]);
  if (m < M) places_of(e, m, n, M).put_as(e.bytes.type, v);
}

CU_FUNCTION void store_four(const Epilogue<AnyFormat>& e, const AnyTerms& terms, const int (&sums)[4], int m, int n, int M) {
  const ByteSums& b = e.bytes;
  const int32_t zero = b.shift + (b.token_zero ? cu::load_global(b.token_zero + (b.one_token_zero ? 0 : n)) : 0);
  const int32_t rest = b.token_sum ? rest_of(cu::load_global(b.token_sum + n), b.k, zero) : 0;
  const float token_scale = e.token_scale ? cu::load_global(e.token_scale + (b.one_token_scale ? 0 : n)) : 1.0f;
  if (m >= M) return;
  int32_t exact[4];
#pragma unroll
  for (int i = 0; i < 4; i++) exact[i] = exact_sum(sums[i], zero, terms.sum[i], rest, terms.zero[i]);
  const FourPlaces to = places_of(e, m, n, M);
  if (b.type != DType::int8_ && b.type != DType::uint8_)
    return put_exact(to, b.type, exact, terms.scale, token_scale, terms.bias, e.activation);
  // QLinearMatMul: one factor, and the zero point is added before rounding
  const bool is_signed = b.type == DType::int8_, plain = !e.bias && e.activation == Activation::none;
  const float low = is_signed ? -128.0f : 0.0f, high = is_signed ? 127.0f : 255.0f;
  const float out_scale = cu::load_global(b.out_scale), out_zero = b.out_zero ? static_cast<float>(cu::load_global(b.out_zero)) : 0.0f;
  uint8_t bytes[4];
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const float scale = cu::multiply(token_scale, terms.scale[i]);
    const float x = (plain ? cu::multiply(static_cast<float>(exact[i]), scale / out_scale)
                           : real_of(exact[i], scale, terms.bias[i], e.activation) / out_scale) + out_zero;
    const float raised = x > low ? x : low;  // NaN: the lowest
    bytes[i] = static_cast<uint8_t>(static_cast<int32_t>(rintf(raised < high ? raised : high)));
  }
  to.put(bytes, static_cast<uint32_t>(bytes[0]) | static_cast<uint32_t>(bytes[1]) << 8 | static_cast<uint32_t>(bytes[2]) << 16 |
                    static_cast<uint32_t>(bytes[3]) << 24);
}

}  // namespace cuda
}  // namespace kerf
