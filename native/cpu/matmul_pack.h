// Packing for matmul. Packed B is panels of kPanel columns, each [units of k][kPanel]; packed A is row panels, each
// [words][rows of the panel] (matmul_tile.h says what units and words are). Missing columns and a missing odd element
// are zero: zero times anything that the other operand's zero meets stays zero.
//
// Beyond matmul_tile.h a dtype T gives: unit(lo, hi), word(lo, hi) from elements; words(p): W words from contiguous
// elements; gather_units(p) / scatter_units(p, v): W units as 32-bit lanes, from elements and to packed B.
#pragma once
#include "../core/pool.h"
#include "matmul_tile.h"

namespace kerf::KERF_TARGET {

template <class T>
KERF_INLINE int64_t units_of(int64_t k) { return (k + T::kElements - 1) / T::kElements; }

// Units of a packed row of A, and words that may be read beyond the last panel of A.
template <class T>
KERF_INLINE int64_t row_units(int64_t units) { return (units + T::kTogether - 1) / T::kTogether * T::kTogether; }
template <class T>
constexpr int64_t kBeyondA = T::kTogether > 1 ? T::kTogether * T::kRows : 0;

constexpr int64_t min_of(int64_t a, int64_t b) { return a < b ? a : b; }
constexpr int64_t max_of(int64_t a, int64_t b) { return a > b ? a : b; }
constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// m rows in even panels: 15 in two are 8 + 7, not 14 + 1.
struct RowPanels {
  int64_t m, row_panels;
  int64_t row_of(int64_t panel) const { return panel * (m / row_panels) + min_of(panel, m % row_panels); }
};

template <class Body>
static void parallel_if(bool worthwhile, int64_t tasks, Body&& body) {
  if (worthwhile && tasks > 1) {
    parallel(tasks, static_cast<Body&&>(body));
  } else {
    for (int64_t task = 0; task < tasks; task++) body(task);
  }
}

// Below this a woken thread costs more than it brings.
constexpr double kSerialNs = 25'000;
constexpr double kTaskNs = 6'000;          // a task shorter than this is mostly overhead

// Bytes of B in flight when it comes from memory: bandwidth times latency, about 60 GB/s x 130 ns, twice. Measured at
// m = 1 and 8, k = n = 4096: on Zen 5 16 KiB beats 8 and 32 by up to 15 %; on Zen 4 8 KiB was 10 % better than 16.
constexpr int64_t kStreamAhead = 16384;

// Rows [0, rows) x k elements of A at `a` (rows <= kRows <= W) to `out`.
template <class T>
static void pack_a_panel(float* out, const typename T::In* a, int64_t rows, int64_t k, int64_t a_row, int64_t a_col) {
  if constexpr (T::kTogether > 1) return T::pack_rows(out, a, rows, k, a_row, a_col);
  constexpr int per_word = T::kElements / T::kSub;
  const int64_t words = units_of<T>(k) * T::kSub;
  const int64_t whole = k / per_word;  // words without padding
  int64_t w = 0;
  if (a_col == 1) {
    for (; w + W <= whole; w += W) {
      vf lanes[W];
#pragma GCC unroll 16
      for (int r = 0; r < W; r++) lanes[r] = T::words(a + min_of(r, rows - 1) * a_row + w * per_word);
      transpose(lanes);
      float* to = out + w * rows;
      // A full store spills into the next word, which is written later; only the panel's end needs care.
      const bool inside = w + W < words - 2 * W;
#pragma GCC unroll 16
      for (int i = 0; i < W; i++) {
        if (inside) store(to + i * rows, lanes[i]);
        else store_n(to + i * rows, lanes[i], rows);
      }
    }
  } else if (a_row == 1 && per_word == 1) {
    for (; w < whole; w++) store_n(out + w * rows, load_n(a + w * a_col, rows), rows);
  }
  for (; w < words; w++) {
    const int64_t p = w * per_word;
    for (int64_t r = 0; r < rows; r++) {
      const typename T::In* from = a + r * a_row + p * a_col;
      const typename T::In zero{};
      const uint32_t word = T::word(p < k ? from[0] : zero, p + 1 < k ? from[a_col] : zero);
      memcpy(out + w * rows + r, &word, 4);
    }
  }
}

// Columns [0, cols) of B at `b` (cols <= kPanel) to one panel.
template <class T>
static void pack_b_panel(typename T::Unit* out, const typename T::In* b, int64_t k, int64_t cols, int64_t b_row,
                         int64_t b_col) {
  using In = typename T::In;
  const In zero{};
  const int64_t units = units_of<T>(k);
  int64_t u = 0;
  if (b_col == 1) {
    for (; u < units; u++, out += kPanel) {
      const In* row = b + u * T::kElements * b_row;
      if (u * T::kElements + T::kElements <= k && cols == kPanel) {
        const In* next = row + (T::kElements - 1) * b_row;
        for (int j = 0; j < kPanel; j++) out[j] = T::unit(row[j], next[j]);
      } else {
        const bool odd = u * T::kElements + T::kElements > k;
        for (int64_t j = 0; j < kPanel; j++)
          out[j] = T::unit(j < cols ? row[j] : zero, j < cols && !odd ? row[(T::kElements - 1) * b_row + j] : zero);
      }
    }
    return;
  }
  if (b_row == 1) {
    for (; u + W <= k / T::kElements; u += W) {
      for (int64_t j = 0; j < kPanel; j += W) {
        vf lanes[W];
#pragma GCC unroll 16
        for (int i = 0; i < W; i++)
          lanes[i] = j + i < cols ? T::gather_units(b + (j + i) * b_col + u * T::kElements) : set1(0.0f);
        transpose(lanes);
#pragma GCC unroll 16
        for (int i = 0; i < W; i++) T::scatter_units(out + (u + i) * kPanel + j, lanes[i]);
      }
    }
  }
  for (; u < units; u++) {
    const int64_t p = u * T::kElements;
    for (int64_t j = 0; j < kPanel; j++) {
      const In* from = b + p * b_row + j * b_col;
      out[u * kPanel + j] = T::unit(j < cols ? from[0] : zero, j < cols && p + 1 < k ? from[b_row] : zero);
    }
  }
}

template <class T>
static int64_t packed_bytes(int64_t k, int64_t n) {
  return ceil_div(n, kPanel) * kPanel * units_of<T>(k) * static_cast<int64_t>(sizeof(typename T::Unit));
}

template <class T>
static void pack_b_panels(void* packed, const void* b, int64_t k, int64_t n, int64_t b_row, int64_t b_col,
                          int64_t begin, int64_t end) {
  auto* out = static_cast<typename T::Unit*>(packed);
  auto* in = static_cast<const typename T::In*>(b);
  for (int64_t panel = begin; panel < end; panel++) {
    const int64_t j = panel * kPanel;
    pack_b_panel<T>(out + j * units_of<T>(k), in + j * b_col, k, min_of(kPanel, n - j), b_row, b_col);
  }
}

}  // namespace kerf::KERF_TARGET
