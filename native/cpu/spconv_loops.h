// Convolution by sparse weights: the product of W [outputs, taps] in runs (spmatmul_blocks.h) and the matrix of patches
// (conv_planes.h), of which a panel of V vectors of pixels is gathered just before all outputs pass by it. Lanes are pixels, so
// sums are rows of output channels already.
//
//   for each chunk of output pixels, on the pool:
//     lay its planes
//     for each panel of pixels:
//       gather its patches, all taps
//       for each group of 128 outputs:  multiply;  bias, activation, and each pixel to its place
#pragma once
#include "conv_place.h"
#include "conv_planes.h"
#include "spmatmul_blocks.h"

namespace kerf::KERF_TARGET {

// Whether what a chunk's taps meet is finite: only then may zeros that fill up a run be multiplied by it.
template <class In>
static bool finite_planes(const Patches& p, const Planes<In>& planes, const PixelChunk& chunk) {
  // The input itself goes on behind the chunk's rows.
  const int64_t met = (chunk.images - 1) * p.step.image + p.highest_tap + (chunk.rows - 1) * p.step.down + p.shape.out_w;
  return all_finite(planes.x, min_of(met, planes.elements));
}

// Pixels [col, col + cols) of a chunk by a group of outputs; x holds their patches, V vectors a tap.
template <class In, int V>
static void sparse_panel(const SparseConvProblem& c, const Runs& w, const PixelChunk& chunk, float* sums, const float* x, int64_t col,
                         int64_t cols, bool finite) {
  for (int64_t group = 0; group < w.groups; group++) {
    const int64_t row = group * kRunOutputs, rows = min_of(kRunOutputs, c.shape.out_channels - row);
    add_runs<V>(w, group, sums, x, finite);
    place_sums<In>(c, chunk, 0, sums, V * W, row, rows, col, cols);
  }
}

// False when memory is exhausted.
template <class In>
static bool sparse_chunk(const SparseConvProblem& c, const Runs& w, const Patches& p, const PixelChunk& chunk) {
  constexpr int64_t kWidth = kRunVectors * W;
  Planes<In> planes;
  if (!lay_chunk(p, c.x, chunk, 0, c.shape.channels, planes)) return false;
  auto* x = static_cast<float*>(scratch(Scratch::patches, static_cast<size_t>(w.places * kRun * kWidth + W) * sizeof(float)));
  auto* sums = static_cast<float*>(scratch(Scratch::convert, static_cast<size_t>(kRunOutputs * kWidth) * sizeof(float)));
  if (!x || !sums) return false;
  const bool finite = finite_planes(p, planes, chunk);
  const int64_t pixels = chunk.images * planes.pixels, room = planes.room(p, 0);
  for (int64_t col = 0; col < pixels; col += kWidth) {
    const int64_t cols = min_of(kWidth, pixels - col), row = ceil_div(cols, W) * W, gathered = p.taps_count * row;
    if (cols < row) memset(x, 0, static_cast<size_t>(gathered) * sizeof(float));  // lanes without a pixel
    Piece pieces[kWidth];
    const int number = cut_pixels(p, planes.pixels, col, col + cols, pieces);
    gather(Gather<In, float>{planes.x, pieces, number, p.taps, p.taps_count, x, row}, room);
    memset(x + gathered, 0, static_cast<size_t>(w.places * kRun * row - gathered) * sizeof(float));
    switch (row / W) {
      case 1: sparse_panel<In, 1>(c, w, chunk, sums, x, col, cols, finite); break;
      case 2: sparse_panel<In, min_of(2, kRunVectors)>(c, w, chunk, sums, x, col, cols, finite); break;
      default: sparse_panel<In, kRunVectors>(c, w, chunk, sums, x, col, cols, finite); break;
    }
  }
  return true;
}

template <class In>
static bool run_sparse_conv(const SparseConvProblem& c) {
  const ConvShape& s = c.shape;
  if (s.images * s.out_h * s.out_w * s.out_channels == 0) return true;
  const int64_t taps = s.channels * s.kernel_h * s.kernel_w;
  const Runs w(const_cast<void*>(c.weight), s.out_channels, taps, c.count);
  for (int64_t group = 0; group < w.groups; group++)
    if (!w.sound(group, c.count)) return false;
  const double vectors = static_cast<double>(s.images) * static_cast<double>(ceil_div(s.out_h * s.out_w, W));
  const double ns = vectors * (static_cast<double>(c.count) + static_cast<double>(taps + s.out_channels) / 2);
  const int64_t threads = ns < kSerialNs ? 1 : pool_threads();
  Patches p;
  if (!describe_patches(s, sizeof(In), threads == 1 ? 1 : min_of(4 * threads, static_cast<int64_t>(ns / kTaskNs) + 1), p)) return false;
  int32_t failed = 0;
  parallel_if(threads > 1, p.chunks, [&](int64_t i) {
    if (!sparse_chunk<In>(c, w, p, p.chunk(i))) __atomic_store_n(&failed, 1, __ATOMIC_RELAXED);
  });
  return !failed;
}

// The cells for the dtypes of x. Their weights are those of the form of blocks.
static inline void install_sparse_conv(Kernels& row, const char* name) {
  row.spconv2d[0] = {name, run_sparse_conv<float>};
  row.spconv2d[1] = {name, run_sparse_conv<f16>};
  row.spconv2d[2] = {name, run_sparse_conv<bf16>};
}

}  // namespace kerf::KERF_TARGET
