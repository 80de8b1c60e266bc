// bfloat16 matmul on AMX, 32 x 32 a tile (tiles.h). tdpbf16ps treats subnormal inputs and results as zero and adds a pair's
// products in an order of its own, as vdpbf16ps does. A few rows, for which B's bytes are the limit, are left to vdpbf16ps, whose packed
// B is the same.
#include "../install.h"
#include "../avx512_bf16/matmul_dot_bf16.h"

#include "../conv_weight_grad.h"
#include "tiles.h"

namespace kerf::KERF_TARGET {

constexpr int64_t kFewRows = 2;

// At the rate that vdpbf16ps has on CPUs with AMX.
struct FewRowsBf16 : MatmulDotBf16 {
  static constexpr double kFlopsPerNs = 115;
};

struct MatmulAmxBf16 : OnTiles<MatmulDotBf16> {
  using Wide = MatmulAmxBf16;
  static constexpr int64_t kBlock = 256;
  static constexpr double kFlopsPerNs = 1400;
  static constexpr const char* kName = "matmul_bf16_32x32@" KERF_TARGET_NAME;

  template <int c, int a, int b>
  KERF_INLINE void multiply_tiles() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(c), "i"(a), "i"(b));
  }
  static void multiply(const TileArgs<MatmulAmxBf16>& args, int64_t rows, int vectors) { amx_multiply(args, rows, vectors); }

  // Rows of k elements as pieces of 32, zeros behind them.
  static void pack_rows(float* out, const bf16* a, int64_t rows, int64_t k, int64_t a_row, int64_t a_col) {
    constexpr int64_t piece = W * kElements;
    for (int64_t p = 0; p < k; p += piece, out += rows * W) {
      const int64_t some = min_of(piece, k - p);
      const bf16* from = a + p * a_col;
      if (a_col == 1) {
        const auto mask = static_cast<__mmask32>(~uint32_t{0} >> (piece - some));
        for (int64_t r = 0; r < rows; r++)
          _mm512_storeu_si512(out + r * W, _mm512_maskz_loadu_epi16(mask, from + r * a_row));
      } else if (a_row == 1) {
        for (int64_t r = 0; r < rows; r += W) turn(out + r * W, from + r, min_of(W, rows - r), some, a_col);
      } else {
        for (int64_t r = 0; r < rows; r++)
          for (int64_t e = 0; e < piece; e++)
            reinterpret_cast<bf16*>(out + r * W)[e] = e < some ? from[r * a_row + e * a_col] : bf16{};
      }
    }
  }

 private:
  // 16 rows that lie next to each other, k elements of each a_col apart: pairs of them, turned around.
  KERF_INLINE void turn(float* out, const bf16* a, int64_t rows, int64_t k, int64_t a_col) {
    const auto mask = static_cast<__mmask16>(~uint32_t{0} >> (32 - rows));
    const auto row = [&](int64_t e) {
      return _mm512_cvtepu16_epi32(e < k ? _mm256_maskz_loadu_epi16(mask, a + e * a_col) : _mm256_setzero_si256());
    };
    vf lanes[W];
#pragma GCC unroll 16
    for (int i = 0; i < W; i++) lanes[i] = as_float(or_i(row(2 * i), _mm512_slli_epi32(row(2 * i + 1), 16)));
    transpose(lanes);
    for (int64_t r = 0; r < rows; r++) store(out + r * W, lanes[r]);
  }
};

static bool run_bf16(const MatmulProblem& p) {
  return p.m <= kFewRows ? run<FewRowsBf16>(p) : run_tiles<MatmulAmxBf16>(p);
}

void install_matmul(Kernels& row) {
  using T = MatmulAmxBf16;
  row.matmul[static_cast<int>(DType::bfloat16_)] = MatmulCell{T::kName, packed_bytes<T>, pack<T>, run_bf16};
  row.conv2d[static_cast<int>(DType::bfloat16_)] = conv_cell<T>("conv2d_bf16_32x32@" KERF_TARGET_NAME);
}

}  // namespace kerf::KERF_TARGET
