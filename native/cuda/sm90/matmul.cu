// The products by wgmma; sm_90a only.
#include "matmul_wgmma.cuh"

namespace kerf {
namespace cuda {

#define KERF_WGMMA(T, Out)                                                                 \
  template __global__ void matmul_wgmma<WgmmaConfig<T, 4>, Epilogue<Out>>(                 \
      CU_GRID_CONSTANT cu::TensorMap, CU_GRID_CONSTANT cu::TensorMap, int, int, int, Epilogue<Out>);
KERF_WGMMA(cu::f16, cu::f16)
KERF_WGMMA(cu::bf16, cu::bf16)
KERF_WGMMA(cu::s8, float)

}  // namespace cuda
}  // namespace kerf
