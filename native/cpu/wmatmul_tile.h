// Weight-only matmul: float activations times 4- or 8-bit weights, for few rows a matter of the weights' bytes.
//
// Activations become 16-bit integers by a scale of their own for each chunk of k, so that the products are exact integers.
// The error is at most 0.504 / 32639 of the chunk's largest, about 2^-16 (docs/numerics.md):
//
//   y = sum over chunks  sx[chunk] s[group] (sum x u - z[group] sum x)        u = code as unsigned or signed byte
//
// A chunk is a group of weights, or 256 of k in a longer one: 255 * 32639 * 256 still fits int32. It is padded to a multiple
// of 8, so that no quad of weights lies in two groups. With a dot product of bytes an activation is two digits,
// 256 high + low; without one it is an int16 for vpmaddwd. The integers are the same either way, and so are the results of
// all targets but for their float32 sums.
//
// Packed weights: panels of kPanel columns; a lane of a unit is 4 bytes of k (8-bit) or 8 nibbles (4-bit, k .. k + 3 in
// the low halves, k + 4 .. k + 7 in the high ones). Then scales [panel][group][kPanel], then zero points if there are any.
//
// A dtype of weights and a dot product make T:  bits, and of its Dot: kParts accumulators a vector, kOffset of 8-bit
// codes, Weights prepare(quads), dot(accumulator, weights, word of A, which of a quad's two), total(accumulators).
#pragma once
#include "matmul_epilogue.h"
#include "matmul_pack.h"
#include "qmatmul_types.h"

namespace kerf::KERF_TARGET {

constexpr int64_t kChunk = 256;
constexpr float kLargestDigits = 32639;  // 127 * 256 + 127

// How k falls into groups and chunks, and how much of everything there is.
struct Chunks {
  int64_t k, group, groups;
  int64_t chunks_in_group, chunk;  // chunk: elements of k, unpadded (the last of a group may be shorter)
  int64_t total;                   // chunks
  int64_t quads;                   // of all chunks, padded

  Chunks(int64_t k_, int64_t group_) : k(k_), group(group_) {
    groups = ceil_div(k, group);
    chunks_in_group = ceil_div(group, kChunk);
    chunk = ceil_div(ceil_div(group, chunks_in_group), 8) * 8;
    const int64_t whole = k / group, rest = k % group;
    total = whole * ceil_div(group, chunk) + ceil_div(rest, chunk);
    quads = (whole * padded(group) + padded(rest)) / 4;  // all chunks but the last of a group are eights already
  }

