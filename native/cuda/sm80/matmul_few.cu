// The products of few tokens for every GPU since sm_80: split along K, weights of 16 and 8 bits as nn.Linear has them, and
// packed codes of 8 and 4 bits.
#include "../matmul_packed.cuh"

namespace kerf {
namespace cuda {

#define KERF_SPLIT(T, BN, WM, WN, STAGES, Out)                                                \
  template __global__ void matmul_mma_split<MmaConfig<T, 128, BN, WM, WN, STAGES>, Epilogue<Out>>( \
      const uint8_t*, const uint8_t*, int, int, int, Split, Epilogue<Out>);
#define KERF_SPLIT_SHAPES(T, Out)  \
  KERF_SPLIT(T, 8, 32, 8, 4, Out)      \
  KERF_SPLIT(T, 16, 32, 16, 4, Out)    \
  KERF_SPLIT(T, 32, 32, 32, 4, Out)    \
  KERF_SPLIT(T, 64, 64, 32, 4, Out)
KERF_SPLIT_SHAPES(cu::f16, cu::f16)
KERF_SPLIT_SHAPES(cu::bf16, cu::bf16)
KERF_SPLIT_SHAPES(cu::s8, float)

#define KERF_CODES(Codes, T, BN, WM, WN)                                                    \
  template __global__ void matmul_packed<PackedConfig<Codes<T>, 128, BN, WM, WN, 4>, Epilogue<T>>( \
      PackedWeights, const uint8_t*, int, int, int, Split, Epilogue<T>);
#define KERF_CODES_SHAPES(Codes, T)  \
  KERF_CODES(Codes, T, 8, 32, 8)     \
  KERF_CODES(Codes, T, 16, 32, 16)   \
  KERF_CODES(Codes, T, 32, 32, 32)   \
  KERF_CODES(Codes, T, 64, 64, 32)
KERF_CODES_SHAPES(Codes8, cu::f16)
KERF_CODES_SHAPES(Codes8, cu::bf16)
KERF_CODES_SHAPES(Codes4, cu::f16)
KERF_CODES_SHAPES(Codes4, cu::bf16)

}  // namespace cuda
}  // namespace kerf
