// The products compiled for every GPU since sm_80: float32 on ordinary cores, 16-bit floats and int8 by mma.sync.
#include "../matmul_mma.cuh"
#include "../matmul_simt.cuh"

namespace kerf {
namespace cuda {

template __global__ void matmul_simt(const float*, const float*, int, int, int, Epilogue<float>);

#define KERF_MMA(T, BM, BN, WM, WN, STAGES, Out)                                            \
  template __global__ void matmul_mma<MmaConfig<T, BM, BN, WM, WN, STAGES>, Epilogue<Out>>( \
      const uint8_t*, const uint8_t*, int, int, int, Epilogue<Out>);
#define KERF_MMA_SHAPES(T, Out)           \
  KERF_MMA(T, 128, 128, 64, 64, 3, Out)   \
  KERF_MMA(T, 128, 64, 64, 32, 3, Out)    \
  KERF_MMA(T, 128, 16, 32, 16, 4, Out)
KERF_MMA_SHAPES(cu::f16, cu::f16)
KERF_MMA_SHAPES(cu::bf16, cu::bf16)
KERF_MMA_SHAPES(cu::s8, float)
KERF_MMA_SHAPES(cu::s8, cu::f16)

}  // namespace cuda
}  // namespace kerf
