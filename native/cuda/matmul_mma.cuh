// Y[n][m] = epilogue(sum over k of W[m][k] X[n][k]) by mma.sync, for float16, bfloat16 and int8: one kernel, written in
// bytes of K. The weights W are operand A (only A can be 2:4 or come from registers), the activations X operand B.
//
// Contract: W is M rows and X N rows of `row_bytes`, a multiple of 16; both 16-byte aligned. Any M, N >= 1; rows and
// bytes beyond the end count as zeros. Launch: grid (ceil(M / BM), ceil(N / BN)), Config::kThreads,
// Config::kSharedBytes; matmul_mma_split: grid (.., .., parts of K) and a Split (split.h).
//
// A shared row is 128 bytes of K, its eight 16-byte chunks XORed with the row's last three bits:
// ldmatrix of 8 rows then meets all banks once.
#pragma once
#include "split.h"

namespace kerf {
namespace cuda {

template <class T_, int BM_, int BN_, int WM_, int WN_, int STAGES_>
struct MmaConfig {
  using T = T_;
  using Sum = typename cu::Sum_of<T>::type;
  static constexpr int BM = BM_, BN = BN_, WM = WM_, WN = WN_, STAGES = STAGES_;
  static constexpr int kRow = 128;
  static constexpr int kWarpsM = BM / WM, kWarpsN = BN / WN, kThreads = 32 * kWarpsM * kWarpsN;
  static constexpr int kStageBytes = (BM + BN) * kRow;
  using Tile = SumTile<BM, BN, kThreads>;
  static constexpr int kFlag = STAGES * kStageBytes > Tile::kBytes ? STAGES * kStageBytes : Tile::kBytes;
  static constexpr int kSharedBytes = kFlag + 16;
  static constexpr int kRowsOfCopy = kThreads / 8;  // rows that all threads copy at once, 8 threads a row
  static_assert(WM % 16 == 0 && WN % 8 == 0 && (WN == 8 || WN % 16 == 0) && STAGES >= 2, "whole fragments");
  static_assert(kRowsOfCopy % 8 == 0 && BM % kRowsOfCopy == 0, "a thread's rows share one swizzle");
  static_assert(BN % kRowsOfCopy == 0 || BN < kRowsOfCopy, "and all of them lie inside the tile, or one");
};

CU_FUNCTION uint8_t* swizzled(uint8_t* tile, int row, int chunk) {
  return tile + row * 128 + ((chunk ^ (row & 7)) << 4);
}

// Leaves the sums over tiles `part` of K in shared memory, as C::Tile; a barrier has passed since.
template <class C>
CU_FUNCTION void sum_by_mma(uint8_t* shared, const uint8_t* W, const uint8_t* X, int M, int N, int row_bytes, int m0,
                            int n0, int first, int end) {
  const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
  const int warp_m = warp % C::kWarpsM * C::WM, warp_n = warp / C::kWarpsM * C::WN;

  // A thread copies one chunk of every kRowsOfCopy-th row: one swizzled offset, one pointer for each operand.
  const int copy_row = thread / 8, copy_byte = thread % 8 * 16;
  const uint8_t* const w_from = W + static_cast<size_t>(m0 + copy_row) * row_bytes + copy_byte;
  const uint8_t* const x_from = X + static_cast<size_t>(n0 + copy_row) * row_bytes + copy_byte;
  uint8_t* const copy_to = swizzled(shared, copy_row, thread % 8);
  const size_t step = static_cast<size_t>(C::kRowsOfCopy) * row_bytes;
  auto load = [&](int tile) {
    uint8_t* to = copy_to + tile % C::STAGES * C::kStageBytes;
    const bool inside = tile * C::kRow + copy_byte < row_bytes;
    const uint8_t* w = w_from + tile * C::kRow;
    const uint8_t* x = x_from + tile * C::kRow;
#pragma unroll
    for (int i = 0; i < C::BM; i += C::kRowsOfCopy, w += step)
      cu::copy_async16(to + i * C::kRow, w, inside && m0 + copy_row + i < M);
#pragma unroll
    for (int i = 0; i < C::BN; i += C::kRowsOfCopy, x += step)
      if (C::BN >= C::kRowsOfCopy || copy_row < C::BN)
        cu::copy_async16(to + (C::BM + i) * C::kRow, x, inside && n0 + copy_row + i < N);
  };

  typename C::Sum d[C::WM / 16][C::WN / 8][4] = {};
#pragma unroll
  for (int s = 0; s < C::STAGES - 1; s++) {
    if (first + s < end) load(first + s);
    cu::copy_commit();
  }
  for (int t = first; t < end; t++) {
    cu::copy_wait<C::STAGES - 2>();  // tile t has landed for this thread,
    cu::sync_threads();              // and for all; and all have read the stage that the next load overwrites
    if (t + C::STAGES - 1 < end) load(t + C::STAGES - 1);
    cu::copy_commit();
    uint8_t* const w_tile = shared + t % C::STAGES * C::kStageBytes;
    uint8_t* const x_tile = w_tile + C::BM * C::kRow;
#pragma unroll
    for (int k = 0; k < 4; k++) {  // 32 bytes of K each
      uint32_t a[C::WM / 16][4], b[(C::WN + 8) / 16][4];
#pragma unroll
      for (int i = 0; i < C::WM / 16; i++)
        cu::load_matrix_x4(a[i], swizzled(w_tile, warp_m + i * 16 + lane % 16, k * 2 + lane / 16));
#pragma unroll
      for (int j = 0; j < (C::WN + 8) / 16; j++) {  // two fragments of 8 tokens; of one alone the second is not used
        const int token = C::WN == 8 ? lane % 8 : j * 16 + lane / 16 * 8 + lane % 8;
        cu::load_matrix_x4(b[j], swizzled(x_tile, warp_n + token, k * 2 + lane / 8 % 2));
      }
#pragma unroll
      for (int i = 0; i < C::WM / 16; i++)
#pragma unroll
        for (int j = 0; j < C::WN / 8; j++)
          cu::mma(typename C::T{}, d[i][j], a[i], b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
    }
  }

  cu::sync_threads();  // the sums overwrite the stages
#pragma unroll
  for (int j = 0; j < C::WN / 8; j++)
#pragma unroll
    for (int i = 0; i < C::WM / 16; i++)
      C::Tile::put(shared, warp_m + i * 16 + lane / 4, warp_n + j * 8 + lane % 4 * 2, d[i][j][0], d[i][j][1],
                   d[i][j][2], d[i][j][3]);
  cu::sync_threads();  // and are complete
}

template <class C, class E>
__global__ void __launch_bounds__(C::kThreads)
    matmul_mma(const uint8_t* W, const uint8_t* X, int M, int N, int row_bytes, E epilogue) {
  uint8_t* const shared = cu::shared_memory();
  const int m0 = blockIdx.x * C::BM, n0 = blockIdx.y * C::BN, tiles = (row_bytes + C::kRow - 1) / C::kRow;
  sum_by_mma<C>(shared, W, X, M, N, row_bytes, m0, n0, 0, tiles);
  C::Tile::template store<typename C::Sum>(shared, epilogue, threadIdx.x, m0, n0, M, N);
}

template <class C, class E>
__global__ void __launch_bounds__(C::kThreads)
    matmul_mma_split(const uint8_t* W, const uint8_t* X, int M, int N, int row_bytes, Split split, E epilogue) {
  uint8_t* const shared = cu::shared_memory();
  const int m0 = blockIdx.x * C::BM, n0 = blockIdx.y * C::BN;
  const PartOfK part((row_bytes + C::kRow - 1) / C::kRow);
  sum_by_mma<C>(shared, W, X, M, N, row_bytes, m0, n0, part.first, part.end);
  store_split<typename C::Tile, typename C::Sum>(shared, reinterpret_cast<unsigned*>(shared + C::kFlag), split,
                                                 epilogue, threadIdx.x, m0, n0, M, N);
}

}  // namespace cuda
}  // namespace kerf
