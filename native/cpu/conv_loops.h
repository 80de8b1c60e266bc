// Convolution as products of matrices whose right side is the matrix of patches (conv_planes.h), on matmul's tiles:
//
//   forward          out[o][pixel]   = sum over taps of    weight[o][tap] * patch[tap][pixel]
//   weight gradient  dweight[o][tap] = sum over pixels of  grad[o][pixel] * patch[tap][pixel]     (conv_weight_grad.h)
//
// Patches are gathered just before their tiles run, a slice of a few panels of 32 columns at a time that the L1 or L2 cache
// holds, so the matrix of patches takes no memory. The input's gradient is a forward product too, with turned weights
// (lib/ops/convolve.ts). Forward:
//
//   pack the weights
//   for each chunk of output pixels (conv_chunks.h), on the pool:
//     lay its planes
//     for each group, for each strip of column panels:
//       for each slice of k:  gather the strip's patches;  for each row panel, for each panel of the strip: tile
//       bias, activation, and each pixel to its place
//
// Where output rows are as far apart as input rows (float32, row stride 1), tiles read the planes themselves: columns then count
// on from row to row, over the few planes' columns that are no pixel, and every tap is the same run of memory, shifted.
#pragma once
#include <type_traits>
#include "conv_direct.h"
#include "conv_place.h"
#include "matmul_types.h"

namespace kerf::KERF_TARGET {

// Of a panel of B in a slice of k: half of L1 or more (32 to 48 KiB).
constexpr int64_t kSliceBytes = 24 << 10;
// Packed weights up to this stay in L2 while one panel of B after the other passes; larger ones are read once for several.
constexpr int64_t kWeightsInL2 = 640 << 10;
constexpr int64_t kStripBytes = 128 << 10;

// The tile that multiplies: 16-bit floats that have no instruction of their own are widened when they are gathered.
template <class T>
using ConvTile = std::conditional_t<T::kWidens, typename T::Wide, T>;

// Whether tiles can read float32 planes: a unit of B is an element of the input.
template <class T>
constexpr bool kReadsPlanes = std::is_same_v<typename ConvTile<T>::Unit, typename T::In> && ConvTile<T>::kElements == 1;

template <class T>
struct ConvProduct : RowPanels {  // m: output channels of a group
  const ConvProblem* problem;
  const Patches* patches;
  int64_t k;             // taps of a group
  int64_t units;         // of the tile
  int64_t words;         // of packed weights in a row
  const float* weights;  // groups, each row panels, each [words][rows]

  bool streams_weights() const { return m * words * 4 > kWeightsInL2; }
};

// A panel of patches: columns [col, col + width) of the chunk, taps [k0, k0 + k).
template <class T>
static void gather_panel(const ConvProduct<T>& x, const Planes<typename T::In>& planes, int64_t group, typename ConvTile<T>::Unit* out,
                         int64_t col, int64_t width, int64_t k0, int64_t k) {
  using In = typename T::In;
  const Patches& p = *x.patches;
  Piece pieces[kPanel];
  const int number = cut_pixels(p, planes.pixels, col, col + width, pieces);
  const In* from = planes.x + planes.offset(p, group);
  const int64_t room = planes.room(p, group);
  if constexpr (ConvTile<T>::kElements == 1) {
    gather(Gather<In, typename ConvTile<T>::Unit>{from, pieces, number, p.taps + k0, k, out, kPanel}, room);
  } else {
    constexpr int64_t kTaps = 32 * T::kElements;
    In stage[kTaps * kPanel + W];
    Gather<In, In> g{from, pieces, number, nullptr, 0, stage, kPanel};
    for (int64_t t = 0; t < k; t += kTaps, out += 32 * kPanel) {
      g.taps = p.taps + k0 + t;
      g.count = min_of(kTaps, k - t);
      gather(g, room);
      pack_b_panel<T>(out, stage, g.count, kPanel, kPanel, 1);
    }
  }
}

// place_sums() where columns run along an image's planes, `pitch` a row: those beyond out_w are no pixels.
template <class T>
static void place_lines(const ConvProduct<T>& x, const PixelChunk& chunk, int64_t image, int64_t group, const float* sums, int64_t sums_row,
                        int64_t row, int64_t rows, int64_t col, int64_t cols) {
  const int64_t pitch = x.patches->step.pitch, out_w = x.patches->shape.out_w;
  for (int64_t done = 0; done < cols;) {
    const int64_t y = (col + done) / pitch, at = (col + done) % pitch, run = min_of(out_w - at, cols - done);
    if (run > 0) {
      const PixelChunk line{chunk.image + image, 1, chunk.row + y, 1};
      place_sums<typename T::In>(*x.problem, line, group, sums + done, sums_row, row, rows, at, run);
    }
    done += min_of(pitch - at, cols - done);
  }
}

// How a chunk's columns are worked on.
template <class T>
struct ConvBlocking {
  using Unit = typename ConvTile<T>::Unit;
  int64_t all_units, slices, slice_units;  // of k; a slice has at most so many
  int64_t step;                 // panels in a tile: few rows take two
  int64_t strip;                // panels for which the weights are read once

