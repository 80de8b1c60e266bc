// int8 matmul on AMX, 32 x 32 a tile (tiles.h): tdpbusd, exact. A few rows are left to vpdpbusd, whose packed B is the same.
#include "../install.h"
#include "../avx512_vnni/qmatmul_dot_bytes.h"

#include "../qconv_loops.h"
#include "../qmatmul_quads.h"
#include "tiles.h"

namespace kerf::KERF_TARGET {

constexpr int64_t kFewRows = 4;

struct MatmulAmxBytes : OnTiles<MatmulQuads> {
  using Wide = MatmulAmxBytes;
  static constexpr int64_t kBlock = 512;
  static constexpr double kFlopsPerNs = 2400;

  template <int c, int a, int b>
  KERF_INLINE void multiply_tiles() {
    asm volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(c), "i"(a), "i"(b));
  }
  static void multiply(const TileArgs<MatmulAmxBytes>& args, int64_t rows, int vectors) { amx_multiply(args, rows, vectors); }
};

static bool run_bytes(const QMatmulProblem& p) {
  return p.m <= kFewRows ? qrun<MatmulQuads>(p) : qrun<MatmulAmxBytes>(p);
}

void install_qmatmul(Kernels& row) {
  using T = MatmulAmxBytes;
  row.qmatmul = QMatmulCell{"qmatmul_i8_32x32@" KERF_TARGET_NAME, qpacked_bytes<T>, qpack<T>, run_bytes};
  row.qconv2d = qconv_cell<T>("qconv2d_i8_32x32@" KERF_TARGET_NAME);
}

}  // namespace kerf::KERF_TARGET
