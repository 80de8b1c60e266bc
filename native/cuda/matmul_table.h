// The compiled products: matmul.def's lines as types, each with its entry of the table (config()) and the way it is launched.
//
// launch(on, operands) is the same for drivers and for bench/gpu/; `on` says where and how:
//   on.template enqueue<kernel>(grid, threads, shared_bytes, arguments...)
//   on.tensor_map(base, rows, row_bytes, box_rows, element_bytes)      a cu::TensorMap
#pragma once
#include "any_epilogue.h"
#include "matmul_config.h"
#include "matmul_packed.cuh"
#include "matmul_simt.cuh"
#include "sm90/matmul_wgmma_sparse.cuh"

namespace kerf {
namespace cuda {

template <class T> struct ShortName { static constexpr const char* value = "f32"; };
template <> struct ShortName<cu::f16> { static constexpr const char* value = "f16"; };
template <> struct ShortName<cu::bf16> { static constexpr const char* value = "bf16"; };
template <> struct ShortName<cu::s8> { static constexpr const char* value = "i8"; };
template <> struct ShortName<AnyFormat> { static constexpr const char* value = "any"; };

// out [N][M] of x [N][K] and weights [M][K]; pointers that a kind does not use are null.
struct MatmulOperands {
  const uint8_t *w, *x;
  void* out;
  PackedWeights packed;
  const uint32_t* metadata;
  Split split;
  const float *weight_scale, *token_scale, *bias;
  Activation activation;
  int M, N, K, parts, multiprocessors;
  ByteSums bytes;

