// What happens to a product before it is stored: out[n][m] = activation(sum * weight_scale[m] * token_scale[n] +
// bias[m]).
#pragma once
#include <math.h>

#include "../core/kernels.h"
#include "cu.h"

namespace kerf {
namespace cuda {

// Four neighbours of a row of the output in the format Out: float, cu::f16 or cu::bf16.
template <class Out> struct Stored;
template <> struct Stored<float> {
  using Element = float;
  using Four = float4;
  CU_FUNCTION static Four pack(const float (&v)[4]) { return {v[0], v[1], v[2], v[3]}; }
  CU_FUNCTION static Element one(float v) { return v; }
};
template <> struct Stored<cu::f16> {
  using Element = uint16_t;
  using Four = uint2;
  CU_FUNCTION static Four pack(const float (&v)[4]) {
    return {cu::pack2(cu::f16{}, v[0], v[1]), cu::pack2(cu::f16{}, v[2], v[3])};
  }
  CU_FUNCTION static Element one(float v) { return static_cast<uint16_t>(cu::pack2(cu::f16{}, v, 0.0f)); }
};
template <> struct Stored<cu::bf16> {
  using Element = uint16_t;
  using Four = uint2;
  CU_FUNCTION static Four pack(const float (&v)[4]) {
    return {cu::pack2(cu::bf16{}, v[0], v[1]), cu::pack2(cu::bf16{}, v[2], v[3])};
  }
  CU_FUNCTION static Element one(float v) { return static_cast<uint16_t>(cu::pack2(cu::bf16{}, v, 0.0f)); }
};

struct FeatureTerms;

// none, relu or silu; relu keeps NaN
CU_FUNCTION float activated(Activation activation, float v) {
  if (activation == Activation::relu) return v <= 0.0f ? 0.0f : v;
  if (activation == Activation::silu) return v / (1.0f + expf(-v));
  return v;
}

// Plain data, passed to kernels by value. A null pointer stands for all ones (scales) or all zeros (bias).
template <class Out_>
struct Epilogue {
  using Out = Out_;
  using Terms = FeatureTerms;  // what four neighbouring outputs share, in every row
  const float* weight_scale;  // [m], 16-byte aligned, as is bias
  const float* token_scale;   // [n]
  const float* bias;          // [m]
  Activation activation;      // none, relu or silu so far
  typename Stored<Out>::Element* out;  // [n][m], row pitch m elements, 16-byte aligned
};

template <class Sum> struct FourOf { using type = float4; };
template <> struct FourOf<int> { using type = int4; };

// Four neighbours of a vector of `count`, 16-byte aligned, or `otherwise` where there is none. Indices are clamped, not predicated:
// what is beyond the end is not stored.
template <class T>
CU_FUNCTION void load_terms(T (&to)[4], const T* from, T otherwise, int m, int count) {
  using Four = typename FourOf<T>::type;
  if (!from) {
    to[0] = to[1] = to[2] = to[3] = otherwise;
  } else if (count % 4 == 0) {
    const Four v = cu::load_global(reinterpret_cast<const Four*>(from + (m < count ? m : count - 4)));
    to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w;
  } else {
#pragma unroll
    for (int i = 0; i < 4; i++) to[i] = cu::load_global(from + (m + i < count ? m + i : count - 1));
  }
}

// The scales and biases of four neighbouring output features, loaded once for all tokens.
struct FeatureTerms {
  float scale[4], bias[4];

  template <class E>
  CU_FUNCTION FeatureTerms(const E& epilogue, int m, int count) {
    load_terms(scale, epilogue.weight_scale, 1.0f, m, count);
    load_terms(bias, epilogue.bias, 0.0f, m, count);
  }
};

// Finishes and stores out[n][m .. m+3]; `sums` are float or int. Requires n inside; m may run over the end.
template <class E, class Sum>
CU_FUNCTION void store_four(const E& epilogue, const FeatureTerms& terms, const Sum (&sums)[4], int m, int n, int M) {
  const float token_scale = epilogue.token_scale ? cu::load_global(epilogue.token_scale + n) : 1.0f;
  float v[4];
#pragma unroll
  for (int i = 0; i < 4; i++)
    v[i] = activated(epilogue.activation, static_cast<float>(sums[i]) * (terms.scale[i] * token_scale) + terms.bias[i]);
  using S = Stored<typename E::Out>;
  auto* row = epilogue.out + static_cast<size_t>(n) * M + m;
  if (M % 4 == 0) {
    if (m < M) cu::store_global(reinterpret_cast<typename S::Four*>(row), S::pack(v));
    return;
  }
#pragma unroll
  for (int i = 0; i < 4; i++)
    if (m + i < M) cu::store_global(row + i, S::one(v[i]));
}

// The tile of sums [BN][BM] that a block of tensor-core fragments leaves in shared memory, and its way out. The pitch
// of BM + 4 words spreads the four token pairs of a fragment over all banks: no conflicts either way.
template <int BM, int BN, int THREADS>
struct SumTile {
  static constexpr int kPitch = BM + 4;
  static constexpr int kBytes = BN * kPitch * 4;
  static constexpr int kRows = BN, kLanesOfRow = BM / 4, kFours = BN * kLanesOfRow;
  static constexpr int kRowsAtOnce = THREADS / kLanesOfRow;
  static_assert(THREADS % kLanesOfRow == 0, "a thread keeps its features");
  template <class Sum>
  using Four = typename FourOf<Sum>::type;

  // One 8-column fragment: elements (row, column), (row, column + 1), (row + 8, column), (row + 8, column + 1).
  template <class Sum>
  CU_FUNCTION static void put(uint8_t* tile, int row, int column, Sum d0, Sum d1, Sum d2, Sum d3) {
    Sum* at = reinterpret_cast<Sum*>(tile) + column * kPitch + row;
    cu::store_shared(at, d0);
    cu::store_shared(at + kPitch, d1);
    cu::store_shared(at + 8, d2);
    cu::store_shared(at + kPitch + 8, d3);
  }

  // `thread` of THREADS stores its part of the tile that starts at feature m0 and token n0.
  template <class Sum, class E>
  CU_FUNCTION static void store(const uint8_t* tile, const E& epilogue, int thread, int m0, int n0, int M, int N) {
    const int column = thread % kLanesOfRow * 4;
    const typename E::Terms terms(epilogue, m0 + column, M);
    for (int row = thread / kLanesOfRow; row < BN && n0 + row < N; row += kRowsAtOnce) {
      const Four<Sum> four = load<Sum>(tile, row, column);
      const Sum sums[4] = {four.x, four.y, four.z, four.w};
      store_four(epilogue, terms, sums, m0 + column, n0 + row, M);
    }
  }

  template <class Sum>
  CU_FUNCTION static Four<Sum> load(const uint8_t* tile, int row, int column) {
    return cu::load_shared(reinterpret_cast<const Four<Sum>*>(tile + (row * kPitch + column) * 4));
  }
};

}  // namespace cuda
}  // namespace kerf
