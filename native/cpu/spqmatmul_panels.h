// Panels of bytes: int8 W that is sparse by any A that becomes uint8, exactly. A unit is a quad, four neighbouring inputs of
// an output with a non-zero among them: what is a step of a dense int8 product as well. Behind the panels stand the sums of
// W's rows, which put A's zero point right (qmatmul_rules.h).
#pragma once
#include "qmatmul_rules.h"
#include "spmatmul_panels.h"

namespace kerf::KERF_TARGET {

struct QuadUnits {
  static constexpr int64_t kInputs = 4;

  static uint32_t take(const CsrMatrix& w, int32_t& at, int32_t end) {
    const int32_t quad = w.columns[at] / 4;
    uint32_t bits = 0;
    for (; at < end && w.columns[at] / 4 == quad; at++)
      bits |= static_cast<uint32_t>(static_cast<const uint8_t*>(w.values)[at]) << (8 * (w.columns[at] % 4));
    return bits;
  }
  KERF_INLINE vf total(vf a, vf b) { return as_float(add_i(as_int(a), as_int(b))); }
};

// Without a dot product of bytes: two products of pairs of int16.
struct QuadUnitsOfPairs : QuadUnits {
  struct Weight {
    vi even, odd;
  };
  KERF_INLINE Weight broadcast(const uint32_t* unit) {
    const vi quad = set1i(static_cast<int32_t>(*unit));
    return {even_bytes(quad), odd_bytes(quad)};
  }
  KERF_INLINE vf mac(const Weight& weight, vf x, vf acc) {
    const vi bytes = set1i(0x00ff00ff), quad = as_int(x);
    const vi even = madd(and_i(quad, bytes), weight.even), odd = madd(and_i(shift_right<8>(quad), bytes), weight.odd);
    return as_float(add_i(as_int(acc), add_i(even, odd)));
  }
};

// The sums of W's rows, of which there is room for whole vectors.
static int64_t row_sums_bytes(int64_t n) { return ceil_div(n, kPanel) * kPanel * static_cast<int64_t>(sizeof(int32_t)); }

static void pack_row_sums(int32_t* sums, const CsrMatrix& w) {
  memset(sums, 0, static_cast<size_t>(row_sums_bytes(w.n)));
  for (int64_t r = 0; r < w.n; r++)
    for (int32_t at = w.pointers[r]; at < w.pointers[r + 1]; at++) sums[r] += static_cast<const int8_t*>(w.values)[at];
}

// Bytes of A's rows [row, row + rows), `stride` apart, zero beyond k. With scales a row: finds them first.
static void rows_of_bytes(const QProduct& p, uint8_t* out, int64_t stride, int64_t row, int64_t rows) {
  Int8Rules::begin_rows(p, row, rows);
  for (int64_t r = 0; r < rows; r++) {
    Int8Rules::row_bytes(p, out + r * stride, row + r, 0, p.k);
    memset(out + r * stride + p.k, 0, static_cast<size_t>(stride - p.k));
  }
}

static int64_t byte_panels_bytes(int64_t n, int64_t k, int64_t count) {
  return Panels(nullptr, n, ceil_div(k, 4), count).bytes + row_sums_bytes(n);
}

static bool byte_panels_pack(void* packed, const CsrMatrix& w, int64_t count) {
  const Panels p(packed, w.n, ceil_div(w.k, 4), count);
  if (!pack_panels<QuadUnits>(p, w, count)) return false;
  pack_row_sums(reinterpret_cast<int32_t*>(static_cast<char*>(packed) + p.bytes), w);
  return true;
}

template <class Units>
static bool byte_panels_run(const SparseBytesProblem& problem) {
  if (problem.m == 0 || problem.n == 0) return true;
  QProduct p;
  if (!begin_product(p, problem)) return false;
  const int64_t panels = Panels(nullptr, p.n, ceil_div(p.k, 4), problem.count).bytes, stride = ceil_div(p.k, 4) * 4;
  p.column_sums = reinterpret_cast<const int32_t*>(static_cast<const char*>(p.packed) + panels);
  auto* bytes = static_cast<uint8_t*>(scratch(Scratch::digits, static_cast<size_t>(max_of(p.m * stride, 1))));
  if (!bytes) return false;
  parallel_if(p.m * p.k > 64 * 1024, ceil_div(p.m, 16), [&](int64_t task) {
    rows_of_bytes(p, bytes + task * 16 * stride, stride, task * 16, min_of(16, p.m - task * 16));
  });
  return run_panels<Units>(
      p.packed, p.m, p.n, p.k, problem.count,
      [&](float* x, const Chunk& chunk, int64_t quad, int64_t quads) {
        const auto* from = reinterpret_cast<const float*>(bytes + chunk.row * stride) + quad;
        transpose_rows(x, from, stride / 4, chunk.rows, chunk.vectors, quads);
        return true;
      },
      [&](const float* sums, const Chunk& chunk, int64_t col, int64_t cols) {
        auto* rows = static_cast<float*>(scratch(Scratch::row, static_cast<size_t>(W * kGroupRows) * sizeof(float)));
        if (!rows) return false;
        for (int64_t v = 0; v < chunk.vectors; v++) {
          for (int64_t j = 0; j < cols; j += W) {
            vf lanes[W];
#pragma GCC unroll 16
            for (int i = 0; i < W; i++) lanes[i] = load(sums + ((j + i) * chunk.vectors + v) * W);
            transpose(lanes);
#pragma GCC unroll 16
            for (int i = 0; i < W; i++) store(rows + i * kGroupRows + j, lanes[i]);
          }
          Int8Rules::finish<void>(p, rows, kGroupRows, chunk.row + v * W, min_of(W, chunk.rows - v * W), col, cols);
        }
        return true;
      });
}

template <class Units>
static inline SparseCell<SparseBytesProblem> byte_panels_cell(const char* name) {
  return {name, kAnyRows, panel_units<QuadUnits>, byte_panels_bytes, byte_panels_pack, byte_panels_run<Units>};
}

}  // namespace kerf::KERF_TARGET