  template <class Out>
  Epilogue<Out> epilogue() const {
    if constexpr (std::is_same_v<Out, AnyFormat>)
      return {weight_scale, token_scale, bias, activation, out, bytes};
    else
      return {weight_scale, token_scale, bias, activation, static_cast<typename Stored<Out>::Element*>(out)};
  }
};

template <class C_, class Out_>
struct ProductOf {
  using C = C_;
  using T = typename C::T;
  using Out = Out_;
  static constexpr int kBytes = cu::kBytesOf<T>;
  static MatmulConfig config_of(MatmulKind kind) {
    return {kind, ShortName<T>::value, ShortName<Out>::value, C::BM, C::BN, C::STAGES, C::kThreads, C::kSharedBytes};
  }
  static dim3 tiles(const MatmulOperands& o, int parts = 1) {
    return dim3((o.M + C::BM - 1) / C::BM, (o.N + C::BN - 1) / C::BN, parts);
  }
  // A persistent kernel's grid.
  static dim3 blocks(const MatmulOperands& o) {
    const dim3 all = tiles(o);
    const uint64_t count = uint64_t{all.x} * all.y, most = static_cast<uint64_t>(o.multiprocessors);
    return dim3(static_cast<unsigned>(count < most ? count : most));
  }
};

struct SimtProduct {
  using T = float;
  using Out = float;
  static MatmulConfig config() {
    return {MatmulKind::simt, "f32", "f32", kSimtTile, kSimtTile, 2, kSimtThreads, kSimtSharedBytes};
  }
  template <class On>
  static void launch(On& on, const MatmulOperands& o) {
    const auto *const w = reinterpret_cast<const float*>(o.w), *const x = reinterpret_cast<const float*>(o.x);
    const dim3 grid((o.M + kSimtTile - 1) / kSimtTile, (o.N + kSimtTile - 1) / kSimtTile);
    on.template enqueue<matmul_simt<Epilogue<float>>>(grid, kSimtThreads, kSimtSharedBytes, w, x, o.M, o.N, o.K,
                                                      o.epilogue<float>());
  }
};

template <class C, class Out>
struct MmaProduct : ProductOf<C, Out> {
  using P = ProductOf<C, Out>;
  static MatmulConfig config() { return P::config_of(MatmulKind::mma); }
  template <class On>
  static void launch(On& on, const MatmulOperands& o) {
    on.template enqueue<matmul_mma<C, Epilogue<Out>>>(P::tiles(o), C::kThreads, C::kSharedBytes, o.w, o.x, o.M, o.N,
                                                      o.K * P::kBytes, o.epilogue<Out>());
  }
};

template <class C, class Out>
struct SplitProduct : ProductOf<C, Out> {
  using P = ProductOf<C, Out>;
  static MatmulConfig config() { return P::config_of(MatmulKind::split); }
  template <class On>
  static void launch(On& on, const MatmulOperands& o) {
    on.template enqueue<matmul_mma_split<C, Epilogue<Out>>>(P::tiles(o, o.parts), C::kThreads, C::kSharedBytes, o.w, o.x,
                                                            o.M, o.N, o.K * P::kBytes, o.split, o.epilogue<Out>());
  }
};

template <class Weights> constexpr MatmulKind kKindOf = MatmulKind::kept;
template <class T> constexpr MatmulKind kKindOf<Codes8<T>> = MatmulKind::codes8;
template <class T> constexpr MatmulKind kKindOf<Codes4<T>> = MatmulKind::codes4;

template <class C, class Out>
struct PackedProduct : ProductOf<C, Out> {
  using P = ProductOf<C, Out>;
  static MatmulConfig config() { return P::config_of(kKindOf<typename C::Weights>); }
  template <class On>
  static void launch(On& on, const MatmulOperands& o) {
    on.template enqueue<matmul_packed<C, Epilogue<Out>>>(P::tiles(o, o.parts), C::kThreads, C::kSharedBytes, o.packed, o.x,
                                                         o.M, o.N, o.K * P::kBytes, o.split, o.epilogue<Out>());
  }
};

template <class C, class Out>
struct WgmmaProduct : ProductOf<C, Out> {
  using P = ProductOf<C, Out>;
  static MatmulConfig config() { return P::config_of(MatmulKind::wgmma); }
  template <class On>
  static void launch(On& on, const MatmulOperands& o) {
    const cu::TensorMap w = on.tensor_map(o.w, o.M, o.K * P::kBytes, C::BM, P::kBytes);
    const cu::TensorMap x = on.tensor_map(o.x, o.N, o.K * P::kBytes, C::BN, P::kBytes);
    on.template enqueue<matmul_wgmma<C, Epilogue<Out>>>(P::blocks(o), C::kThreads, C::kSharedBytes, w, x, o.M, o.N,
                                                        o.K * P::kBytes, o.epilogue<Out>());
  }
};

template <class C, class Out>
struct WgmmaSparseProduct : ProductOf<C, Out> {
  using P = ProductOf<C, Out>;
  static MatmulConfig config() { return P::config_of(MatmulKind::wgmma_sparse); }
  template <class On>
  static void launch(On& on, const MatmulOperands& o) {
    const cu::TensorMap w = on.tensor_map(o.w, o.M, o.K / 2 * P::kBytes, C::BM, P::kBytes);
    const cu::TensorMap x = on.tensor_map(o.x, o.N, o.K * P::kBytes, C::BN, P::kBytes);
    on.template enqueue<matmul_wgmma_sparse<C, Epilogue<Out>>>(P::blocks(o), C::kThreads, C::kSharedBytes, w, x, o.metadata,
                                                               o.M, o.N, o.K * P::kBytes, o.epilogue<Out>());
  }
};

// visit(product) for those of dense weights that every GPU since sm_80 runs,
template <class Visit>
void each_dense(Visit visit) {
  visit(SimtProduct{});
#define KERF_MMA(T, BM, BN, WM, WN, STAGES, Out) visit(MmaProduct<MmaConfig<T, BM, BN, WM, WN, STAGES>, Out>{});
#define KERF_SPLIT(T, BM, BN, WM, WN, STAGES, Out) visit(SplitProduct<MmaConfig<T, BM, BN, WM, WN, STAGES>, Out>{});
#include "matmul.def"
}

// of packed ones,
template <class Visit>
void each_packed(Visit visit) {
#define KERF_CODES(Codes, T, BM, BN, WM, WN, STAGES) \
  visit(PackedProduct<PackedConfig<Codes<T>, BM, BN, WM, WN, STAGES>, AnyFormat>{});
#define KERF_KEPT(T, BM, BN, WM, WN, STAGES) \
  visit(PackedProduct<PackedConfig<Kept2of4<T>, BM, BN, WM, WN, STAGES>, AnyFormat>{});
#include "matmul.def"
}

// and those of sm_90a alone.
template <class Visit>
void each_wgmma(Visit visit) {
#define KERF_WGMMA(T, BN, STAGES, TOKENS, Out) visit(WgmmaProduct<WgmmaConfig<T, BN, STAGES, TOKENS>, Out>{});
#include "matmul.def"
}
template <class Visit>
void each_wgmma_sparse(Visit visit) {
#define KERF_WGMMA_SPARSE(T, STAGES) visit(WgmmaSparseProduct<WgmmaSparseConfig<T, STAGES>, AnyFormat>{});
#include "matmul.def"
}

inline const std::vector<MatmulConfig>& matmul_table() {
  static const std::vector<MatmulConfig> table = [] {
    std::vector<MatmulConfig> configs;
    const auto add = [&](auto product) { configs.push_back(product.config()); };
    each_dense(add);
    each_packed(add);
    each_wgmma(add);
    each_wgmma_sparse(add);
    return configs;
  }();
  return table;
}

}  // namespace cuda
}  // namespace kerf
