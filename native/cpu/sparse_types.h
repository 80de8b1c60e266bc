// What the forms of sparse weights share: checking CSR, laying out packed parts, and rows of A with their columns as lanes
// across.
#pragma once
#include "matmul_epilogue.h"
#include "matmul_pack.h"
#include "vectors.h"

namespace kerf::KERF_TARGET {

// Hands out the parts of packed weights one after the other, each at a multiple of 64 bytes.
struct Parts {
  char* at;

  template <class T>
  T* take(int64_t count) {
    auto* here = reinterpret_cast<T*>(at);
    at += ceil_div(count * static_cast<int64_t>(sizeof(T)), 64) * 64;
    return here;
  }
};

// False when the matrix is not what CSR must be: pointers that grow from 0 to count, columns that grow within each row.
static bool csr_sound(const CsrMatrix& w) {
  if (w.pointers[0] != 0 || w.pointers[w.n] != w.count) return false;
  for (int64_t r = 0; r < w.n; r++)
    if (w.pointers[r] > w.pointers[r + 1]) return false;
  for (int64_t r = 0; r < w.n; r++) {
    int32_t last = -1;
    for (int32_t i = w.pointers[r]; i < w.pointers[r + 1]; i++) {
      if (w.columns[i] <= last || w.columns[i] >= w.k) return false;
      last = w.columns[i];
    }
  }
  return true;
}

// Whether a group's counts, which add up to `sum`, are its share of all `count` units: only then may they be trusted.
template <class Start>
static bool is_share(const Start* start, int64_t group, int64_t sum, int64_t count) {
  return start[group] >= 0 && start[group] + sum == start[group + 1] && start[group + 1] <= count;
}

// Rows of A as [k][V W] floats; lanes beyond the rows hold copies of the last.
template <class In>
static void transpose_rows(float* out, const In* a, int64_t a_row, int64_t rows, int64_t vectors, int64_t k) {
  for (int64_t v = 0; v < vectors; v++) {
    for (int64_t q = 0; q < k; q += W) {
      const int64_t there = min_of(W, k - q);
      vf lanes[W];
#pragma GCC unroll 16
      for (int r = 0; r < W; r++) {
        const In* from = a + min_of(v * W + r, rows - 1) * a_row + q;
        lanes[r] = there == W ? load(from) : load_n(from, there);
      }
      transpose(lanes);
      for (int64_t i = 0; i < there; i++) store(out + ((q + i) * vectors + v) * W, lanes[i]);
    }
  }
}

static void transpose_rows(const SparseProblem& p, float* out, int64_t row, int64_t rows, int64_t vectors) {
  switch (p.a_type) {
    case DType::float32_: return transpose_rows(out, static_cast<const float*>(p.a) + row * p.a_row, p.a_row, rows, vectors, p.k);
    case DType::float16_: return transpose_rows(out, static_cast<const f16*>(p.a) + row * p.a_row, p.a_row, rows, vectors, p.k);
    case DType::bfloat16_: return transpose_rows(out, static_cast<const bf16*>(p.a) + row * p.a_row, p.a_row, rows, vectors, p.k);
    default: return;
  }
}

// Sums [outputs][V W], lanes across, to rows of C, with bias and activation.
template <class Out>
static void finish_lanes(const SparseProblem& p, const float* sums, int64_t vectors, int64_t row, int64_t rows, int64_t col,
                         int64_t cols) {
  for (int64_t v = 0; v * W < rows; v++) {
    for (int64_t j = 0; j < cols; j += W) {
      vf lanes[W];
#pragma GCC unroll 16
      for (int i = 0; i < W; i++) lanes[i] = load(sums + ((j + i) * vectors + v) * W);
      transpose(lanes);
      const int64_t width = min_of(W, cols - j), height = min_of(W, rows - v * W);
      const vf bias = p.bias ? load_n(p.bias + col + j, width) : set1(0.0f);
      Out* to = static_cast<Out*>(p.c) + (row + v * W) * p.c_row + col + j;
      for (int64_t r = 0; r < height; r++, to += p.c_row) {
        const vf x = activate(p.activation, p.bias ? add(lanes[r], bias) : lanes[r]);
        if (width == W) store(to, x);
        else store_n(to, x, width);
      }
    }
  }
}

static void finish_lanes(const SparseProblem& p, const float* sums, int64_t vectors, int64_t row, int64_t rows, int64_t col,
                         int64_t cols) {
  switch (p.c_type) {
    case DType::float32_: return finish_lanes<float>(p, sums, vectors, row, rows, col, cols);
    case DType::float16_: return finish_lanes<f16>(p, sums, vectors, row, rows, col, cols);
    case DType::bfloat16_: return finish_lanes<bf16>(p, sums, vectors, row, rows, col, cols);
    default: return;
  }
}

// One row of sums to C at (row, col).
static inline void finish_few(const SparseProblem& p, int64_t row, int64_t col, int64_t cols, const float* sums) {
  const int64_t at = row * p.c_row + col;
  const ColumnBias bias{p.bias ? p.bias + col : nullptr};
  switch (p.c_type) {
    case DType::float32_: return finish_row(cols, sums, static_cast<float*>(p.c) + at, bias, p.activation);
    case DType::float16_: return finish_row(cols, sums, static_cast<f16*>(p.c) + at, bias, p.activation);
    case DType::bfloat16_: return finish_row(cols, sums, static_cast<bf16*>(p.c) + at, bias, p.activation);
    default: return;
  }
}

// Whether all of a run are finite: only then may zeros of W that fill up be multiplied by it.
template <class In>
static bool all_finite(const In* x, int64_t n) {
  bool finite = true;
  for_vectors(n, [&](int64_t i, auto lanes) {
    const vf v = get(x + i, lanes);
    finite &= !any(is_nan(sub(v, v)));
  });
  return finite;
}

template <class In>
static void widen_row(float* out, const In* a, int64_t k) {
  for_vectors(k, [&](int64_t q, auto lanes) { put(out + q, get(a + q, lanes), lanes); });
}

// All rows of A as float32, `padded` apart, zero beyond k; null when there is no memory. Tells whether all are finite.
static inline float* widen_rows(const SparseProblem& p, int64_t padded, bool* finite) {
  auto* x = static_cast<float*>(scratch(Scratch::pack_a, static_cast<size_t>(p.m * padded) * sizeof(float)));
  if (!x) return nullptr;
  for (int64_t r = 0; r < p.m; r++) {
    float* to = x + r * padded;
    switch (p.a_type) {
      case DType::float32_: widen_row(to, static_cast<const float*>(p.a) + r * p.a_row, p.k); break;
      case DType::float16_: widen_row(to, static_cast<const f16*>(p.a) + r * p.a_row, p.k); break;
      case DType::bfloat16_: widen_row(to, static_cast<const bf16*>(p.a) + r * p.a_row, p.k); break;
      default: break;
    }
    memset(to + p.k, 0, static_cast<size_t>(padded - p.k) * sizeof(float));
  }
  *finite = all_finite(x, p.m * padded);
  return x;
}

// Where a chunk of rows begins: `most` vectors of rows each but for the last.
struct Chunk {
  int64_t row, rows, vectors;
  Chunk(int64_t i, int64_t m, int64_t most) : row(i * most * W), rows(min_of(most * W, m - row)), vectors(ceil_div(rows, W)) {}
};

// The cells of a form for the dtypes of W: `cell(T{})` makes one.
template <class Make>
static inline void install_form(Kernels& row, SparseForm form, Make cell) {
  row.spmatmul[form][0] = cell(float{});
  row.spmatmul[form][1] = cell(f16{});
  row.spmatmul[form][2] = cell(bf16{});
}

}  // namespace kerf::KERF_TARGET
