// The products by wgmma as drivers launch them; compiled for sm_90a alone.
#include "../drivers/matmul_kernels.h"

namespace kerf {
namespace cuda {

void add_wgmma(MatmulKernels& kernels) {
  each_wgmma([&](auto product) { kernels.add(product); });
}

}  // namespace cuda
}  // namespace kerf
