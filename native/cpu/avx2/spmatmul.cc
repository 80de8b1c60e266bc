// Sparse weights: panels for any number of rows.
#include "../install.h"
#include "matmul_simd.h"
#include "../spmatmul_loops.h"

namespace kerf::KERF_TARGET {

void install_spmatmul(Kernels& row) { row.spmatmul = {"spmatmul@" KERF_TARGET_NAME, sppacked_bytes, sppack, spmatmul}; }

}  // namespace kerf::KERF_TARGET
