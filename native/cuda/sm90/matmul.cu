// The products by wgmma; sm_90a only.
#include "matmul_wgmma_sparse.cuh"

namespace kerf {
namespace cuda {

#define KERF_WGMMA(T, BN, STAGES, TOKENS, Out)                                             \
  template __global__ void matmul_wgmma<WgmmaConfig<T, BN, STAGES, TOKENS>, Epilogue<Out>>( \
      CU_GRID_CONSTANT cu::TensorMap, CU_GRID_CONSTANT cu::TensorMap, int, int, int, Epilogue<Out>);
#define KERF_WGMMA_SHAPES(T, Out)      \
  KERF_WGMMA(T, 128, 4, 128, Out)      \
  KERF_WGMMA(T, 256, 4, 32, Out)
KERF_WGMMA_SHAPES(cu::f16, cu::f16)
KERF_WGMMA_SHAPES(cu::bf16, cu::bf16)
KERF_WGMMA_SHAPES(cu::s8, float)

#define KERF_WGMMA_SPARSE(T, Out)                                                          \
  template __global__ void matmul_wgmma_sparse<WgmmaSparseConfig<T, 3>, Epilogue<Out>>(    \
      CU_GRID_CONSTANT cu::TensorMap, CU_GRID_CONSTANT cu::TensorMap, const uint32_t*, int, int, int, Epilogue<Out>);
KERF_WGMMA_SPARSE(cu::f16, cu::f16)
KERF_WGMMA_SPARSE(cu::bf16, cu::bf16)
KERF_WGMMA_SPARSE(cu::s8, float)

}  // namespace cuda
}  // namespace kerf