  explicit ConvBlocking(const ConvProduct<T>& x) : all_units(x.units) {
    constexpr int64_t panel_row = kPanel * static_cast<int64_t>(sizeof(Unit));
    slices = max_of(1, ceil_div(x.units, kSliceBytes / panel_row));
    slice_units = row_units<T>(ceil_div(x.units, slices) + T::kTogether - 1);
    step = vectors_at_once<ConvTile<T>>(x.m) / kPanelVectors;
    strip = x.streams_weights() ? max_of(step, kStripBytes / max_of(1, slice_units * panel_row) / step * step) : step;
  }
  int64_t unit_of(int64_t slice) const {
    return slice == slices ? all_units : slice * all_units / slices / T::kTogether * T::kTogether;
  }
};

// Columns [0, n) of a group by strips: `feed(args, col, cols, k0, k)` says where the tiles of a strip and a slice find B,
// `place(sums, sums_row, row, rows, col, cols)` takes the sums. False when memory is exhausted.
template <class T, BSource b_source, class Feed, class Place>
static bool conv_columns(const ConvProduct<T>& x, const ConvBlocking<T>& by, int64_t group, int64_t n, Feed&& feed, Place&& place) {
  using Tile = ConvTile<T>;
  const int64_t col_panels = ceil_div(n, kPanel), sums_row = by.strip * kPanel;
  auto* sums = static_cast<float*>(scratch(Scratch::convert, static_cast<size_t>(x.m * sums_row) * sizeof(float)));
  if (!sums) return false;
  const float* weights = x.weights + group * x.m * x.words;
  [[maybe_unused]] const typename Tile::TileState state;
  for (int64_t first = 0; first < col_panels; first += by.strip) {
    const int64_t number = min_of(by.strip, col_panels - first), col0 = first * kPanel, cols = min_of(number * kPanel, n - col0);
    for (int64_t slice = 0; slice < by.slices; slice++) {
      const int64_t unit0 = by.unit_of(slice), units = by.unit_of(slice + 1) - unit0;
      TileArgs<Tile> args;
      args.units = units;
      args.a_row = 1;
      args.c_row = sums_row;
      args.accumulate = slice > 0;
      args.distance = 0;
      args.ahead_step = 0;
      feed(args, col0, cols, unit0 * Tile::kElements, min_of(units * Tile::kElements, x.k - unit0 * Tile::kElements));
      const auto* b = args.b;
      for (int64_t panel = 0; panel < x.row_panels; panel++) {
        const int64_t row = x.row_of(panel), height = x.row_of(panel + 1) - row;
        args.a = weights + row * x.words + unit0 * Tile::kSub * height;
        args.a_word = height;
        args.ahead = reinterpret_cast<const char*>(args.a);
        for (int64_t i = 0, some; i < number; i += some) {
          some = (i + by.step) * kPanel <= cols ? by.step : 1;  // only whole panels share a tile
          const int64_t width = min_of(some * kPanel, cols - i * kPanel);
          const int vectors = static_cast<int>(width <= W ? 1 : some * kPanelVectors);
          args.b = b + i * args.b_panel;
          args.c = sums + row * sums_row + i * kPanel;
          args.last = width - (vectors - 1) * W;
          multiply_tile<Tile, ASource::packed, b_source>(args, height, vectors);
        }
        if (slice + 1 == by.slices) place(sums + row * sums_row, sums_row, row, height, col0, cols);
      }
    }
  }
  return true;
}

// Cycles of a tap that gathering a panel costs; a row of the product costs one.
constexpr double kGatherCycles = 8;

// Whether tiles should read a chunk's planes themselves.
template <class T>
static bool reads_lines(const ConvProduct<T>& x, const Planes<typename T::In>& planes, const PixelChunk& chunk, int64_t group) {
  const Patches& p = *x.patches;
  if (p.step.down != p.step.pitch) return false;
  const int64_t line = (chunk.rows - 1) * p.step.pitch + p.shape.out_w, panels = ceil_div(line, kPanel);
  if ((chunk.images - 1) * p.step.image + ceil_div(panels, 2) * 2 * kPanel > planes.room(p, group)) return false;
  const double lines = static_cast<double>(chunk.images * panels * x.m);
  return lines < static_cast<double>(ceil_div(chunk.images * planes.pixels, kPanel)) * (static_cast<double>(x.m) + kGatherCycles);
}

// A chunk's pixels for one group. False when memory is exhausted.
template <class T>
static bool conv_chunk(const ConvProduct<T>& x, const Planes<typename T::In>& planes, const PixelChunk& chunk, int64_t group) {
  using Tile = ConvTile<T>;
  const ConvBlocking<T> by(x);
  const Patches& p = *x.patches;
  if constexpr (kReadsPlanes<T>) {
    if (reads_lines(x, planes, chunk, group)) {
      const int64_t line = (chunk.rows - 1) * p.step.pitch + p.shape.out_w;
      for (int64_t image = 0; image < chunk.images; image++) {
        const auto* from = planes.x + planes.offset(p, group) + image * p.step.image;
        const bool fine = conv_columns<T, BSource::scattered>(
            x, by, group, line,
            [&](TileArgs<Tile>& args, int64_t col, int64_t, int64_t k0, int64_t) {
              args.b = from + col;
              args.b_units = p.taps + k0;
              args.b_unit = 0;
              args.b_panel = kPanel;
            },
            [&](const float* sums, int64_t sums_row, int64_t row, int64_t rows, int64_t col, int64_t cols) {
              place_lines(x, chunk, image, group, sums, sums_row, row, rows, col, cols);
            });
        if (!fine) return false;
      }
      return true;
    }
  }
  using Unit = typename Tile::Unit;
  auto* panels = static_cast<Unit*>(scratch(Scratch::patches, static_cast<size_t>(by.strip * by.slice_units * kPanel + W) * sizeof(Unit)));
  if (!panels) return false;
  return conv_columns<T, BSource::even>(
      x, by, group, chunk.images * planes.pixels,
      [&](TileArgs<Tile>& args, int64_t col, int64_t cols, int64_t k0, int64_t k) {
        args.b = panels;
        args.b_units = nullptr;
        args.b_unit = kPanel;
        args.b_panel = args.units * kPanel;
        for (int64_t i = 0; i * kPanel < cols; i++)
          gather_panel(x, planes, group, panels + i * args.b_panel, col + i * kPanel, min_of(kPanel, cols - i * kPanel), k0, k);
      },
      [&](const float* sums, int64_t sums_row, int64_t row, int64_t rows, int64_t col, int64_t cols) {
        place_sums<typename T::In>(*x.problem, chunk, group, sums, sums_row, row, rows, col, cols);
      });
}

template <class T>
static void pack_weights(const ConvProblem& p, int64_t group, float* out, const ConvProduct<T>& x) {
  const auto* from = static_cast<const typename T::In*>(p.weight) + group * x.m * x.k;
  for (int64_t panel = 0; panel < x.row_panels; panel++) {
    const int64_t row = x.row_of(panel), rows = x.row_of(panel + 1) - row;
    pack_a_panel<T>(out + row * x.words, from + row * x.k, rows, x.k, x.k, 1);
  }
}

template <class T>
static bool run_conv(const ConvProblem& conv) {
  using In = typename T::In;
  const ConvShape& s = conv.shape;
  if (s.images * s.out_h * s.out_w * s.out_channels == 0) return true;
  ConvProduct<T> x;
  x.problem = &conv;
  x.m = s.out_channels;
  x.k = s.channels * s.kernel_h * s.kernel_w;
  x.units = units_of<ConvTile<T>>(x.k);
  x.words = row_units<T>(units_of<T>(x.k)) * T::kSub;
  x.row_panels = ceil_div(x.m, T::kRows);
  const bool direct = x.m <= kDirectRows;
  float* weights = static_cast<float*>(scratch(Scratch::pack_a, static_cast<size_t>(s.groups * x.m * x.words + kBeyondA<T> + 1) * sizeof(float)));
  if (!weights) return false;
  if (direct) {
    pack_direct<In>(conv, x.k, weights);
  } else {
    parallel_if(s.groups * x.m * x.k > 64 * 1024, s.groups,
                [&](int64_t group) { pack_weights(conv, group, weights + group * x.m * x.words, x); });
  }
  x.weights = weights;
  const double pixels = static_cast<double>(s.images * s.out_h * s.out_w);
  const double ns = pixels * static_cast<double>(s.groups) *
                    (2.0 * static_cast<double>(x.m * x.k) / T::kFlopsPerNs + static_cast<double>(x.k) / 10);
  const int64_t threads = ns < kSerialNs ? 1 : pool_threads();
  Patches p;
  // Weights that no cache holds are read once for every chunk: then one for each thread, else a few.
  const int64_t tasks = x.streams_weights() ? threads : 4 * threads;
  if (!describe_patches(s, sizeof(In), threads == 1 ? 1 : min_of(tasks, static_cast<int64_t>(ns / kTaskNs) + 1), p)) return false;
  x.patches = &p;
  int32_t failed = 0;
  const auto run = [&](int64_t i) {
    const PixelChunk chunk = p.chunk(i);
    Planes<In> planes;
    if (!lay_chunk(p, conv.x, chunk, 0, s.groups * s.channels, planes)) return false;
    if (direct) {
      direct_chunk(conv, p, planes, chunk, weights);
      return true;
    }
    for (int64_t group = 0; group < s.groups; group++)
      if (!conv_chunk(x, planes, chunk, group)) return false;
    return true;
  };
  parallel_if(threads > 1, p.chunks, [&](int64_t i) {
    if (!run(i)) __atomic_store_n(&failed, 1, __ATOMIC_RELAXED);
  });
  return !failed;
}

}  // namespace kerf::KERF_TARGET
