// A convolution's output pixels are worked on chunk by chunk: some rows of one image, or some whole images, as many as what is
// made of their input takes of the L2 cache.
#pragma once
#include "matmul_pack.h"

namespace kerf::KERF_TARGET {

// What is laid for a chunk. Beside it L2 holds packed weights (conv_loops.h).
constexpr int64_t kLaidBytes = 256 << 10;
// A chunk has at least as many pixels where there are so many: the last column panel of each is only partly filled.
constexpr int64_t kChunkPixels = 12 * kPanel;

// Output rows [row, row + rows) of images [image, image + images); all rows where there are several images.
struct PixelChunk {
  int64_t image, images, row, rows;
};

struct ConvChunks {
  ConvShape shape;
  int64_t pixels;  // of an image's output
  int64_t laid_w;  // input columns that the taps of a row's pixels span
  int64_t chunk_images, chunk_rows, chunks_an_image, chunks;

  PixelChunk chunk(int64_t i) const {
    if (chunk_images > 1) return {i * chunk_images, min_of(chunk_images, shape.images - i * chunk_images), 0, shape.out_h};
    const int64_t row = i % chunks_an_image * chunk_rows;
    return {i / chunks_an_image, 1, row, min_of(chunk_rows, shape.out_h - row)};
  }
};

static int64_t span(int64_t out, int64_t stride, int64_t kernel, int64_t dilation) { return (out - 1) * stride + (kernel - 1) * dilation + 1; }

// Rows of so many pixels fill whole panels together.
static int64_t rows_of_panels(int64_t out_w) {
  int64_t rows = kPanel;
  while (rows > 1 && rows / 2 * out_w % kPanel == 0) rows /= 2;
  return rows;
}

// Whole images while they are small, else rows of one: about kLaidBytes, at least kChunkPixels, and `tasks` chunks if
// that leaves them large enough.
static void cut_into_chunks(ConvChunks& p, const ConvShape& shape, int64_t element_bytes, int64_t tasks) {
  const ConvShape& s = p.shape = shape;
  p.pixels = s.out_h * s.out_w;
  p.laid_w = span(s.out_w, s.stride_w, s.kernel_w, s.dilation_w);
  const int64_t row_bytes = max_of(1, s.groups * s.channels * p.laid_w * element_bytes);
  const int64_t image_bytes = row_bytes * span(s.out_h, s.stride_h, s.kernel_h, s.dilation_h);
  const int64_t least_images = ceil_div(kChunkPixels, p.pixels);
  p.chunk_images = max_of(1, min_of(max_of(kLaidBytes / image_bytes, least_images), ceil_div(s.images, tasks)));
  p.chunk_rows = s.out_h;
  if (p.chunk_images == 1) {
    const int64_t halo = (s.kernel_h - 1) * s.dilation_h;
    const int64_t least = ceil_div(kChunkPixels, s.out_w);
    const int64_t fitting = max_of(least, (kLaidBytes / row_bytes - halo) / s.stride_h);
    const int64_t wanted = max_of(least, ceil_div(s.out_h, ceil_div(tasks, s.images)));  // where images are too few for the threads
    int64_t rows = min_of(fitting, wanted);
    const int64_t whole = rows_of_panels(s.out_w);
    if (rows + rows / 4 >= whole) rows = (rows + rows / 4) / whole * whole;
    p.chunk_rows = min_of(rows, s.out_h);
  }
  p.chunks_an_image = ceil_div(s.out_h, p.chunk_rows);
  p.chunks = p.chunk_images > 1 ? ceil_div(s.images, p.chunk_images) : s.images * p.chunks_an_image;
}

}  // namespace kerf::KERF_TARGET
