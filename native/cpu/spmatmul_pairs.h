// Pairs: C = activation(A W^T + bias) for few rows where W has at most two non-zeros in every four inputs (2:4).
//
// Lanes are outputs. Four inputs of a row, repeated across a register, are a table from which each lane picks by two bits: one
// permutation and one multiply-add for two weights that were read and two zeros that were not. The two bits of 16 values of
// an output share a word, which is shifted along. Packed in panels of 32 outputs, for every 32 inputs:
//
//   uint32  places[32]          two bits for each value, in order
//   W's     values[8][2][32]    of each four inputs the first and the second, as they are: these products wait for memory
//
// Any bits are places within the four: nothing about packed bytes needs to be trusted. The target defines
// pick(four, places) first.
#pragma once
#include "sparse_types.h"

namespace kerf::KERF_TARGET {

constexpr int64_t kPairOutputs = 32, kPairInputs = 32, kPairFours = kPairInputs / 4;
template <class T> constexpr int64_t kPairChunk = kPairOutputs * (4 + 2 * kPairFours * static_cast<int64_t>(sizeof(T)));  // bytes
constexpr int64_t kPairRows = 6;

static int64_t count_pairs(const CsrMatrix& w) {
  if (!csr_sound(w)) return -1;
  for (int64_t r = 0; r < w.n; r++)
    for (int32_t at = w.pointers[r] + 2; at < w.pointers[r + 1]; at++)
      if (w.columns[at] / 4 == w.columns[at - 2] / 4) return -1;
  return w.count;
}

template <class T>
static int64_t pairs_bytes(int64_t n, int64_t k, int64_t) {
  return ceil_div(n, kPairOutputs) * ceil_div(k, kPairInputs) * kPairChunk<T>;
}

template <class T>
static bool pairs_pack(void* packed, const CsrMatrix& w, int64_t count) {
  if (count_pairs(w) != count) return false;
  const int64_t bytes = pairs_bytes<T>(w.n, w.k, count);
  if (bytes == 0) return true;  // packed may be null then
  auto* out = static_cast<char*>(packed);
  memset(out, 0, static_cast<size_t>(bytes));
  const int64_t chunks = ceil_div(w.k, kPairInputs);
  for (int64_t r = 0; r < w.n; r++) {
    const int64_t lane = r % kPairOutputs;
    for (int32_t at = w.pointers[r]; at < w.pointers[r + 1]; at++) {
      const int32_t column = w.columns[at];
      const bool second = at > w.pointers[r] && w.columns[at - 1] / 4 == column / 4;
      char* chunk = out + (r / kPairOutputs * chunks + column / kPairInputs) * kPairChunk<T>;
      const int64_t value = column % kPairInputs / 4 * 2 + second;
      reinterpret_cast<uint32_t*>(chunk)[lane] |= static_cast<uint32_t>(column % 4) << (2 * value);
      reinterpret_cast<T*>(chunk + 4 * kPairOutputs)[value * kPairOutputs + lane] = static_cast<const T*>(w.values)[at];
    }
  }
  return true;
}

// R rows by P panels. A value that fills up is 0 at the first of the four: where that may be infinite or NaN it is left out
// (`masked`).
template <class T, int R, int P, bool masked>
static void add_pairs(const char* packed, int64_t chunks, const float* x, int64_t x_row, float* sums, int64_t sums_row) {
  constexpr int V = P * static_cast<int>(kPairOutputs) / W, kInPanel = V / P;
  vf acc[R][V][2];
#pragma GCC unroll 8
  for (int r = 0; r < R; r++)
#pragma GCC unroll 8
    for (int v = 0; v < V; v++) acc[r][v][0] = acc[r][v][1] = set1(0.0f);
  for (int64_t c = 0; c < chunks; c++, packed += kPairChunk<T>, x += kPairInputs) {
    vi places[V];
#pragma GCC unroll 8
    for (int v = 0; v < V; v++)
      places[v] = as_int(load(reinterpret_cast<const float*>(packed + v / kInPanel * chunks * kPairChunk<T>) + v % kInPanel * W));
    const char* at = packed + 4 * kPairOutputs;
#pragma GCC unroll 8
    for (int g = 0; g < kPairFours; g++, at += 2 * kPairOutputs * sizeof(T)) {
#pragma GCC unroll 8
      for (int v = 0; v < V; v++)
#pragma GCC unroll 2
        for (int i = 0; i < 2; i++) {
          const T* from = reinterpret_cast<const T*>(at + v / kInPanel * chunks * kPairChunk<T>) + v % kInPanel * W + i * kPairOutputs;
          __builtin_prefetch(from + 4096 / V);
          const vf weight = load(from);
#pragma GCC unroll 8
          for (int r = 0; r < R; r++) {
            const vf input = pick(x + r * x_row + 4 * g, places[v]);
            const vf sum = fma(input, weight, acc[r][v][i]);
            acc[r][v][i] = masked ? select(ne(weight, set1(0.0f)), sum, acc[r][v][i]) : sum;
          }
          places[v] = next_place(places[v]);
        }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; r++)
#pragma GCC unroll 8
    for (int v = 0; v < V; v++) store(sums + r * sums_row + v * W, add(acc[r][v][0], acc[r][v][1]));
}

// Sums of all rows for P panels from `panel` on.
template <class T, int P>
static void pair_panels(const SparseProblem& p, int64_t panel, const float* x, int64_t padded, bool finite) {
  constexpr int kTwo = P >= 2 ? P / 2 : 1;  // panels at a time for two rows; one for three
  constexpr int64_t kCols = P * kPairOutputs;
  const int64_t chunks = ceil_div(p.k, kPairInputs), col = panel * kPairOutputs, cols = min_of(kCols, p.n - col);
  const auto* packed = static_cast<const char*>(p.packed) + panel * chunks * kPairChunk<T>;
  alignas(64) float sums[3 * kCols];
  for (int64_t row = 0, rows; row < p.m; row += rows) {
    const float* from = x + row * padded;
    rows = min_of(3, p.m - row);
    auto each = [&](auto panels_, auto body) {
      constexpr int panels = decltype(panels_)::count;
      for (int64_t i = 0; i < P; i += panels) body(packed + i * chunks * kPairChunk<T>, sums + i * kPairOutputs);
    };
    if (!finite) {
      for (int64_t r = 0; r < rows; r++)
        each(Vectors<1>{}, [&](const char* w, float* to) { add_pairs<T, 1, 1, true>(w, chunks, from + r * padded, padded, to + r * kCols, kCols); });
    } else if (rows == 1) {
      each(Vectors<P>{}, [&](const char* w, float* to) { add_pairs<T, 1, P, false>(w, chunks, from, padded, to, kCols); });
    } else if (rows == 2) {
      each(Vectors<kTwo>{}, [&](const char* w, float* to) { add_pairs<T, 2, kTwo, false>(w, chunks, from, padded, to, kCols); });
    } else {
      each(Vectors<1>{}, [&](const char* w, float* to) { add_pairs<T, 3, 1, false>(w, chunks, from, padded, to, kCols); });
    }
    for (int64_t r = 0; r < rows; r++) finish_few(p, row + r, col, cols, sums + r * kCols);
  }
}

template <class T>
static bool pairs_run(const SparseProblem& p) {
  if (p.m == 0 || p.n == 0) return true;
  constexpr int P = W == 16 ? 4 : 1;  // panels for one row: 8 or 4 vectors of two sums, and as many of places
  const int64_t padded = max_of(ceil_div(p.k, kPairInputs), 1) * kPairInputs, panels = ceil_div(p.n, kPairOutputs);
  bool finite = true;
  const float* x = widen_rows(p, padded, &finite);
  if (!x) return false;
  const int64_t pieces = ceil_div(panels, P);
  const double ns = static_cast<double>(p.m) * static_cast<double>(p.n) * static_cast<double>(p.k) * 0.04;
  const int64_t tasks = ns > kSerialNs ? min_of(pieces, 8 * pool_threads()) : 1;
  parallel_if(tasks > 1, tasks, [&](int64_t task) {
    for (int64_t panel = task * pieces / tasks * P, end = min_of((task + 1) * pieces / tasks * P, panels); panel < end;) {
      const bool whole = panel + P <= end;
      if (whole) pair_panels<T, P>(p, panel, x, padded, finite);
      else pair_panels<T, 1>(p, panel, x, padded, finite);
      panel += whole ? P : 1;
    }
  });
  return true;
}

template <class T>
static SparseCell<SparseProblem> pairs_cell(const char* name) {
  return {name, kPairRows, count_pairs, pairs_bytes<T>, pairs_pack<T>, pairs_run<T>};
}

}  // namespace kerf::KERF_TARGET
