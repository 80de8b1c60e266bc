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
#include "operands.cuh"
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

// Tiles of operands with K innermost: a shared row is 128 bytes of a row's K. How a thread brings and reads its part of them.
template <class C, class W, class X>
struct RowTiles {
  static constexpr int kTokensAtOnce = C::BN < C::kRowsOfCopy ? 1 : C::BN / C::kRowsOfCopy;
  // A thread copies one chunk of every kRowsOfCopy-th row: one swizzled offset for all.
  const int copy_row, copy_chunk, lane, warp_m, warp_n;
  typename W::template Reader<C::BM / C::kRowsOfCopy, C::kRowsOfCopy> w;
  typename X::template Reader<kTokensAtOnce, C::kRowsOfCopy> x;

  CU_FUNCTION RowTiles(const W& w_rows, const X& x_rows, int thread, int m0, int n0)
      : copy_row(thread / 8), copy_chunk(thread % 8), lane(thread % 32), warp_m(thread / 32 % C::kWarpsM * C::WM),
        warp_n(thread / 32 / C::kWarpsM * C::WN), w(w_rows, m0 + copy_row), x(x_rows, n0 + copy_row) {}

  CU_FUNCTION void load(uint8_t* stage, int tile) const {
    uint8_t* const to = swizzled(stage, copy_row, copy_chunk);
    const int chunk = tile * 8 + copy_chunk;
    constexpr int kStep = C::kRowsOfCopy * C::kRow;
    w.each(chunk, [&](int i, const uint8_t* from, bool valid) { cu::copy_async16(to + i * kStep, from, valid); });
    if (C::BN >= C::kRowsOfCopy || copy_row < C::BN)
      x.each(chunk, [&](int i, const uint8_t* from, bool valid) {
        cu::copy_async16(to + C::BM * C::kRow + i * kStep, from, valid);
      });
  }
  // Operand A of rows warp_m + 16 i and operand B of two times 8 tokens, 32 bytes of K: number k of a tile's four.
  CU_FUNCTION void read_a(uint32_t (&a)[4], uint8_t* stage, int i, int k) const {
    cu::load_matrix_x4(a, swizzled(stage, warp_m + i * 16 + lane % 16, k * 2 + lane / 16));
  }
  CU_FUNCTION void read_b(uint32_t (&b)[4], uint8_t* stage, int j, int k) const {
    const int token = C::WN == 8 ? lane % 8 : j * 16 + lane / 16 * 8 + lane % 8;  // of 8 tokens the second half is not used
    cu::load_matrix_x4(b, swizzled(stage + C::BM * C::kRow, warp_n + token, k * 2 + lane / 8 % 2));
  }
};

// Leaves the sums over tiles `first` to `end` of K in shared memory, as C::Tile; a barrier has passed since.
template <class C, class Tiles>
CU_FUNCTION void sum_by_mma(uint8_t* shared, const Tiles& tiles, int first, int end) {
  const int lane = tiles.lane;
  auto stage = [&](int tile) { return shared + tile % C::STAGES * C::kStageBytes; };
  typename C::Sum d[C::WM / 16][C::WN / 8][4] = {};
#pragma unroll
  for (int s = 0; s < C::STAGES - 1; s++) {
    if (first + s < end) tiles.load(stage(first + s), first + s);
    cu::copy_commit();
  }
  for (int t = first; t < end; t++) {
    cu::copy_wait<C::STAGES - 2>();  // tile t has landed for this thread,
    cu::sync_threads();              // and for all; and all have read the stage that the next load overwrites
    if (t + C::STAGES - 1 < end) tiles.load(stage(t + C::STAGES - 1), t + C::STAGES - 1);
    cu::copy_commit();
    uint8_t* const from = stage(t);
#pragma unroll
    for (int k = 0; k < 4; k++) {  // 32 bytes of K each
      uint32_t a[C::WM / 16][4], b[(C::WN + 8) / 16][4];
#pragma unroll
      for (int i = 0; i < C::WM / 16; i++) tiles.read_a(a[i], from, i, k);
#pragma unroll
      for (int j = 0; j < (C::WN + 8) / 16; j++) tiles.read_b(b[j], from, j, k);
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
      C::Tile::put(shared, tiles.warp_m + i * 16 + lane / 4, tiles.warp_n + j * 8 + lane % 4 * 2, d[i][j][0], d[i][j][1],
                   d[i][j][2], d[i][j][3]);
  cu::sync_threads();  // and are complete
}

template <class C, class E>
__global__ void __launch_bounds__(C::kThreads)
    matmul_mma(const uint8_t* W, const uint8_t* X, int M, int N, int row_bytes, E epilogue) {
  uint8_t* const shared = cu::shared_memory();
  const int m0 = blockIdx.x * C::BM, n0 = blockIdx.y * C::BN;
  const PlainRows w{W, M, row_bytes}, x{X, N, row_bytes};
  sum_by_mma<C>(shared, RowTiles<C, PlainRows, PlainRows>(w, x, threadIdx.x, m0, n0), 0, (row_bytes + C::kRow - 1) / C::kRow);
  C::Tile::template store<typename C::Sum>(shared, epilogue, threadIdx.x, m0, n0, M, N);
}

// Shared memory, not registers, says how many blocks a multiprocessor holds; without the 1 ptxas saves them until it spills.
template <class C, class E>
__global__ void __launch_bounds__(C::kThreads, 1)
    matmul_mma_split(const uint8_t* W, const uint8_t* X, int M, int N, int row_bytes, Split split, E epilogue) {
  uint8_t* const shared = cu::shared_memory();
  const int m0 = blockIdx.x * C::BM, n0 = blockIdx.y * C::BN;
  const PartOfK part((row_bytes + C::kRow - 1) / C::kRow);
  const PlainRows w{W, M, row_bytes}, x{X, N, row_bytes};
  sum_by_mma<C>(shared, RowTiles<C, PlainRows, PlainRows>(w, x, threadIdx.x, m0, n0), part.first, part.end);
  store_split<typename C::Tile, typename C::Sum>(shared, reinterpret_cast<unsigned*>(shared + C::kFlag), split,
                                                 epilogue, threadIdx.x, m0, n0, M, N);
}

}  // namespace cuda
}  // namespace kerf
