// What the drivers of convolutions check alike: that sizes and steps go together and can be counted.
#pragma once
#include <initializer_list>

#include "kernels.h"

namespace kerf {

struct Geometry {
  i64 groups, strideH, strideW, padH, padW, dilationH, dilationW, upH, upW;
};

// Whether weights of a [out channels, channels / groups, kernel_h, kernel_w] take x to `out`; the shape, if so.
KERF_INLINE bool describe_conv(const View& out, const View& x, const i64 (&w)[4], const Geometry& g, ConvShape& s) {
  if (out.rank != 4 || x.rank != 4 || !contiguous(out) || !contiguous(x)) return false;
  constexpr i64 kMost = 1 << 28;
  for (i64 v : {g.strideH, g.strideW, g.dilationH, g.dilationW, g.upH, g.upW, w[2], w[3]})
    if (v < 1 || v > kMost) return false;
  for (i64 v : {g.padH, g.padW})
    if (v < -kMost || v > kMost) return false;
  if (g.groups < 1 || x.shape[1] % g.groups || w[0] % g.groups) return false;
  for (int i = 0; i < 4; i++)
    if (i != 1 && (x.shape[i] > kMost || out.shape[i] > kMost)) return false;
  s = {x.shape[0], g.groups, x.shape[1] / g.groups, w[0] / g.groups, x.shape[2], x.shape[3], w[2], w[3], out.shape[2], out.shape[3],
       g.strideH, g.strideW, g.padH, g.padW, g.dilationH, g.dilationW, g.upH, g.upW};
  // what the taps of all pixels span, of all channels and images
  const double laid_h = static_cast<double>(s.out_h) * static_cast<double>(s.stride_h) + static_cast<double>(s.kernel_h) * static_cast<double>(s.dilation_h);
  const double laid_w = static_cast<double>(s.out_w) * static_cast<double>(s.stride_w) + static_cast<double>(s.kernel_w) * static_cast<double>(s.dilation_w);
  if (laid_h * laid_w * static_cast<double>(x.shape[1]) * static_cast<double>(x.shape[0]) > 1e14) return false;
  return out.shape[0] == s.images && out.shape[1] == w[0] && w[1] == s.channels;
}

KERF_INLINE double conv_operations(const ConvShape& s) {
  return 2.0 * static_cast<double>(s.images * s.groups * s.out_channels * s.out_h * s.out_w) *
         static_cast<double>(s.channels * s.kernel_h * s.kernel_w);
}

}  // namespace kerf
