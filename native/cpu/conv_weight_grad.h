// The weight gradient of a convolution: dweight[o][tap] = sum over pixels of grad[o][pixel] * patch[tap][pixel], a product
// whose columns are taps. Each slice of pixels is packed once and meets all taps; sums stay in dweight (float32).
//
// A product too small for the threads (few channels, few taps) is cut along its pixels into parts, as many as its shape
// says and not the number of threads; their sums are added in order.
#pragma once
#include "conv_loops.h"

namespace kerf::KERF_TARGET {

constexpr int64_t kPixelSlice = 512;
constexpr int64_t kPixelStage = 128;  // pixels that are gathered before they are turned around
constexpr int64_t kLeastTiles = 8, kMostParts = 8, kLeastPart = 4096;

template <class T>
struct WeightGradProduct {
  const ConvShape* shape;
  const Patches<typename T::In>* patches;
  int64_t m, n;              // output channels, taps
  int64_t slices, per_image;  // of all images; of one
  int64_t row_panels, col_panels;
  int64_t group_offset;
  const typename T::In* grad;  // of the first image, this group
  int64_t grad_image;          // elements between images

  int64_t row_of(int64_t panel) const { return panel * (m / row_panels) + min_of(panel, m % row_panels); }
};

// Pixels [pixel, pixel + count) of an image for `width` taps from `col` on, as a panel of B.
template <class T>
static void gather_taps(const WeightGradProduct<T>& x, typename T::Unit* out, int64_t image, int64_t pixel, int64_t count, int64_t col, int64_t width) {
  using In = typename T::In;
  constexpr int64_t kPitch = kPixelStage + W;
  const auto& p = *x.patches;
  In stage[kPanel * kPitch];
  Piece pieces[kPixelStage];
  for (int64_t done = 0; done < count; done += kPixelStage) {
    const int64_t some = min_of(kPixelStage, count - done), begin = image * p.sizes.pixels + pixel + done;
    const int number = cut_pixels(p.planes.step, x.shape->out_w, p.sizes.pixels, begin, begin + some, pieces);
    gather(Gather<In, In>{p.planes.x + x.group_offset, pieces, number, p.taps + col, width, stage, kPitch}, p.room(x.group_offset));
    pack_b_panel<T>(out, stage, some, width, 1, kPitch);
    out += units_of<T>(some) * kPanel;
  }
}

// Adds slices [begin, end) to sums [m, n], or starts from 0; column panels [col0, col1). False when memory is exhausted.
template <class T>
static bool weight_grad_block(const WeightGradProduct<T>& x, float* sums, bool accumulate, int64_t begin, int64_t end, int64_t col0, int64_t col1) {
  using Unit = typename T::Unit;
  const int64_t most_units = units_of<T>(kPixelSlice) + ceil_div(kPixelSlice, kPixelStage);
  auto* a = static_cast<float*>(scratch(Scratch::pack_a, static_cast<size_t>(x.m * most_units * T::kSub) * sizeof(float)));
  auto* b = static_cast<Unit*>(scratch(Scratch::patches, static_cast<size_t>(most_units * kPanel) * sizeof(Unit)));
  if (!a || !b) return false;
  const int64_t pixels = x.patches->sizes.pixels;
  for (int64_t slice = begin; slice < end; slice++) {
    const int64_t image = slice / x.per_image, part = slice % x.per_image;
    const int64_t pixel = part * kPixelSlice, count = min_of(kPixelSlice, pixels - pixel), units = units_of<T>(count);
    for (int64_t panel = 0; panel < x.row_panels; panel++) {
      const int64_t row = x.row_of(panel), rows = x.row_of(panel + 1) - row;
      pack_a_panel<T>(a + row * units * T::kSub, x.grad + image * x.grad_image + row * pixels + pixel, rows, count, pixels, 1);
    }
    for (int64_t col_panel = col0; col_panel < col1; col_panel++) {
      const int64_t col = col_panel * kPanel, width = min_of(kPanel, x.n - col);
      gather_taps(x, b, image, pixel, count, col, width);
      const int vectors = width <= W ? 1 : kPanelVectors;
      TileArgs<T> args;
      args.units = units;
      args.a_row = 1;
      args.b = b;
      args.b_unit = kPanel;
      args.b_panel = 0;
      args.c_row = x.n;
      args.last = width - (vectors - 1) * W;
      args.accumulate = accumulate || slice > begin;
      args.distance = T::kPrefetch;
      args.ahead = reinterpret_cast<const char*>(b);
      args.ahead_step = 0;
      for (int64_t panel = 0; panel < x.row_panels; panel++) {
        const int64_t row = x.row_of(panel), height = x.row_of(panel + 1) - row;
        args.a = a + row * units * T::kSub;
        args.a_word = height;
        args.c = sums + row * x.n + col;
        choose_tile<T, ASource::packed>(height, vectors)(args);
      }
    }
  }
  return true;
}

// A group's sums of all laid images, added to `to` unless these are the first.
template <class T>
static bool weight_grad_group(const WeightGradProduct<T>& x, float* to, bool later) {
  const int64_t elements = x.m * x.n, tiles = x.row_panels * x.col_panels, pixels = x.slices * kPixelSlice;
  const double ns = 2.0 * static_cast<double>(elements) * static_cast<double>(pixels) / T::kFlopsPerNs;
  const bool alone = ns < kSerialNs || pool_threads() == 1;
  int32_t failed = 0;
  const auto note = [&](bool fine) { if (!fine) __atomic_store_n(&failed, 1, __ATOMIC_RELAXED); };
  const int64_t parts = tiles < kLeastTiles ? min_of(kMostParts, pixels / kLeastPart) : 0;
  if (parts > 1) {
    float* sums = static_cast<float*>(scratch(Scratch::convert, static_cast<size_t>(parts * elements) * sizeof(float)));
    if (!sums) return false;
    parallel_if(!alone, parts, [&](int64_t part) {
      note(weight_grad_block(x, sums + part * elements, false, part * x.slices / parts, (part + 1) * x.slices / parts, 0, x.col_panels));
    });
    for (int64_t i = 0; i < elements; i++) {
      float sum = later ? to[i] : 0.0f;
      for (int64_t part = 0; part < parts; part++) sum += sums[part * elements + i];
      to[i] = sum;
    }
    return !failed;
  }
  const int64_t tasks = alone ? 1 : min_of(x.col_panels, 2 * pool_threads());
  parallel_if(true, tasks, [&](int64_t task) {
    note(weight_grad_block(x, to, later, 0, x.slices, task * x.col_panels / tasks, (task + 1) * x.col_panels / tasks));
  });
  return !failed;
}

template <class T>
static bool run_conv_weight_grad(const ConvGradProblem& conv) {
  using In = typename T::In;
  const ConvShape& s = conv.shape;
  WeightGradProduct<T> x;
  x.shape = &s;
  x.m = s.out_channels;
  x.n = s.channels * s.kernel_h * s.kernel_w;
  if (x.m * x.n == 0) return true;
  if (s.images * s.out_h * s.out_w == 0) memset(conv.dweight, 0, static_cast<size_t>(s.groups * x.m * x.n) * sizeof(float));
  return for_laid_images<In>(s, conv.x, [&](const Patches<In>& p, int64_t image, int64_t images) {
    x.patches = &p;
    x.per_image = ceil_div(p.sizes.pixels, kPixelSlice);
    x.slices = images * x.per_image;
    x.row_panels = ceil_div(x.m, T::kRows);
    x.col_panels = ceil_div(x.n, kPanel);
    x.grad_image = s.groups * x.m * p.sizes.pixels;
    for (int64_t group = 0; group < s.groups; group++) {
      x.group_offset = group * s.channels * p.planes.step.channel;
      x.grad = static_cast<const In*>(conv.grad) + image * x.grad_image + group * x.m * p.sizes.pixels;
      if (!weight_grad_group(x, conv.dweight + group * x.m * x.n, image > 0)) return false;
    }
    return true;
  });
}

template <class T>
static ConvCell conv_cell(const char* name) {
  return ConvCell{name, run_conv<T>, run_conv_weight_grad<T>};
}

}  // namespace kerf::KERF_TARGET
