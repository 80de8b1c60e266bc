// The products of 2:4 sparse weights by mma.sp, for every GPU since sm_80.
#include "../any_epilogue.h"
#include "../matmul_packed.cuh"

namespace kerf {
namespace cuda {

#define KERF_KEPT(T, BM, BN, WM, WN, STAGES)                                                          \
  template __global__ void matmul_packed<PackedConfig<Kept2of4<T>, BM, BN, WM, WN, STAGES>, Epilogue<AnyFormat>>( \
      PackedWeights, const uint8_t*, int, int, int, Split, Epilogue<AnyFormat>);
#include "../matmul.def"

}  // namespace cuda
}  // namespace kerf