  int64_t begin(int64_t g, int64_t c) const { return g * group + c * chunk; }
  int64_t size(int64_t g, int64_t c) const {
    const int64_t end = min_of(min_of(begin(g, c) + chunk, (g + 1) * group), k);
    return end - begin(g, c);
  }
  static int64_t padded(int64_t size) { return ceil_div(size, 8) * 8; }
};

// The activations of a row panel: two words for each quad and row, and for each chunk and row a scale and a sum.
struct Digits {
  const uint32_t* words;
  const float* scale;
  const int32_t* sum;
};

struct WTileArgs {
  const Chunks* chunks;
  const uint32_t* weights;  // of the first panel; a panel is `panel` words on
  int64_t panel;
  const float* scale;  // [group][kPanel] of the first panel; a panel is `scale_panel` on
  const int32_t* zero;
  int64_t scale_panel;
  Digits a;
  float* c;  // [rows][NV * W]
  int64_t distance;
};

template <class T, int MR, int NV, bool zeros>
static void wtile(const WTileArgs& args) {
  using Dot = typename T::Dot;
  const Chunks& chunks = *args.chunks;
  const uint32_t *weights = args.weights, *words = args.a.words;
  const int64_t panel = args.panel, distance = args.distance;
  const float* a_scale = args.a.scale;
  const int32_t* a_sum = args.a.sum;
  for (int64_t g = 0; g < chunks.groups; g++) {
    for (int64_t c = 0; c < chunks.chunks_in_group; c++) {
      const int64_t size = chunks.size(g, c);
      if (size <= 0) break;
      vi acc[MR][NV][Dot::kParts];
#pragma GCC unroll 16
      for (int r = 0; r < MR; r++)
#pragma GCC unroll 8
        for (int v = 0; v < NV; v++)
#pragma GCC unroll 2
          for (int part = 0; part < Dot::kParts; part++) acc[r][v][part] = set1i(0);
      for (int64_t unit = Chunks::padded(size) / (4 * T::kQuads); unit > 0; unit--) {
        vi loaded[NV];
#pragma GCC unroll 8
        for (int v = 0; v < NV; v++) {
          const uint32_t* from = weights + (v / kPanelVectors) * panel + (v % kPanelVectors) * W;
          if (v % kPanelVectors * sizeof(uint32_t) * W % 64 == 0) __builtin_prefetch(from + distance);
          loaded[v] = as_int(load(reinterpret_cast<const float*>(from)));
        }
#pragma GCC unroll 2
        for (int q = 0; q < T::kQuads; q++) {
          typename Dot::Weights w[NV];
#pragma GCC unroll 8
          for (int v = 0; v < NV; v++) w[v] = Dot::prepare(T::quads(loaded[v], q));
#pragma GCC unroll 16
          for (int r = 0; r < MR; r++) {
#pragma GCC unroll 2
            for (int i = 0; i < 2; i++) {
              const vi x = set1i(static_cast<int32_t>(words[(q * MR + r) * 2 + i]));
#pragma GCC unroll 8
              for (int v = 0; v < NV; v++) acc[r][v][i % Dot::kParts] = Dot::dot(acc[r][v][i % Dot::kParts], w[v], x, i);
            }
          }
        }
        // GCC 12 would otherwise keep a copy of every accumulator in memory for what follows, written in every unit.
#pragma GCC unroll 16
        for (int r = 0; r < MR; r++)
#pragma GCC unroll 8
          for (int v = 0; v < NV; v++)
#pragma GCC unroll 2
            for (int part = 0; part < Dot::kParts; part++) KERF_KEEP_IN_REGISTER(acc[r][v][part]);
        weights += kPanel;
        words += 2 * MR * T::kQuads;
      }
      const float* scale = args.scale + g * kPanel;
      const int32_t* zero = args.zero + g * kPanel;
#pragma GCC unroll 16
      for (int r = 0; r < MR; r++) {
        const vf sx = set1(a_scale[r]);
        const vi sum = set1i(a_sum[r]), constant = set1i(static_cast<int32_t>(static_cast<uint32_t>(a_sum[r]) * T::kZero));
#pragma GCC unroll 8
        for (int v = 0; v < NV; v++) {
          const int64_t at = (v / kPanelVectors) * args.scale_panel + (v % kPanelVectors) * W;
          vi x = Dot::total(acc[r][v]);
          x = sub_i(x, zeros ? mul_i(sum, load_i(zero + at)) : constant);
          float* to = args.c + (r * NV + v) * W;
          store(to, fma(to_float32(x), mul(sx, load(scale + at)), load(to)));
        }
      }
      a_scale += MR;
      a_sum += MR;
    }
  }
}

// ---- the ways to multiply

// vpmaddwd: signed bytes as pairs of int16.
struct PairsDot {
  static constexpr int kParts = 1;
  struct Weights {
    vi even, odd;
  };
  KERF_INLINE Weights prepare(vi quads) { return {even_bytes(quads), odd_bytes(quads)}; }
  KERF_INLINE vi dot(vi acc, const Weights& w, vi x, int word) { return add_i(acc, madd(word == 0 ? w.even : w.odd, x)); }
  KERF_INLINE vi total(const vi* acc) { return acc[0]; }
  // The two words of a quad of activations.
  KERF_INLINE void words(uint32_t* out, const int32_t* x) {
    out[0] = static_cast<uint32_t>(x[0] & 0xffff) | static_cast<uint32_t>(x[2]) << 16;
    out[1] = static_cast<uint32_t>(x[1] & 0xffff) | static_cast<uint32_t>(x[3]) << 16;
  }
  static constexpr int32_t kOffset = 0;  // of 8-bit codes: signed bytes
};

template <class D>
struct Weights8 {
  using Dot = D;
  static constexpr int kQuads = 1;
  static constexpr uint32_t kZero = D::kOffset;
  KERF_INLINE vi quads(vi loaded, int) { return loaded; }
};

template <class D>
struct Weights4 {
  using Dot = D;
  static constexpr int kQuads = 2;
  static constexpr uint32_t kZero = 8;  // signed codes are stored 8 more
  KERF_INLINE vi quads(vi loaded, int q) {
    return and_i(q == 0 ? loaded : shift_right<4>(loaded), set1i(0x0f0f0f0f));
  }
};

}  // namespace kerf::KERF_TARGET
