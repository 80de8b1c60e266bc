// Convolution as products of matrices whose right side is the matrix of patches (conv_planes.h), on matmul's tiles:
//
//   forward          out[o][pixel]   = sum over taps of    weight[o][tap] * patch[tap][pixel]
//   weight gradient  dweight[o][tap] = sum over pixels of  grad[o][pixel] * patch[tap][pixel]     (conv_weight_grad.h)
//
// Patches are gathered just before their tiles run, a slice of a few panels of 32 columns at a time that the L1 or L2 cache
// holds, so the matrix of patches takes no memory. The input's gradient is a forward product too, with turned weights
// (lib/ops/conv.ts). Forward:
//
//   pack the weights
//   for each task, a run of column panels, on the pool:
//     for each strip of panels:
//       for each slice of k:  gather the strip's patches;  for each row panel, for each panel of the strip: tile
//       bias, activation, and each pixel to its place
#pragma once
#include <type_traits>
#include "conv_direct.h"
#include "matmul_types.h"

namespace kerf::KERF_TARGET {

// Units of k in a slice: a panel of B takes 24 KiB of the 32 to 48 KiB of L1.
constexpr int64_t kSliceBytes = 24 << 10;
// Packed weights up to this stay in L2 while one panel of B after the other passes; larger ones are read once for several.
constexpr int64_t kWeightsInL2 = 640 << 10;
constexpr int64_t kStripBytes = 128 << 10;

// What a convolution's planes and taps are for all of its groups and images.
template <class In>
struct Patches {
  ConvSizes sizes;
  Planes<In> planes;
  const int64_t* taps;
  int64_t highest_tap;

  // Elements that may be read beyond the largest tap of a group.
  int64_t room(int64_t group_offset) const { return planes.elements - group_offset - highest_tap; }
};

// Lays images in turns and calls body(patches, first image, images); false when memory is exhausted.
template <class In, class Body>
static bool for_laid_images(const ConvShape& s, const void* x, Body&& body) {
  Patches<In> p;
  p.sizes = sizes_of(s);
  if (p.sizes.pixels == 0 || s.images == 0) return true;
  int64_t* taps = static_cast<int64_t*>(scratch(Scratch::taps, static_cast<size_t>(p.sizes.taps + 1) * sizeof(int64_t)));
  if (!taps) return false;
  find_taps(s, steps_of(s, p.sizes), taps);
  p.taps = taps;
  p.highest_tap = 0;
  for (int64_t t = 0; t < p.sizes.taps; t++) p.highest_tap = max_of(p.highest_tap, taps[t]);
  const int64_t at_once = images_at_once(s, p.sizes, sizeof(In));
  for (int64_t image = 0; image < s.images; image += at_once) {
    const int64_t images = min_of(at_once, s.images - image);
    if (!lay_planes(s, p.sizes, static_cast<const In*>(x), image, images, p.planes)) return false;
    if (!body(p, image, images)) return false;
  }
  return true;
}

// The tile that multiplies: 16-bit floats that have no instruction of their own are widened when they are gathered.
template <class T>
using ConvTile = std::conditional_t<T::kWidens, typename T::Wide, T>;

// One group's product.
template <class T>
struct ConvProduct {
  const ConvProblem* problem;
  const Patches<typename T::In>* patches;
  int64_t m, n, k;
  int64_t units;       // of the tile
  int64_t words;       // of packed weights in a row
  int64_t row_panels, col_panels;
  int64_t group_offset;
  const float* weights;  // row panels, each [words][rows]
  const float* bias;
  char* out;  // of the first image

