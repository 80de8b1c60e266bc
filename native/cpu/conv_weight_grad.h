// The weight gradient of a convolution: dweight[o][tap] = sum over pixels of grad[o][pixel] * patch[tap][pixel], a product
// whose columns are taps. Each slice of pixels is packed once and meets all taps; sums stay in dweight (float32).
//
// A product too small for the threads (few channels, few taps) is cut along its pixels into parts, as many as its shape
// says and not the number of threads; their sums are added in order.
#pragma once
#include "conv_phases.h"

namespace kerf::KERF_TARGET {

constexpr int64_t kPixelSlice = 512;
constexpr int64_t kPixelStage = 128;  // pixels that are gathered before they are turned around
constexpr int64_t kLeastTiles = 8, kMostParts = 8, kLeastPart = 4096;

template <class T>
struct WeightGradProduct : RowPanels {  // m: output channels of a group
  const ConvGradProblem* problem;
  const Patches* patches;
  int64_t n;  // taps of a group
  int64_t col_panels;
};

// Taps that are neighbours in the planes too, at most kRun of them: a pixel's are copied together. More at once would be stores
// across two cache lines.
constexpr int64_t kRun = 8;
struct TapRun {
  int64_t offset, at;
};

// Cuts taps into runs and answers their number; 0 where copying these would not be faster than turning rows of pixels around.
static int cut_taps(const int64_t* taps, int64_t number, TapRun* runs) {
  int count = 0;
  for (int64_t i = 0; i < number;) {
    runs[count++] = {taps[i], i};
    int64_t length = 1;
    while (i + length < number && length < kRun && taps[i + length] == taps[i] + length) length++;
    i += length;
  }
  return number >= 3 * count ? count : 0;
}

// Each pixel's row of taps, kRun written at once in their order: up to kRun - 1 elements behind the last are overwritten. False,
// and nothing done, where that would read behind the planes.
template <class In>
static bool copy_runs(In* out, const In* x, int64_t room, const Piece* pieces, int number, const TapRun* runs, int run_count) {
  for (int i = 0; i < number; i++)
    if (pieces[i].offset + pieces[i].lanes - 1 + kRun > room) return false;
  for (int i = 0; i < number; i++) {
    const In* from = x + pieces[i].offset;
    for (int lane = 0; lane < pieces[i].lanes; lane++, from++, out += kPanel)
      for (int r = 0; r < run_count; r++) memcpy(out + runs[r].at, from + runs[r].offset, kRun * sizeof(In));
  }
  return true;
}

// Pixels [pixel, pixel + count) of a chunk's image for `width` taps from `col` on, as a panel of B.
template <class T>
static void gather_taps(const WeightGradProduct<T>& x, const Planes<typename T::In>& planes, int64_t group, typename T::Unit* out,
                        int64_t image, int64_t pixel, int64_t count, int64_t col, int64_t width) {
  using In = typename T::In;
  constexpr int64_t kPitch = kPixelStage + W;
  const Patches& p = *x.patches;
  In stage[kPanel * kPitch];
  Piece pieces[kPixelStage];
  TapRun runs[kPanel];
  constexpr bool copies = std::is_same_v<typename T::Unit, In> && T::kElements == 1;
  const int run_count = copies ? cut_taps(p.taps + col, width, runs) : 0;
  const In* x0 = planes.x + planes.offset(p, group);
  for (int64_t done = 0; done < count; done += kPixelStage) {
    const int64_t some = min_of(kPixelStage, count - done), begin = image * planes.pixels + pixel + done;
    const int number = cut_pixels(p, planes.pixels, begin, begin + some, pieces);
    if constexpr (copies) {
      if (run_count && copy_runs(out, x0, planes.room(p, group), pieces, number, runs, run_count)) {
        out += some * kPanel;
        continue;
      }
    }
    gather(Gather<In, In>{x0, pieces, number, p.taps + col, width, stage, kPitch}, planes.room(p, group));
    pack_b_panel<T>(out, stage, some, width, 1, kPitch);
    out += units_of<T>(some) * kPanel;
  }
}

// Adds a chunk's sums to a group's [m, n], or starts from 0; column panels [col0, col1). False when memory is exhausted.
template <class T>
static bool weight_grad_chunk(const WeightGradProduct<T>& x, const Planes<typename T::In>& planes, const PixelChunk& chunk, int64_t group,
                              float* sums, bool accumulate, int64_t col0, int64_t col1) {
  using Unit = typename T::Unit;
  auto* a = static_cast<float*>(
      scratch(Scratch::pack_a, static_cast<size_t>(x.m * row_units<T>(units_of<T>(kPixelSlice)) * T::kSub + kBeyondA<T>) * sizeof(float)));
  auto* b = static_cast<Unit*>(scratch(Scratch::patches, static_cast<size_t>(units_of<T>(kPixelSlice) * kPanel + kRun) * sizeof(Unit)));
  if (!a || !b) return false;
  [[maybe_unused]] const typename T::TileState state;
  const ConvShape& s = x.patches->shape;
  const int64_t all = x.patches->pixels;
  for (int64_t image = 0; image < chunk.images; image++) {
    const auto* grad = static_cast<const typename T::In*>(x.problem->grad) +
                       ((chunk.image + image) * s.groups + group) * x.m * all + chunk.row * s.out_w;
    for (int64_t pixel = 0; pixel < planes.pixels; pixel += kPixelSlice) {
      const int64_t count = min_of(kPixelSlice, planes.pixels - pixel), units = units_of<T>(count);
      for (int64_t panel = 0; panel < x.row_panels; panel++) {
        const int64_t row = x.row_of(panel), rows = x.row_of(panel + 1) - row;
        pack_a_panel<T>(a + row * row_units<T>(units) * T::kSub, grad + row * all + pixel, rows, count, all, 1);
      }
      for (int64_t col_panel = col0; col_panel < col1; col_panel++) {
        const int64_t col = col_panel * kPanel, width = min_of(kPanel, x.n - col);
        gather_taps(x, planes, group, b, image, pixel, count, col, width);
        const int vectors = width <= W ? 1 : kPanelVectors;
        TileArgs<T> args;
        args.units = units;
        args.a_row = 1;
        args.b = b;
        args.b_unit = kPanel;
        args.b_panel = 0;
        args.c_row = x.n;
        args.last = width - (vectors - 1) * W;
        args.accumulate = accumulate;
        args.distance = T::kPrefetch;
        args.ahead = reinterpret_cast<const char*>(b);
        args.ahead_step = 0;
        for (int64_t panel = 0; panel < x.row_panels; panel++) {
          const int64_t row = x.row_of(panel), height = x.row_of(panel + 1) - row;
          args.a = a + row * row_units<T>(units) * T::kSub;
          args.a_word = height;
          args.c = sums + row * x.n + col;
          multiply_tile<T, ASource::packed>(args, height, vectors);
        }
      }
      accumulate = true;
    }
  }
  return true;
}

// Chunks [begin, end) of all groups to sums [groups, m, n], for column panels [col0, col1) of each.
template <class T>
static bool weight_grad_chunks(const WeightGradProduct<T>& x, float* sums, int64_t begin, int64_t end, int64_t col0, int64_t col1) {
  using In = typename T::In;
  const Patches& p = *x.patches;
  const ConvShape& s = p.shape;
  // one group: only the channels that these taps belong to
  const int64_t taps = s.kernel_h * s.kernel_w;
  const int64_t channel0 = s.groups == 1 ? col0 * kPanel / taps : 0;
  const int64_t channels = s.groups == 1 ? ceil_div(min_of(col1 * kPanel, x.n), taps) - channel0 : s.groups * s.channels;
  for (int64_t i = begin; i < end; i++) {
    const PixelChunk chunk = p.chunk(i);
    Planes<In> planes;
    if (!lay_chunk(p, x.problem->x, chunk, channel0, channels, planes)) return false;
    for (int64_t group = 0; group < s.groups; group++)
      if (!weight_grad_chunk(x, planes, chunk, group, sums + group * x.m * x.n, i > begin, col0, col1)) return false;
  }
  return true;
}

template <class T>
static bool run_conv_weight_grad(const ConvGradProblem& conv) {
  using In = typename T::In;
  const ConvShape& s = conv.shape;
  WeightGradProduct<T> x;
  x.problem = &conv;
  x.m = s.out_channels;
  x.n = s.channels * s.kernel_h * s.kernel_w;
  const int64_t elements = s.groups * x.m * x.n, pixels = s.images * s.out_h * s.out_w;
  if (elements * pixels == 0) {
    memset(conv.dweight, 0, static_cast<size_t>(elements) * sizeof(float));
    return true;
  }
  x.row_panels = ceil_div(x.m, T::kRows);
  x.col_panels = ceil_div(x.n, kPanel);
  Patches p;
  // Chunks, and so the order of sums, must not depend on the number of threads.
  if (!describe_patches(s, sizeof(In), kMostParts, p)) return false;
  x.patches = &p;
  const double ns = 2.0 * static_cast<double>(elements) * static_cast<double>(pixels) / T::kFlopsPerNs;
  const bool alone = ns < kSerialNs || pool_threads() == 1;
  int32_t failed = 0;
  const auto note = [&](bool fine) {
    if (!fine) __atomic_store_n(&failed, 1, __ATOMIC_RELAXED);
  };
  const int64_t most_parts = x.row_panels * x.col_panels < kLeastTiles ? min_of(kMostParts, pixels / kLeastPart) : 0;
  const int64_t parts = min_of(most_parts, p.chunks);
  if (parts > 1) {
    float* sums = static_cast<float*>(scratch(Scratch::convert, static_cast<size_t>(parts * elements) * sizeof(float)));
    if (!sums) return false;
    parallel_if(!alone, parts, [&](int64_t part) {
      note(weight_grad_chunks(x, sums + part * elements, part * p.chunks / parts, (part + 1) * p.chunks / parts, 0, x.col_panels));
    });
    for (int64_t i = 0; i < elements; i++) {
      float sum = sums[i];
      for (int64_t part = 1; part < parts; part++) sum += sums[part * elements + i];
      conv.dweight[i] = sum;
    }
  } else {
    const int64_t tasks = alone ? 1 : min_of(x.col_panels, 2 * pool_threads());
    parallel_if(true, tasks, [&](int64_t task) {
      note(weight_grad_chunks(x, conv.dweight, 0, p.chunks, task * x.col_panels / tasks, (task + 1) * x.col_panels / tasks));
    });
  }
  return !failed;
}

template <class T>
static ConvCell conv_cell(const char* name) {
  return ConvCell{name, run_conv_with_zeros<T>, run_conv_weight_grad<T>};
}

}  // namespace kerf::KERF_TARGET
