// Convolutions with few output channels a group (depthwise), where a patch is used too seldom to be moved: images as they are, a
// thread an output, neighbours along a row. The gradient for weights: a block a weight.
#pragma once
#include "block.cuh"

namespace kerf {
namespace cuda {

// Sizes of a convolution between [images, groups * channels, in_h, in_w] and [images, groups * out_channels, out_h, out_w], its taps
// at first_tap + i * tap_step of the kernel's, its outputs at first_out + i * out_step.
struct DirectAxis {
  int in, kernel, all_outs;
  int first_out, out_step, outs;
  int first_tap, tap_step, taps;
  int stride, pad, dilation;

  // The input that output number o meets at tap number 0.
  CU_FUNCTION int start(int o) const { return o * stride - pad; }
  CU_FUNCTION bool inside(int i) const { return i >= 0 && i < in; }
  CU_FUNCTION int out_place(int o) const { return first_out + o * out_step; }
  CU_FUNCTION int tap_place(int t) const { return first_tap + t * tap_step; }
};
struct DirectShape {
  int images, groups, channels, out_channels;
  DirectAxis h, w;
  CU_FUNCTION int64_t input(int image, int group, int channel) const {
    return ((static_cast<int64_t>(image) * groups + group) * channels + channel) * h.in * w.in;
  }
  CU_FUNCTION int64_t output(int image, int channel) const {
    return (static_cast<int64_t>(image) * groups * out_channels + channel) * h.all_outs * w.all_outs;
  }
  CU_ANYWHERE int64_t weight(int out, int channel) const {
    return (static_cast<int64_t>(out) * channels + channel) * h.kernel * w.kernel;
  }
};

template <class Out, class A, class Finish>
__global__ void conv_direct(uint32_t n, DirectShape s, Out out, A x, A weight, Finish finish) {
  for (uint32_t i = first_element(); i < n; i += element_step()) {
    const int ox = static_cast<int>(i % s.w.outs), oy = static_cast<int>(i / s.w.outs % s.h.outs);
    const uint32_t plane = i / s.w.outs / s.h.outs;
    const int channel = static_cast<int>(plane % (s.groups * s.out_channels)), image = static_cast<int>(plane / (s.groups * s.out_channels));
    float sum = 0.0f;
    for (int c = 0; c < s.channels; c++) {
      const int64_t in = s.input(image, channel / s.out_channels, c), w = s.weight(channel, c);
      for (int r = 0; r < s.h.taps; r++) {
        const int y = s.h.start(oy) + r * s.h.dilation;
        if (!s.h.inside(y)) continue;
        const int64_t row = in + static_cast<int64_t>(y) * s.w.in, taps = w + static_cast<int64_t>(s.h.tap_place(r)) * s.w.kernel;
        for (int t = 0; t < s.w.taps; t++) {
          const int column = s.w.start(ox) + t * s.w.dilation;
          if (s.w.inside(column)) sum += x.get(row + column) * weight.get(taps + s.w.tap_place(t));
        }
      }
    }
    out.put(s.output(image, channel) + static_cast<int64_t>(s.h.out_place(oy)) * s.w.all_outs + s.w.out_place(ox),
            finish(sum, channel));
  }
}

// Number i of the weights that these taps are, [groups * out_channels, channels, taps h, taps w]; sums are float64, in one order.
template <class A>
__global__ void conv_direct_weight_grad(uint32_t n, DirectShape s, float* dweight, A grad, A x) {
  uint8_t* const slots = cu::shared_memory();
  for (uint32_t i = blockIdx.x; i < n; i += gridDim.x) {
    const int t = static_cast<int>(i % s.w.taps), r = static_cast<int>(i / s.w.taps % s.h.taps);
    const int c = static_cast<int>(i / s.w.taps / s.h.taps % s.channels), channel = static_cast<int>(i / s.w.taps / s.h.taps / s.channels);
    const uint32_t area = static_cast<uint32_t>(s.h.outs) * s.w.outs;
    double sum = 0;
    for (uint32_t p = threadIdx.x; p < area * s.images; p += blockDim.x) {
      const int image = static_cast<int>(p / area), oy = static_cast<int>(p % area / s.w.outs), ox = static_cast<int>(p % s.w.outs);
      const int y = s.h.start(oy) + r * s.h.dilation, column = s.w.start(ox) + t * s.w.dilation;
      if (!s.h.inside(y) || !s.w.inside(column)) continue;
      const int64_t from = s.output(image, channel) + static_cast<int64_t>(s.h.out_place(oy)) * s.w.all_outs + s.w.out_place(ox);
      const int64_t in = s.input(image, channel / s.out_channels, c) + static_cast<int64_t>(y) * s.w.in + column;
      sum += static_cast<double>(grad.get(from) * x.get(in));
    }
    sum = fold(sum, slots, Plus());
    if (threadIdx.x == 0)
      cu::store_global(dweight + s.weight(channel, c) + static_cast<int64_t>(s.h.tap_place(r)) * s.w.kernel + s.w.tap_place(t),
                       static_cast<float>(sum));
  }
}

}  // namespace cuda
}  // namespace kerf
