// The products of packed weights as drivers launch them.
#include "matmul_kernels.h"

namespace kerf {
namespace cuda {

void add_packed(MatmulKernels& kernels) {
  each_packed([&](auto product) { kernels.add(product); });
}

}  // namespace cuda
}  // namespace kerf
