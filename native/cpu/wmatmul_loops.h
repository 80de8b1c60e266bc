// Weight-only matmul around its tile (wmatmul_tile.h): packing, the digits of A, and how C is cut into tasks.
//
//   digits of all of A, row panel by row panel (on the pool when there are many)
//   for each task, a block of C:
//     for each few panels of weights:     streamed from memory once
//       for each row panel:               the weights come from L2 from the second on
//         tile, then bias, activation and one rounding
#pragma once
#include "wmatmul_tile.h"

namespace kerf::KERF_TARGET {

// What packing makes of codes and zero points, by the bits and signs of the format and the bytes that the dot wants.
struct Stored {
  uint8_t flip;      // xor of every code
  int32_t zero;      // added to every zero point
  bool zeros;        // zero points are stored
};

template <class Dot>
static Stored stored(const WeightFormat& format) {
  const bool zeros = format.zeros || !format.is_signed;  // those without a zero point are the signed ones' constant
  if (format.bits == 4) return {static_cast<uint8_t>(format.is_signed ? 8 : 0), format.is_signed ? 8 : 0, zeros};
  const bool flips = format.is_signed == (Dot::kOffset != 0);
  return {static_cast<uint8_t>(flips ? 128 : 0), flips ? (format.is_signed ? 128 : -128) : 0, zeros};
}

// Where the parts of packed weights lie, in 32-bit words.
struct WLayout {
  int64_t panels, panel, scale_panel, scales, zeros, words;

