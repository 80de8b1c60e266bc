#include "../install.h"

namespace kerf::KERF_TARGET {

void install(Kernels& row) {
  install_map(row);
  install_copy(row);
  install_rows(row);
  install_planes(row);
  install_matmul(row);
  install_qmatmul(row);
  install_spmatmul(row);
  install_probe(row);
}

}  // namespace kerf::KERF_TARGET
