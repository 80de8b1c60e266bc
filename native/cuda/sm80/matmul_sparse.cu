// The products of 2:4 sparse weights by mma.sp, for every GPU since sm_80.
#include "../matmul_packed.cuh"

namespace kerf {
namespace cuda {

#define KERF_KEPT(T, BN, WM, WN, STAGES, Out)                                                           \
  template __global__ void matmul_packed<PackedConfig<Kept2of4<T>, 128, BN, WM, WN, STAGES>, Epilogue<Out>>( \
      PackedWeights, const uint8_t*, int, int, int, Split, Epilogue<Out>);
#define KERF_KEPT_SHAPES(T, Out)      \
  KERF_KEPT(T, 128, 64, 64, 3, Out)   \
  KERF_KEPT(T, 64, 64, 32, 3, Out)    \
  KERF_KEPT(T, 16, 32, 16, 4, Out)    \
  KERF_KEPT(T, 8, 32, 8, 4, Out)
KERF_KEPT_SHAPES(cu::f16, cu::f16)
KERF_KEPT_SHAPES(cu::bf16, cu::bf16)
KERF_KEPT_SHAPES(cu::s8, float)

}  // namespace cuda
}  // namespace kerf
