// The register tile of matmul, written once on the SIMD vocabulary.
//
// A tile is MR rows x NV vectors of C held in registers. Per unit of k it loads NV vectors of B and broadcasts MR
// words of A; every word meets every vector, so with 14 x 2 on AVX-512 a unit costs 16 loads for 28 FMAs: the FMA
// pipes, not the load ports, are the limit. Each output is one chain of FMAs in the order of k whatever the blocking,
// because a tile that continues a product starts from C: results depend neither on block sizes nor on the number of
// threads.
//
// A dtype is described by a struct T:
//   In          element of a, b                       Unit      what one column of packed B stores per unit of k
//   kElements   elements of k in a unit               kSub      FMA steps in a unit, one word of packed A each
//   kRows       MR of the full tile                   step<s>   the s-th B vector of a loaded unit
//   kTogether   units that a tile takes at once: 1, or W where a tile is not of vectors (amx/tiles.h). Such a T packs A
//               in pieces of W words of a row and multiplies by multiply(args, rows, vectors), inside of a TileState
// f32 and f16 have one element a unit. bf16 stores pairs (k, k + 1): the dot-product instruction takes a pair as one
// step, and without it a shift and a mask turn the pair into two exact float32 steps. int8 stores quads; its sums are int32
// and travel as bit patterns in float registers (qmatmul_types.h).
#pragma once
#include "../core/kernels.h"
#include "../core/target.h"
#include "simd_math.h"

namespace kerf::KERF_TARGET {

constexpr int kPanelVectors = 2;
constexpr int kPanel = kPanelVectors * W;  // columns in a panel of packed B

template <class T>
struct TileArgs {
  int64_t units;
  const float* a;          // words; word w of row r is at a[w * a_word + r], or at a[r * a_row + w] in the direct form
  int64_t a_word, a_row;
  const typename T::Unit* b;
  int64_t b_unit, b_panel;  // steps from unit to unit, and from panel to panel (tiles wider than a panel)
  const int64_t* b_units;   // scattered B: unit u is at b + b_units[u]
  float* c;
  int64_t c_row;
  int64_t last;     // columns of the last vector, 1..W
  bool accumulate;   // start from C instead of zero
  int64_t distance;  // B is fetched into L1 this many elements of Unit early
  // What the next tiles will need: a line per unit from here on goes to L2, ahead_step bytes apart.
  const char* ahead;
  int64_t ahead_step;
};

enum class ASource { packed, direct };
enum class BSource { even, scattered };

template <class T, int MR, int NV, ASource source, BSource b_source>
static void tile(const TileArgs<T>& args) {
  const float* a = args.a;
  const int64_t a_word = args.a_word, a_row = args.a_row;
  const typename T::Unit* b = args.b;
  const int64_t b_unit = args.b_unit, b_panel = args.b_panel;
  const int64_t distance = args.distance, ahead_step = args.ahead_step;
  const char* ahead = args.ahead;
  vf acc[MR][NV];
  if (args.accumulate) {
#pragma GCC unroll 16
    for (int r = 0; r < MR; r++) {
      const float* c = args.c + r * args.c_row;
#pragma GCC unroll 8
      for (int v = 0; v < NV - 1; v++) acc[r][v] = load(c + v * W);
      acc[r][NV - 1] = load_n(c + (NV - 1) * W, args.last);
    }
  } else {
#pragma GCC unroll 16
    for (int r = 0; r < MR; r++)
#pragma GCC unroll 8
      for (int v = 0; v < NV; v++) acc[r][v] = set1(0.0f);
  }
  const int64_t* units = args.b_units;
  for (int64_t p = args.units; p > 0; p--) {
    if constexpr (b_source == BSource::scattered) b = args.b + *units++;
    typename T::Loaded loaded[NV];
#pragma GCC unroll 8
    for (int v = 0; v < NV; v++) {
      const typename T::Unit* from = b + (v / kPanelVectors) * b_panel + (v % kPanelVectors) * W;
      if (b_source == BSource::even && v % kPanelVectors * sizeof(typename T::Unit) * W % 64 == 0) __builtin_prefetch(from + distance);
      loaded[v] = T::load_units(from);
    }
#pragma GCC unroll 2
    for (int s = 0; s < T::kSub; s++) {
      vf bv[NV];
#pragma GCC unroll 8
      for (int v = 0; v < NV; v++) bv[v] = T::step(loaded[v], s);
#pragma GCC unroll 16
      for (int r = 0; r < MR; r++) {
        vf word = set1(source == ASource::direct ? a[r * a_row + s] : a[s * a_word + r]);
#pragma GCC unroll 8
        for (int v = 0; v < NV; v++) acc[r][v] = T::mac(word, bv[v], acc[r][v]);
      }
    }
    a += source == ASource::direct ? T::kSub : T::kSub * a_word;
    b += b_unit;
    if constexpr (NV <= kPanelVectors && b_source == BSource::even) {
      __builtin_prefetch(ahead, 0, 2);
      ahead += ahead_step;
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < MR; r++) {
    float* c = args.c + r * args.c_row;
#pragma GCC unroll 8
    for (int v = 0; v < NV - 1; v++) store(c + v * W, acc[r][v]);
    if (args.last == W) store(c + (NV - 1) * W, acc[r][NV - 1]);
    else store_n(c + (NV - 1) * W, acc[r][NV - 1], args.last);
  }
}

struct NoTileState {};  // what a T needs while its tiles run: of vectors nothing

template <class T>
using TileFunction = void (*)(const TileArgs<T>&);

// Tiles wider than a panel keep a few rows' accumulators in otherwise idle registers: several streams of B at once.
template <class T, int MR, ASource source, BSource b_source>
static TileFunction<T> tile_of_vectors(int vectors) {
  constexpr int room = T::kRows * kPanelVectors;
  switch (vectors) {
    case 1: return tile<T, MR, 1, source, b_source>;
    case 2: return tile<T, MR, 2, source, b_source>;
    case 4: if constexpr (MR * 4 <= room) return tile<T, MR, 4, source, b_source>; else return nullptr;
    case 8: if constexpr (MR * 8 <= room) return tile<T, MR, 8, source, b_source>; else return nullptr;
  }
  return nullptr;
}

template <class T, ASource source, BSource b_source = BSource::even, int MR = 1>
static TileFunction<T> choose_tile(int64_t rows, int vectors) {
  if constexpr (MR < T::kRows) {
    if (rows > MR) return choose_tile<T, source, b_source, MR + 1>(rows, vectors);
  }
  return tile_of_vectors<T, MR, source, b_source>(vectors);
}

template <class T, ASource source, BSource b_source = BSource::even>
static void multiply_tile(const TileArgs<T>& args, int64_t rows, int vectors) {
  if constexpr (T::kTogether > 1) T::multiply(args, rows, vectors);
  else choose_tile<T, source, b_source>(rows, vectors)(args);
}

}  // namespace kerf::KERF_TARGET
