// The products by wgmma as drivers launch them; compiled for sm_90a alone.
#include "../drivers/matmul_kernels.h"

namespace kerf {
namespace cuda {

void add_wgmma(MatmulKernels& kernels) {
  const auto add = [&](auto product) { kernels.add(product); };
  each_wgmma(add);
  each_wgmma_sparse(add);
}

}  // namespace cuda
}  // namespace kerf
