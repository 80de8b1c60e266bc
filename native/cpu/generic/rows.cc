#include "../install.h"
#include "simd.h"
#include "../index_loops.h"
#include "../row_cells.h"

namespace kerf::KERF_TARGET {

// Indexing follows its indices one by one: the other targets keep these cells.
void install_rows(Kernels& row) {
  install_row_cells(row);
  install_index(row);
}

}  // namespace kerf::KERF_TARGET
