#include "../install.h"

namespace kerf::KERF_TARGET {

void install(Kernels& row) {
  (void)row;
}

}  // namespace kerf::KERF_TARGET
