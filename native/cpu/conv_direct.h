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

// One image of one group of a chunk.
template <class In, class Out>
static void direct_image(DirectTask<In>& task, const Patches& p, const Planes<In>& planes, int64_t image, int64_t group, Out* out) {
  constexpr int64_t kPixels = 64 * W;
  Piece pieces[kPixels];
  const int64_t room = planes.room(p, group);
  for (int64_t pixel = 0; pixel < planes.pixels; pixel += kPixels) {
    const int64_t begin = image * planes.pixels + pixel;
    const int number = cut_pixels(p, planes.pixels, begin, begin + min_of(kPixels, planes.pixels - pixel), pieces);
    task.whole = true;
    for (int i = 0; i < number; i++) task.whole &= pieces[i].offset + W <= room;
    switch (p.shape.out_channels) {
      case 1: direct_pieces<In, Out, 1>(task, pieces, number, out + pixel); break;
      case 2: direct_pieces<In, Out, 2>(task, pieces, number, out + pixel); break;
      case 3: direct_pieces<In, Out, 3>(task, pieces, number, out + pixel); break;
      case 4: direct_pieces<In, Out, 4>(task, pieces, number, out + pixel); break;
    }
  }
}

// Weights as tiles read them: [groups][taps][rows].
template <class In>
static void pack_direct(const ConvProblem& c, int64_t taps, float* out) {
  const In* from = static_cast<const In*>(c.weight);
  const int64_t rows = c.shape.out_channels;
  for (int64_t g = 0; g < c.shape.groups; g++)
    for (int64_t r = 0; r < rows; r++)
      for (int64_t t = 0; t < taps; t++) out[(g * taps + t) * rows + r] = to_float(*from++);
}

// All groups of a chunk.
template <class In>
static void direct_chunk(const ConvProblem& c, const Patches& p, const Planes<In>& planes, const PixelChunk& chunk, const float* weights) {
  const ConvShape& s = p.shape;
  const int64_t rows = s.out_channels;
  DirectTask<In> task;
  task.taps = p.taps;
  task.count = p.taps_count;
  task.activation = c.activation;
  task.out_row = p.pixels;
  for (int64_t image = 0; image < chunk.images; image++) {
    for (int64_t group = 0; group < s.groups; group++) {
      task.x = planes.x + planes.offset(p, group);
      task.weight = weights + group * p.taps_count * rows;
      task.bias = c.bias ? c.bias + group * rows : nullptr;
      const int64_t at = ((chunk.image + image) * s.groups + group) * rows * p.pixels + chunk.row * s.out_w;
      if (c.out_type == DType::float32_) direct_image(task, p, planes, image, group, static_cast<float*>(c.out) + at);
      else if constexpr (sizeof(In) == 2) direct_image(task, p, planes, image, group, static_cast<In*>(c.out) + at);
    }
  }
}

}  // namespace kerf::KERF_TARGET
