// The products by wgmma; sm_90a only.
#include "../any_epilogue.h"
#include "matmul_wgmma_sparse.cuh"

namespace kerf {
namespace cuda {

#define KERF_WGMMA(T, BN, STAGES, TOKENS, Out)                                              \
  template __global__ void matmul_wgmma<WgmmaConfig<T, BN, STAGES, TOKENS>, Epilogue<Out>>( \
      CU_GRID_CONSTANT cu::TensorMap, CU_GRID_CONSTANT cu::TensorMap, int, int, int, Epilogue<Out>);
#define KERF_WGMMA_SPARSE(T, STAGES)                                                    \
  template __global__ void matmul_wgmma_sparse<WgmmaSparseConfig<T, STAGES>, Epilogue<AnyFormat>>( \
      CU_GRID_CONSTANT cu::TensorMap, CU_GRID_CONSTANT cu::TensorMap, const uint32_t*, int, int, int, Epilogue<AnyFormat>);
#include "../matmul.def"

}  // namespace cuda
}  // namespace kerf
