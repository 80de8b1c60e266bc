// Which convolutions the kernels can count.
#pragma once
#include "../../core/conv_shape.h"

namespace kerf {
namespace cuda {
namespace ops {

inline int chunks_of(int64_t channels, DType dtype) {
  const int64_t unit = 16 / element_bytes(dtype);
  return static_cast<int>((channels + unit - 1) / unit);
}

// Pixels, chunks and places along an axis are numbered in 31 bits.
inline bool countable_conv(const ConvShape& s, DType dtype) {
  constexpr double kMost = 1 << 29;
  const double images = static_cast<double>(s.images), groups = static_cast<double>(s.groups);
  const double taps = static_cast<double>(s.kernel_h) * static_cast<double>(s.kernel_w);
  const double in = images * static_cast<double>(s.in_h) * static_cast<double>(s.in_w);
  const double out = images * static_cast<double>(s.out_h) * static_cast<double>(s.out_w);
  const double chunks = chunks_of(s.channels, dtype), out_chunks = chunks_of(s.out_channels, dtype);
  return in * groups * chunks < 4 * kMost && out * groups * out_chunks < 4 * kMost && out < 3 * kMost &&
         taps * chunks < kMost / 16 && groups < 65536 && static_cast<double>(s.out_channels) < 65535 * 16 &&
         static_cast<double>(s.out_h) * static_cast<double>(s.stride_h) < kMost &&
         static_cast<double>(s.out_w) * static_cast<double>(s.stride_w) < kMost &&
         static_cast<double>(s.kernel_h) * static_cast<double>(s.dilation_h) < kMost &&
         static_cast<double>(s.kernel_w) * static_cast<double>(s.dilation_w) < kMost;
}

}  // namespace ops
}  // namespace cuda
}  // namespace kerf
