// The products of few tokens for every GPU since sm_80: split along K, weights of 16 and 8 bits as nn.Linear has them,
// and packed codes of 8 and 4 bits.
#include "../any_epilogue.h"
#include "../matmul_packed.cuh"

namespace kerf {
namespace cuda {

#define KERF_SPLIT(T, BM, BN, WM, WN, STAGES, Out)                                                \
  template __global__ void matmul_mma_split<MmaConfig<T, BM, BN, WM, WN, STAGES>, Epilogue<Out>>( \
      const uint8_t*, const uint8_t*, int, int, int, Split, Epilogue<Out>);
#define KERF_CODES(Codes, T, BM, BN, WM, WN, STAGES)                                                \
  template __global__ void matmul_packed<PackedConfig<Codes<T>, BM, BN, WM, WN, STAGES>, Epilogue<AnyFormat>>( \
      PackedWeights, const uint8_t*, int, int, int, Split, Epilogue<AnyFormat>);
#include "../matmul.def"

}  // namespace cuda
}  // namespace kerf
