#include "../install.h"

namespace kerf::KERF_TARGET {

void install(Kernels& row) {
  install_map(row);
}

}  // namespace kerf::KERF_TARGET
