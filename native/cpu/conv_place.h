// The last step of a convolution: sums become elements of the output.
#pragma once
#include "conv_chunks.h"
#include "matmul_epilogue.h"

namespace kerf::KERF_TARGET {

// Sums of rows [row, row + rows), sums_row apart, and columns [col, col + cols) go where their pixels are: a row is an output
// channel of the group, columns are a chunk's pixels. The output is float32 or of the input's dtype, In.
template <class In>
static void place_sums(const ConvProblem& c, const PixelChunk& chunk, int64_t group, const float* sums, int64_t sums_row, int64_t row,
                       int64_t rows, int64_t col, int64_t cols) {
  const ConvShape& s = c.shape;
  const int64_t all = s.out_h * s.out_w, pixels = chunk.rows * s.out_w;
  for (int64_t done = 0; done < cols;) {
    const int64_t image = (col + done) / pixels, pixel = (col + done) % pixels, run = min_of(pixels - pixel, cols - done);
    for (int64_t r = row; r < row + rows; r++) {
      const int64_t channel = group * s.out_channels + r;
      const RowBias bias{c.bias ? c.bias[channel] : 0.0f};
      const float* from = sums + (r - row) * sums_row + done;
      const int64_t at = ((chunk.image + image) * s.groups * s.out_channels + channel) * all + chunk.row * s.out_w + pixel;
      if (c.out_type == DType::float32_) {
        finish_row(run, from, static_cast<float*>(c.out) + at, bias, c.activation);
      } else if constexpr (sizeof(In) == 2) {
        finish_row(run, from, static_cast<In*>(c.out) + at, bias, c.activation);
      }
    }
    done += run;
  }
}

}  // namespace kerf::KERF_TARGET
