// Sparse weights on AVX-512: tables for few rows (a row costs 0.24 cycles a non-zero, of a batch's 16 rows each 0.1), panels
// for more.
#include "../install.h"
#include "matmul_simd.h"
#include "spmatmul_tables.h"

namespace kerf::KERF_TARGET {

void install_spmatmul(Kernels& row) {
  row.spmatmul = {"spmatmul@" KERF_TARGET_NAME, sppacked_bytes, sppack, spmatmul};
  row.spmatmul_few = {"spmatmul_few@" KERF_TARGET_NAME, 6, few_steps, few_bytes, few_pack, few_run};
}

}  // namespace kerf::KERF_TARGET
