// int8 matmul with VNNI in 512-bit registers.
#include "../install.h"
#include "qmatmul_dot_bytes.h"

#include "../qconv_loops.h"
#include "../qmatmul_dot.h"
#include "spqmatmul_tables.h"

namespace kerf::KERF_TARGET {

struct WeightBlocks {
  static constexpr int kRoom = 28;  // registers for accumulators
  static constexpr double kFlopsPerNs = 400;
};

void install_qmatmul(Kernels& row) {
  row.qmatmul = qmatmul_cell<MatmulQuads>("qmatmul_i8_14x32@" KERF_TARGET_NAME);
  row.qconv2d = qconv_cell<MatmulQuads>("qconv2d_i8_14x32@" KERF_TARGET_NAME);
  row.wmatmul = wmatmul_cell<QuadsDot, WeightBlocks>("wmatmul_7x32@" KERF_TARGET_NAME);
  row.spqmatmul[kByteFormPanels] = byte_panels_cell<QuadUnitsOfDots>("spqmatmul_panels@" KERF_TARGET_NAME);
  row.spqmatmul[kByteFormTables] = byte_tables_cell("spqmatmul_tables@" KERF_TARGET_NAME);
}

}  // namespace kerf::KERF_TARGET
