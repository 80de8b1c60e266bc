#include "../install.h"

namespace kerf::KERF_TARGET {

void install(Kernels& row) {
  install_matmul(row);
  install_qmatmul(row);
  install_probe(row);
}

}  // namespace kerf::KERF_TARGET
