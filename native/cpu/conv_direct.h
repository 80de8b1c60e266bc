// Convolution with few output channels a group, depthwise above all: too few products for each element of a patch to pay
// for gathering it. Pixels are the lanes; a tile is ROWS output channels x PIECES vectors of pixels, every tap a load for
// ROWS FMAs. Each sum is one chain in the order of the taps, as in the product of matrices.
#pragma once
#include "conv_planes.h"
#include "matmul_epilogue.h"

namespace kerf::KERF_TARGET {

constexpr int64_t kDirectRows = 4;

template <class In>
struct DirectTask {
  const In* x;             // of the group
  const int64_t* taps;
  int64_t count;
  const float* weight;     // [taps][rows]
  const float* bias;       // [rows] or null
  Activation activation;
  int64_t out_row;
  bool whole;              // whole vectors may be read for every piece
};

template <class In, class Out, int ROWS, int PIECES>
static void direct_tile(const DirectTask<In>& task, const Piece* pieces, Out* out) {
  vf acc[ROWS][PIECES];
  for (int r = 0; r < ROWS; r++)
    for (int i = 0; i < PIECES; i++) acc[r][i] = set1(0.0f);
  for (int64_t t = 0; t < task.count; t++) {
    const In* from = task.x + task.taps[t];
    vf x[PIECES];
#pragma GCC unroll 8
    for (int i = 0; i < PIECES; i++) x[i] = task.whole ? load(from + pieces[i].offset) : load_n(from + pieces[i].offset, pieces[i].lanes);
#pragma GCC unroll 4
    for (int r = 0; r < ROWS; r++) {
      const vf weight = set1(task.weight[t * ROWS + r]);
#pragma GCC unroll 8
      for (int i = 0; i < PIECES; i++) acc[r][i] = fma(weight, x[i], acc[r][i]);
    }
  }
  for (int r = 0; r < ROWS; r++) {
    const vf bias = set1(task.bias ? task.bias[r] : 0.0f);
    for (int i = 0; i < PIECES; i++)
      store_n(out + r * task.out_row + pieces[i].at, activate(task.activation, add(acc[r][i], bias)), pieces[i].lanes);
  }
}

template <class In, class Out, int ROWS>
static void direct_pieces(const DirectTask<In>& task, const Piece* pieces, int64_t number, Out* out) {
  constexpr int kMost = ROWS == 1 ? 8 : ROWS == 2 ? 6 : 4;
  int64_t i = 0;
  for (; i + kMost <= number; i += kMost) direct_tile<In, Out, ROWS, kMost>(task, pieces + i, out);
  for (; i + 2 <= number; i += 2) direct_tile<In, Out, ROWS, 2>(task, pieces + i, out);
  if (i < number) direct_tile<In, Out, ROWS, 1>(task, pieces + i, out);
}

// One image of one group.
template <class In, class Out>
static void direct_image(DirectTask<In>& task, const Planes<In>& planes, const ConvShape& s, int64_t pixels, int64_t image,
                         int64_t offset, int64_t highest, Out* out) {
  constexpr int64_t kPixels = 64 * W;
  Piece pieces[kPixels];
  for (int64_t pixel = 0; pixel < pixels; pixel += kPixels) {
    const int64_t begin = image * pixels + pixel;
    const int number = cut_pixels(planes.step, s.out_w, pixels, begin, begin + min_of(kPixels, pixels - pixel), pieces);
    task.whole = true;
    for (int i = 0; i < number; i++) task.whole &= offset + highest + pieces[i].offset + W <= planes.elements;
    switch (s.out_channels) {
      case 1: direct_pieces<In, Out, 1>(task, pieces, number, out + pixel); break;
      case 2: direct_pieces<In, Out, 2>(task, pieces, number, out + pixel); break;
      case 3: direct_pieces<In, Out, 3>(task, pieces, number, out + pixel); break;
      case 4: direct_pieces<In, Out, 4>(task, pieces, number, out + pixel); break;
    }
  }
}

// All groups of `images` images from `image` on.
template <class In>
static bool run_direct(const ConvProblem& p, const ConvSizes& z, const Planes<In>& planes, const int64_t* taps, int64_t highest,
                       int64_t image0, int64_t images) {
  const ConvShape& s = p.shape;
  const int64_t rows = s.out_channels, all = s.groups * rows * z.taps;
  float* weights = static_cast<float*>(scratch(Scratch::pack_a, static_cast<size_t>(all + 1) * sizeof(float)));
  if (!weights) return false;
  const In* from = static_cast<const In*>(p.weight);
  for (int64_t g = 0; g < s.groups; g++)
    for (int64_t r = 0; r < rows; r++)
      for (int64_t t = 0; t < z.taps; t++) weights[(g * z.taps + t) * rows + r] = to_float(*from++);
  const double ns = 2.0 * static_cast<double>(images * z.pixels * all) / 40;
  const int64_t items = images * s.groups, a_task = max_of(1, static_cast<int64_t>(20'000 / (ns / static_cast<double>(items) + 1)));
  parallel_if(ns > 30'000, ceil_div(items, a_task), [&](int64_t index) {
    for (int64_t item = index * a_task; item < min_of((index + 1) * a_task, items); item++) {
      const int64_t image = item / s.groups, group = item % s.groups, offset = group * s.channels * planes.step.channel;
      DirectTask<In> task;
      task.x = planes.x + offset;
      task.taps = taps;
      task.count = z.taps;
      task.weight = weights + group * z.taps * rows;
      task.bias = p.bias ? p.bias + group * rows : nullptr;
      task.activation = p.activation;
      task.out_row = z.pixels;
      const int64_t at = ((image0 + image) * s.groups + group) * rows * z.pixels;
      if (p.out_type == DType::float32_) direct_image(task, planes, s, z.pixels, image, offset, highest, static_cast<float*>(p.out) + at);
      else if constexpr (sizeof(In) == 2) direct_image(task, planes, s, z.pixels, image, offset, highest, static_cast<In*>(p.out) + at);
    }
  });
  return true;
}

}  // namespace kerf::KERF_TARGET