  WLayout(const Chunks& chunks, int64_t n, const WeightFormat& format, bool stores_zeros) {
    panels = ceil_div(n, kPanel);
    panel = chunks.quads / (format.bits == 4 ? 2 : 1) * kPanel;
    scale_panel = chunks.groups * kPanel;
    scales = panels * panel;
    zeros = scales + panels * scale_panel;
    words = zeros + (stores_zeros ? panels * scale_panel : 0);
  }
};

template <class Dot>
static int64_t wpacked_bytes(int64_t k, int64_t n, const WeightFormat& format) {
  return WLayout(Chunks(k, format.group), n, format, stored<Dot>(format).zeros).words * 4;
}

KERF_INLINE uint8_t code_at(const uint8_t* row, int64_t q, int64_t bits) {
  return bits == 8 ? row[q] : (q % 2 ? row[q / 2] >> 4 : row[q / 2] & 15);
}

template <class Dot>
static void wpack(void* packed, const uint8_t* codes, const float* scale, const int32_t* zero, int64_t k, int64_t n,
                  const WeightFormat& format) {
  const Chunks chunks(k, format.group);
  const Stored how = stored<Dot>(format);
  const WLayout layout(chunks, n, format, how.zeros);
  const int64_t row_bytes = format.bits == 8 ? k : (k + 1) / 2;
  auto* words = static_cast<uint32_t*>(packed);
  parallel_if(k * n > 64 * 1024, layout.panels, [&](int64_t panel) {
    const int64_t cols = min_of(kPanel, n - panel * kPanel);
    for (int64_t j = 0; j < kPanel; j++) {
      const int64_t column = panel * kPanel + min_of(j, cols - 1);  // columns beyond n repeat the last one
      const uint8_t* row = codes + column * row_bytes;
      uint32_t* out = words + panel * layout.panel + j;
      auto byte = [&](int64_t q, int64_t end) {  // activations beyond the end are 0: any code will do
        return q < end ? static_cast<uint32_t>(static_cast<uint8_t>(code_at(row, q, format.bits) ^ how.flip)) : 0u;
      };
      for (int64_t g = 0; g < chunks.groups; g++) {
        for (int64_t c = 0; c < chunks.chunks_in_group; c++) {
          const int64_t begin = chunks.begin(g, c), end = begin + chunks.size(g, c);
          if (begin >= end) break;
          const int64_t unit = format.bits == 4 ? 8 : 4;
          for (int64_t q = begin; q < begin + Chunks::padded(end - begin); q += unit, out += kPanel) {
            uint32_t word = 0;
            for (int64_t e = 0; e < 4; e++) {
              word |= byte(q + e, end) << (8 * e);
              if (format.bits == 4) word |= byte(q + 4 + e, end) << (8 * e + 4);
            }
            *out = word;
          }
        }
        const int64_t at = panel * layout.scale_panel + g * kPanel + j, from = column * chunks.groups + g;
        memcpy(words + layout.scales + at, scale + from, 4);
        if (how.zeros) words[layout.zeros + at] = static_cast<uint32_t>((zero ? zero[from] : 0) + how.zero);
      }
    }
  });
}

// Chunk [begin, begin + size) of row r as integers; the rest of `out` up to its padded size is 0. Answers the scale.
template <class A>
static float chunk_digits(const WMatmulProblem& p, int64_t r, int64_t begin, int64_t size, int32_t* out) {
  const A* a = static_cast<const A*>(p.a) + r * p.a_row + begin * p.a_col;
  alignas(64) float x[kChunk + W];
  for (int64_t q = 0; q < size; q++) x[q] = one(a[q * p.a_col]);
  for (int64_t q = size; q < Chunks::padded(size) + W && q < kChunk + W; q++) x[q] = 0;
  vf top = set1(0.0f), taint = set1(0.0f);
  for (int64_t q = 0; q < size; q += W) {
    const vf v = load(x + q);
    top = max(abs(v), top);
    taint = fma(v, set1(0.0f), taint);
  }
  const float largest = reduce_max(top), tainted = reduce_add(taint);
  if (tainted != tainted) {  // the scale makes every result of the row NaN, but the integers are added up
    memset(out, 0, static_cast<size_t>(Chunks::padded(size)) * sizeof(int32_t));
    return kNaN;
  }
  // Below this the reciprocal could overflow, and such numbers count as 0.
  const bool none = largest < 1e-30f;
  const vf inverse = set1(none ? 0.0f : kLargestDigits / largest);
  for (int64_t q = 0; q < Chunks::padded(size); q += W) store_i(out + q, to_int(mul(load(x + q), inverse)));
  return none ? 0.0f : largest / kLargestDigits;
}

template <class T>
static void panel_digits(const WMatmulProblem& p, const Chunks& chunks, int64_t row, int64_t rows, uint32_t* words,
                         float* scale, int32_t* sum) {
  alignas(64) int32_t x[kChunk + W];
  for (int64_t g = 0; g < chunks.groups; g++) {
    for (int64_t c = 0; c < chunks.chunks_in_group; c++) {
      const int64_t begin = chunks.begin(g, c), size = chunks.size(g, c), quads = Chunks::padded(size) / 4;
      if (size <= 0) break;
      for (int64_t r = 0; r < rows; r++) {
        switch (p.a_type) {
          case DType::float16_: scale[r] = chunk_digits<f16>(p, row + r, begin, size, x); break;
          case DType::bfloat16_: scale[r] = chunk_digits<bf16>(p, row + r, begin, size, x); break;
          default: scale[r] = chunk_digits<float>(p, row + r, begin, size, x); break;
        }
        int32_t total = 0;
        for (int64_t q = 0; q < size; q++) total += x[q];
        sum[r] = total;
        for (int64_t q = 0; q < quads; q++) T::words(words + (q * rows + r) * 2, x + 4 * q);
      }
      words += quads * rows * 2;
      scale += rows;
      sum += rows;
    }
  }
}

// Vectors of C that a tile holds at most.
template <class T>
constexpr int kVectorsOf = T::kRoom / T::Dot::kParts;

using WTileFunction = void (*)(const WTileArgs&);

template <class T, bool zeros, int MR = 1>
static WTileFunction choose_wtile(int64_t rows, int vectors) {
  constexpr int room = kVectorsOf<T>;
  if constexpr (2 * (MR + 1) <= room) {
    if (rows > MR) return choose_wtile<T, zeros, MR + 1>(rows, vectors);
  }
  if (vectors == 2) return wtile<T, MR, 2, zeros>;
  if constexpr (MR * 4 <= room) {
    if (vectors == 4) return wtile<T, MR, 4, zeros>;
  }
  if constexpr (MR * 8 <= room) {
    if (vectors == 8) return wtile<T, MR, 8, zeros>;
  }
  return nullptr;
}

template <class T>
static bool wrun(const WMatmulProblem& p, const Chunks& chunks, const WLayout& layout, bool zeros) {
  constexpr int room = kVectorsOf<T>, rows_max = room / 2;
  const int64_t row_panels = ceil_div(p.m, rows_max);
  const RowPanels all{p.m, row_panels};
  const int64_t most = ceil_div(p.m, row_panels);
  const int64_t per_row = chunks.quads * 2 + chunks.total * 2;  // words: digits, then scale and sum of each chunk
  auto* a = static_cast<uint32_t*>(scratch(Scratch::digits, static_cast<size_t>(p.m * per_row) * 4));
  if (!a) return false;
  float* scales = reinterpret_cast<float*>(a + p.m * chunks.quads * 2);
  int32_t* sums = reinterpret_cast<int32_t*>(scales + p.m * chunks.total);
  parallel_if(p.m * p.k > 32 * 1024, row_panels, [&](int64_t panel) {
    const int64_t row = all.row_of(panel), rows = all.row_of(panel + 1) - row;
    panel_digits<typename T::Dot>(p, chunks, row, rows, a + row * chunks.quads * 2, scales + row * chunks.total,
                                  sums + row * chunks.total);
  });

  const int at_once = most * 8 <= room ? 8 : most * 4 <= room ? 4 : 2;  // vectors
  const double ns = 2.0 * static_cast<double>(p.m * p.n) * static_cast<double>(p.k) / T::kFlopsPerNs +
                    static_cast<double>(layout.words) / 10;
  const int64_t threads = ns < kSerialNs ? 1 : pool_threads();
  // Wide blocks for few rows: every switch to another block of columns restarts the prefetch.
  const int64_t col_blocks = threads == 1 ? 1 : min_of(ceil_div(layout.panels * kPanelVectors, at_once), 8 * threads);
  const int64_t row_blocks = min_of(row_panels, max_of(1, min_of(ceil_div(4 * threads, col_blocks), row_panels)));
  const auto* weights = static_cast<const uint32_t*>(p.packed);
  const auto* scale = reinterpret_cast<const float*>(weights + layout.scales);
  const auto* zero = reinterpret_cast<const int32_t*>(weights + layout.zeros);
  parallel_if(true, row_blocks * col_blocks, [&](int64_t task) {
    const int64_t row_block = task % row_blocks, col_block = task / row_blocks;
    const int64_t panel1 = (col_block + 1) * layout.panels / col_blocks;
    int64_t step;
    for (int64_t panel = col_block * layout.panels / col_blocks; panel < panel1; panel += step) {
      step = 1;
      while (step * 2 * kPanelVectors <= at_once && panel + step * 2 <= panel1) step *= 2;
      const int64_t col = panel * kPanel, cols = min_of(step * kPanel, p.n - col);
      const int vectors = static_cast<int>(step) * kPanelVectors;
      for (int64_t row_panel = row_block * row_panels / row_blocks; row_panel < (row_block + 1) * row_panels / row_blocks;
           row_panel++) {
        const int64_t row = all.row_of(row_panel), rows = all.row_of(row_panel + 1) - row;
        alignas(64) float tile[kVectorsOf<T> * W] = {};
        WTileArgs args{&chunks,
                       weights + panel * layout.panel,
                       layout.panel,
                       scale + panel * layout.scale_panel,
                       zero + panel * layout.scale_panel,
                       layout.scale_panel,
                       {a + row * chunks.quads * 2, scales + row * chunks.total, sums + row * chunks.total},
                       tile,
                       kStreamAhead / 4 / step};
        const WTileFunction run = zeros ? choose_wtile<T, true>(rows, vectors) : choose_wtile<T, false>(rows, vectors);
        run(args);
        for (int64_t r = 0; r < rows; r++) {
          const float* from = tile + r * vectors * W;
          const ColumnBias bias{p.bias ? p.bias + col : nullptr};
          const int64_t at = (row + r) * p.c_row + col;
          if (p.c_type == DType::float32_) finish_row(cols, from, static_cast<float*>(p.c) + at, bias, p.activation);
          else if (p.c_type == DType::float16_) finish_row(cols, from, static_cast<f16*>(p.c) + at, bias, p.activation);
          else finish_row(cols, from, static_cast<bf16*>(p.c) + at, bias, p.activation);
        }
      }
    }
  });
  return true;
}

template <class Format, class WBlocks>
struct WeightsIn : Format, WBlocks {};

// WBlocks says kRoom: registers for accumulators; and kFlopsPerNs.
template <class Dot, class WBlocks>
static bool wmatmul(const WMatmulProblem& p) {
  using Eight = WeightsIn<Weights8<Dot>, WBlocks>;
  using Four = WeightsIn<Weights4<Dot>, WBlocks>;
  if (p.m == 0 || p.n == 0) return true;
  const Chunks chunks(p.k, p.format.group);
  const bool zeros = stored<Dot>(p.format).zeros;
  const WLayout layout(chunks, p.n, p.format, zeros);
  return p.format.bits == 4 ? wrun<Four>(p, chunks, layout, zeros) : wrun<Eight>(p, chunks, layout, zeros);
}

template <class Dot, class WBlocks>
static WMatmulCell wmatmul_cell(const char* name) {
  return WMatmulCell{name, wpacked_bytes<Dot>, wpack<Dot>, wmatmul<Dot, WBlocks>};
}

}  // namespace kerf::KERF_TARGET
