// A few rows times a B whose columns are contiguous (x times the transpose of a weight matrix, not packed): B is read
// once and in place, which packing would do at three times the traffic. Each output is a dot product: W partial sums
// over k = lane (mod W), added up in the fixed order of reduce_add; products of 16-bit inputs are exact in float32.
// Tile: 4 rows x 4 columns, 16 accumulators (4 x 1 at the right edge).
#pragma once
#include "matmul_epilogue.h"
#include "matmul_pack.h"

namespace kerf::KERF_TARGET {

constexpr int kDotRows = 4, kDotCols = 4;
constexpr int64_t kDotStrip = 64;  // columns finished together

template <class T, int R, int C>
static void dot_tile(int64_t k, const float* a, int64_t a_row, const typename T::In* b, int64_t b_col, float* out) {
  constexpr int64_t ahead = kStreamAhead / C / static_cast<int64_t>(sizeof(typename T::In));
  vf acc[R][C];
#pragma GCC unroll 4
  for (int r = 0; r < R; r++)
#pragma GCC unroll 4
    for (int c = 0; c < C; c++) acc[r][c] = set1(0.0f);
  int64_t p = 0;
  for (; p + W <= k; p += W) {
    vf column[C];
#pragma GCC unroll 4
    for (int c = 0; c < C; c++) {
      __builtin_prefetch(b + c * b_col + p + ahead);
      column[c] = load(b + c * b_col + p);
    }
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) {
      const vf row = load(a + r * a_row + p);
#pragma GCC unroll 4
      for (int c = 0; c < C; c++) acc[r][c] = fma(row, column[c], acc[r][c]);
    }
  }
  if (p < k) {
    for (int c = 0; c < C; c++) {
      const vf column = load_n(b + c * b_col + p, k - p);
      for (int r = 0; r < R; r++) acc[r][c] = fma(load_n(a + r * a_row + p, k - p), column, acc[r][c]);
    }
  }
  for (int r = 0; r < R; r++)
    for (int c = 0; c < C; c++) out[r * kDotStrip + c] = reduce_add(acc[r][c]);
}

template <class T, int C>
static void dot_rows(const MatmulProblem& p, const float* a, int64_t a_row, const typename T::In* b, float* out) {
  switch (p.m) {
    case 1: return dot_tile<T, 1, C>(p.k, a, a_row, b, p.b_col, out);
    case 2: return dot_tile<T, 2, C>(p.k, a, a_row, b, p.b_col, out);
    case 3: return dot_tile<T, 3, C>(p.k, a, a_row, b, p.b_col, out);
    case 4: return dot_tile<T, 4, C>(p.k, a, a_row, b, p.b_col, out);
  }
}

template <class T>
static bool suits_dot(const MatmulProblem& p) {
  return !p.packed && p.m <= kDotRows && p.b_row == 1 && p.n > 1 && p.k >= 2 * W;
}

template <class T>
static bool run_dot(const MatmulProblem& p) {
  using In = typename T::In;
  const float* a;
  int64_t a_row = p.k;
  if (sizeof(In) == sizeof(float) && p.a_col == 1) {
    a = static_cast<const float*>(p.a);
    a_row = p.a_row;
  } else {
    float* widened = static_cast<float*>(scratch(Scratch::pack_a, static_cast<size_t>(p.m * p.k) * sizeof(float)));
    if (!widened) return false;
    const In* from = static_cast<const In*>(p.a);
    for (int64_t r = 0; r < p.m; r++)
      for (int64_t q = 0; q < p.k; q++) widened[r * p.k + q] = to_float(from[r * p.a_row + q * p.a_col]);
    a = widened;
  }
  const double ns = static_cast<double>(p.n * p.k) * sizeof(In) / 40;
  const int64_t strips = ceil_div(p.n, kDotStrip);
  const int64_t tasks = ns < kSerialNs ? 1 : min_of(strips, 8 * pool_threads());
  parallel_if(true, tasks, [&](int64_t task) {
    alignas(64) float sums[kDotRows * kDotStrip];
    for (int64_t strip = task * strips / tasks; strip < (task + 1) * strips / tasks; strip++) {
      const int64_t col = strip * kDotStrip, cols = min_of(kDotStrip, p.n - col);
      const In* b = static_cast<const In*>(p.b) + col * p.b_col;
      int64_t c = 0;
      for (; c + kDotCols <= cols; c += kDotCols) dot_rows<T, kDotCols>(p, a, a_row, b + c * p.b_col, sums + c);
      for (; c < cols; c++) dot_rows<T, 1>(p, a, a_row, b + c * p.b_col, sums + c);
      finish<T>(p, sums, kDotStrip, 0, p.m, col, cols);
    }
  });
  return true;
}

}  // namespace kerf::KERF_TARGET
