// int8 matmul on the loops of matmul_loops.h, by the rules of qmatmul_rules.h.
//
// Packed B is panels of kPanel columns of quads (k, k + 1, k + 2, k + 3), then a column sum (int32) for each column.
// Without a dot product of bytes a quad is taken apart into two pairs of int16, bytes 0 and 2 and bytes 1 and 3, for
// vpmaddwd: exact, where the shorter vpmaddubsw would saturate at int16.
#pragma once
#include "matmul_loops.h"
#include "qmatmul_rules.h"

namespace kerf::KERF_TARGET {

// ---- the register tile's types; sums are int32 bits in float registers

struct Int8Blocks : Blocks {
  using Rules = Int8Rules;
  using In = uint8_t;
  using Unit = uint32_t;  // a quad
  using TileState = NoTileState;
  static constexpr int kElements = 4, kTogether = 1;
  static constexpr bool kReadsInPlace = false;
};

// Two pairs of int16 a quad, and their products added up in pairs.
struct MatmulPairs : Int8Blocks {
  using Loaded = vi;
  static constexpr int kSub = 2;

  // The same on panels whose quads have been taken apart once, where they are used often.
  struct Wide : Int8Blocks {
    using Unit = float;
    using Loaded = vf;
    static constexpr int kElements = 2, kSub = 1;
    KERF_INLINE vf load_units(const float* p) { return load(p); }
    KERF_INLINE vf step(vf b, int) { return b; }
    KERF_INLINE vf mac(vf a, vf b, vf acc) { return MatmulPairs::mac(a, b, acc); }
  };
  static constexpr bool kWidens = true;

  KERF_INLINE vi load_units(const Unit* p) { return as_int(load(reinterpret_cast<const float*>(p))); }
  KERF_INLINE vf step(vi quads, int s) { return as_float(s == 0 ? even_bytes(quads) : odd_bytes(quads)); }
  KERF_INLINE vf mac(vf a, vf b, vf acc) { return as_float(add_i(as_int(acc), madd(as_int(a), as_int(b)))); }
  KERF_INLINE vf words(const uint8_t* p) { return as_float(dot_pairs(p)); }
};

// ---- packing of B, and the cell

// Column j's quad from k = 4 u on; rows beyond k are zero.
KERF_INLINE uint32_t quad_of(const uint8_t* b, int64_t b_row, int64_t rows, uint8_t flip) {
  uint32_t quad = 0;
  for (int64_t e = 0; e < rows; e++) quad |= static_cast<uint32_t>(b[e * b_row] ^ flip) << (8 * e);
  return quad;
}

// Columns [0, cols) of B to one panel, and their sums. B may be uint8: 128 less is packed.
template <class T>
static void qpack_panel(uint32_t* out, int32_t* column_sums, const uint8_t* b, int64_t k, int64_t cols, int64_t b_row,
                        int64_t b_col, uint8_t flip) {
  const int64_t units = units_of<T>(k);
  const uint32_t flips = flip * 0x01010101u;
  int64_t u = 0;
  if (b_row == 1) {  // columns are contiguous: 4 W bytes of W columns at a time, transposed
    for (; u + W <= k / 4; u += W) {
      for (int64_t j = 0; j < kPanel; j += W) {
        vf lanes[W];
#pragma GCC unroll 16
        for (int i = 0; i < W; i++)
          lanes[i] = j + i < cols ? load(reinterpret_cast<const float*>(b + (j + i) * b_col + 4 * u))
                                  : as_float(set1i(static_cast<int32_t>(flips)));
        transpose(lanes);
        for (int i = 0; i < W; i++)
          store(reinterpret_cast<float*>(out + (u + i) * kPanel + j), as_float(xor_i(as_int(lanes[i]), set1i(static_cast<int32_t>(flips)))));
      }
    }
  }
  for (; u < units; u++)
    for (int64_t j = 0; j < kPanel; j++)
      out[u * kPanel + j] = j < cols ? quad_of(b + 4 * u * b_row + j * b_col, b_row, min_of(4, k - 4 * u), flip) : 0;
  for (int64_t j = 0; j < kPanel; j += W) {
    vi sum = set1i(0);
    for (u = 0; u < units; u++) {
      const vi quads = as_int(load(reinterpret_cast<const float*>(out + u * kPanel + j)));
      sum = add_i(sum, madd(even_bytes(quads), set1i(0x00010001)));
      sum = add_i(sum, madd(odd_bytes(quads), set1i(0x00010001)));
    }
    store_i(column_sums + j, sum);
  }
}

template <class T>
static int64_t qpacked_bytes(int64_t k, int64_t n) {
  return packed_bytes<T>(k, n) + ceil_div(n, kPanel) * kPanel * static_cast<int64_t>(sizeof(int32_t));
}

template <class T>
static void qpack(void* packed, const void* b, DType type, int64_t k, int64_t n, int64_t b_row, int64_t b_col) {
  auto* out = static_cast<uint32_t*>(packed);
  auto* sums = reinterpret_cast<int32_t*>(static_cast<char*>(packed) + packed_bytes<T>(k, n));
  const uint8_t flip = type == DType::uint8_ ? kSignFlip : 0;
  parallel_if(k * n > 256 * 1024, ceil_div(n, kPanel), [&](int64_t panel) {
    const int64_t j = panel * kPanel;
    qpack_panel<T>(out + j * units_of<T>(k), sums + j, static_cast<const uint8_t*>(b) + j * b_col, k, min_of(kPanel, n - j),
                   b_row, b_col, flip);
  });
}

template <class T>
static bool qrun(const QMatmulProblem& problem) {
  QProduct p;
  if (!begin_product(p, problem)) return false;
  p.column_sums = reinterpret_cast<const int32_t*>(static_cast<const char*>(p.packed) + packed_bytes<T>(p.k, p.n));
  return run_tiles<T>(p);
}

template <class T>
static QMatmulCell qmatmul_cell(const char* name) {
  return QMatmulCell{name, qpacked_bytes<T>, qpack<T>, qrun<T>};
}

}  // namespace kerf::KERF_TARGET