  int64_t row_of(int64_t panel) const { return panel * (m / row_panels) + min_of(panel, m % row_panels); }
};

// A panel of patches: columns [col, col + width), taps [k0, k0 + k).
template <class T>
static void gather_panel(const ConvProduct<T>& x, typename ConvTile<T>::Unit* out, int64_t col, int64_t width, int64_t k0, int64_t k) {
  using In = typename T::In;
  const auto& p = *x.patches;
  Piece pieces[kPanel];
  Gather<In, In> g;
  const int number = cut_pixels(p.planes.step, x.problem->shape.out_w, p.sizes.pixels, col, col + width, pieces);
  const In* from = p.planes.x + x.group_offset;
  const int64_t room = p.room(x.group_offset);
  if constexpr (ConvTile<T>::kElements == 1) {
    gather(Gather<In, typename ConvTile<T>::Unit>{from, pieces, number, p.taps + k0, k, out, kPanel}, room);
  } else {
    constexpr int64_t kTaps = 32 * T::kElements;
    In stage[kTaps * kPanel + W];
    g = {from, pieces, number, p.taps + k0, 0, stage, kPanel};
    for (int64_t t = 0; t < k; t += kTaps, out += 32 * kPanel) {
      g.taps = p.taps + k0 + t;
      g.count = min_of(kTaps, k - t);
      gather(g, room);
      pack_b_panel<T>(out, stage, g.count, kPanel, kPanel, 1);
    }
  }
}

// The sums of rows [row, row + rows) and columns [col, col + cols) go where their pixels are: a row is an output channel.
template <class T>
static void place_sums(const ConvProduct<T>& x, const float* sums, int64_t sums_row, int64_t row, int64_t rows, int64_t col, int64_t cols) {
  const ConvProblem& p = *x.problem;
  const int64_t pixels = x.patches->sizes.pixels, image_step = p.shape.groups * x.m * pixels;
  for (int64_t done = 0; done < cols;) {
    const int64_t image = (col + done) / pixels, pixel = (col + done) % pixels, run = min_of(pixels - pixel, cols - done);
    for (int64_t r = 0; r < rows; r++) {
      const RowBias bias{x.bias ? x.bias[row + r] : 0.0f};
      const float* from = sums + r * sums_row + done;
      const int64_t at = image * image_step + (row + r) * pixels + pixel;
      if (p.out_type == DType::float32_) {
        finish_row(run, from, reinterpret_cast<float*>(x.out) + at, bias, p.activation);
      } else if constexpr (sizeof(typename T::In) == 2) {
        finish_row(run, from, reinterpret_cast<typename T::In*>(x.out) + at, bias, p.activation);
      }
    }
    done += run;
  }
}

// Column panels [begin, end). False when memory is exhausted.
template <class T>
static bool conv_panels(const ConvProduct<T>& x, int64_t begin, int64_t end) {
  using Tile = ConvTile<T>;
  using Unit = typename Tile::Unit;
  const int64_t slice_units = kSliceBytes / (kPanel * static_cast<int64_t>(sizeof(Unit)));
  const int64_t slices = max_of(1, ceil_div(x.units, slice_units));
  const int64_t panel_units = ceil_div(x.units, slices);
  const bool streams = x.m * x.words * 4 > kWeightsInL2;
  const int64_t panel_bytes = max_of(1, panel_units * kPanel * static_cast<int64_t>(sizeof(Unit)));
  // Few rows take two panels in one tile.
  const int64_t step = x.row_panels == 1 && x.m * 4 <= Tile::kRows * kPanelVectors ? 2 : 1;
  const int64_t strip = streams ? max_of(step, kStripBytes / panel_bytes / step * step) : step;
  const int64_t sums_row = strip * kPanel;
  auto* panels = static_cast<Unit*>(scratch(Scratch::patches, static_cast<size_t>(strip * panel_units * kPanel + W) * sizeof(Unit)));
  auto* sums = static_cast<float*>(scratch(Scratch::convert, static_cast<size_t>(x.m * sums_row) * sizeof(float)));
  if (!panels || !sums) return false;
  for (int64_t first = begin; first < end; first += strip) {
    const int64_t number = min_of(strip, end - first), col0 = first * kPanel, cols = min_of(number * kPanel, x.n - col0);
    for (int64_t slice = 0; slice < slices; slice++) {
      const int64_t unit0 = slice * x.units / slices, units = (slice + 1) * x.units / slices - unit0;
      const int64_t k0 = unit0 * Tile::kElements, k = min_of(units * Tile::kElements, x.k - k0);
      for (int64_t i = 0; i < number; i++)
        gather_panel(x, panels + i * units * kPanel, col0 + i * kPanel, min_of(kPanel, cols - i * kPanel), k0, k);
      for (int64_t panel = 0; panel < x.row_panels; panel++) {
        const int64_t row = x.row_of(panel), height = x.row_of(panel + 1) - row;
        TileArgs<Tile> args;
        args.units = units;
        args.a = x.weights + row * x.words + unit0 * Tile::kSub * height;
        args.a_word = height;
        args.a_row = 1;
        args.b_unit = kPanel;
        args.b_panel = units * kPanel;
        args.c_row = sums_row;
        args.accumulate = slice > 0;
        args.distance = 0;
        args.ahead = reinterpret_cast<const char*>(args.a);
        args.ahead_step = 0;
        for (int64_t i = 0; i < number; i += step) {
          const int64_t width = min_of(step * kPanel, cols - i * kPanel);
          const int vectors = static_cast<int>(width <= W ? 1 : width <= kPanel ? kPanelVectors : step * kPanelVectors);
          args.b = panels + i * args.b_panel;
          args.c = sums + row * sums_row + i * kPanel;
          args.last = width - (vectors - 1) * W;
          choose_tile<Tile, ASource::packed>(height, vectors)(args);
        }
        if (slice + 1 == slices) place_sums(x, sums + row * sums_row, sums_row, row, height, col0, cols);
      }
    }
  }
  return true;
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
  ConvProduct<T> x;
  x.problem = &conv;
  x.m = s.out_channels;
  x.k = s.channels * s.kernel_h * s.kernel_w;
  x.units = units_of<ConvTile<T>>(x.k);
  x.words = units_of<T>(x.k) * T::kSub;
  x.row_panels = ceil_div(x.m, T::kRows);
  const bool direct = x.m <= kDirectRows;
  float* weights = nullptr;
  if (!direct) {
    weights = static_cast<float*>(scratch(Scratch::pack_a, static_cast<size_t>(s.groups * x.m * x.words + 1) * sizeof(float)));
    if (!weights) return false;
    parallel_if(s.groups * x.m * x.k > 64 * 1024, s.groups,
                [&](int64_t group) { pack_weights(conv, group, weights + group * x.m * x.words, x); });
  }
  return for_laid_images<In>(s, conv.x, [&](const Patches<In>& p, int64_t image, int64_t images) {
    if (direct) return run_direct<In>(conv, p.sizes, p.planes, p.taps, p.highest_tap, image, images);
    x.patches = &p;
    x.n = images * p.sizes.pixels;
    x.col_panels = ceil_div(x.n, kPanel);
    const int64_t out_bytes = conv.out_type == DType::float32_ ? 4 : static_cast<int64_t>(sizeof(In));
    const double panel_ns = 2.0 * static_cast<double>(x.m * x.k * kPanel) / T::kFlopsPerNs + static_cast<double>(x.k) * 3;
    int32_t failed = 0;
    for (int64_t group = 0; group < s.groups; group++) {
      x.group_offset = group * s.channels * p.planes.step.channel;
      x.weights = weights + group * x.m * x.words;
      x.bias = conv.bias ? conv.bias + group * x.m : nullptr;
      x.out = static_cast<char*>(conv.out) + (image * s.groups + group) * x.m * p.sizes.pixels * out_bytes;
      // Tasks of equal size, a few for each thread and none too short.
      const double ns = panel_ns * static_cast<double>(x.col_panels);
      const int64_t most = ns < kSerialNs ? 1 : min_of(8 * pool_threads(), static_cast<int64_t>(ns / kTaskNs) + 1);
      const int64_t tasks = pool_threads() == 1 ? 1 : min_of(most, x.col_panels);
      parallel_if(true, tasks, [&](int64_t task) {
        if (!conv_panels(x, task * x.col_panels / tasks, (task + 1) * x.col_panels / tasks)) __atomic_store_n(&failed, 1, __ATOMIC_RELAXED);
      });
    }
    return !failed;
  });
}

}  // namespace kerf::KERF_TARGET
