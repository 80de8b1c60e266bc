// The table of compiled products: matmul.def's lines as data.
#pragma once
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

template <class C, class Out>
MatmulConfig config_of(MatmulKind kind) {
  return {kind,      ShortName<typename C::T>::value, ShortName<Out>::value, C::BM, C::BN, C::STAGES,
          C::kThreads, C::kSharedBytes};
}
template <template <class> class Codes> constexpr MatmulKind kKindOfCodes = MatmulKind::codes8;
template <> inline constexpr MatmulKind kKindOfCodes<Codes4> = MatmulKind::codes4;

inline const std::vector<MatmulConfig>& matmul_table() {
  static const std::vector<MatmulConfig> table = {
      {MatmulKind::simt, "f32", "f32", kSimtTile, kSimtTile, 2, kSimtThreads, kSimtSharedBytes},
#define KERF_MMA(T, BM, BN, WM, WN, STAGES, Out) \
  config_of<MmaConfig<T, BM, BN, WM, WN, STAGES>, Out>(MatmulKind::mma),
#define KERF_SPLIT(T, BM, BN, WM, WN, STAGES, Out) \
  config_of<MmaConfig<T, BM, BN, WM, WN, STAGES>, Out>(MatmulKind::split),
#define KERF_CODES(Codes, T, BM, BN, WM, WN, STAGES) \
  config_of<PackedConfig<Codes<T>, BM, BN, WM, WN, STAGES>, T>(kKindOfCodes<Codes>),
#define KERF_KEPT(T, BM, BN, WM, WN, STAGES, Out) \
  config_of<PackedConfig<Kept2of4<T>, BM, BN, WM, WN, STAGES>, Out>(MatmulKind::kept),
#define KERF_WGMMA(T, BN, STAGES, TOKENS, Out) \
  config_of<WgmmaConfig<T, BN, STAGES, TOKENS>, Out>(MatmulKind::wgmma),
#define KERF_WGMMA_SPARSE(T, STAGES, Out) \
  config_of<WgmmaSparseConfig<T, STAGES>, Out>(MatmulKind::wgmma_sparse),
#include "matmul.def"
  };
  return table;
}

}  // namespace cuda
}  // namespace kerf
