// A convolution whose input has zeros between its rows and columns (a transposed convolution, or the input's gradient of a
// strided one) falls apart into phases: output pixels of one remainder by `up` meet the same few taps, at neighbouring input
// pixels. Each phase is a plain convolution with a part of the kernel; nothing is multiplied by the zeros put in, up^2
// times fewer products in all.
#pragma once
#include "conv_loops.h"

namespace kerf::KERF_TARGET {

// One axis of a phase: outputs first, first + up, ...; taps first_tap, first_tap + up, ... of the kernel.
struct PhaseAxis {
  int64_t first, outs, first_tap, taps, pad;
};

// Output o meets tap r at input position (o + r - pad) / up, where that is whole.
static PhaseAxis phase_of(int64_t first, int64_t up, int64_t out, int64_t kernel, int64_t pad) {
  PhaseAxis a;
  a.first = first;
  a.outs = out > first ? ceil_div(out - first, up) : 0;
  a.first_tap = ((pad - first) % up + up) % up;
  a.taps = kernel > a.first_tap ? ceil_div(kernel - a.first_tap, up) : 0;
  a.pad = (pad - first - a.first_tap) / up;
  return a;
}

static bool has_phases(const ConvShape& s) {
  return s.up_h * s.up_w > 1 && s.stride_h == 1 && s.stride_w == 1 && s.dilation_h == 1 && s.dilation_w == 1;
}

// Every up-th tap of the kernels.
template <class In>
static void phase_weights(const ConvProblem& c, const PhaseAxis& h, const PhaseAxis& w, In* out) {
  const ConvShape& s = c.shape;
  const In* from = static_cast<const In*>(c.weight);
  for (int64_t i = 0; i < s.groups * s.out_channels * s.channels; i++, from += s.kernel_h * s.kernel_w)
    for (int64_t y = 0; y < h.taps; y++)
      for (int64_t x = 0; x < w.taps; x++)
        *out++ = from[(h.first_tap + y * s.up_h) * s.kernel_w + w.first_tap + x * s.up_w];
}

// Output pixels that meet no tap.
template <class Out>
static void place_untouched(const ConvProblem& c, const PhaseAxis& h, const PhaseAxis& w, int64_t plane) {
  const ConvShape& s = c.shape;
  const float zero[W] = {};
  Out value[W];
  finish_row(1, zero, value, RowBias{c.bias ? c.bias[plane % (s.groups * s.out_channels)] : 0.0f}, c.activation);
  Out* to = static_cast<Out*>(c.out) + plane * s.out_h * s.out_w;
  for (int64_t y = 0; y < h.outs; y++)
    for (int64_t x = 0; x < w.outs; x++) to[(h.first + y * s.up_h) * s.out_w + w.first + x * s.up_w] = value[0];
}

template <class Out>
static void place_phase(const ConvShape& s, const PhaseAxis& h, const PhaseAxis& w, const Out* from, Out* to) {
  for (int64_t y = 0; y < h.outs; y++, from += w.outs) {
    Out* row = to + (h.first + y * s.up_h) * s.out_w + w.first;
    for (int64_t x = 0; x < w.outs; x++) row[x * s.up_w] = from[x];
  }
}

// False when memory is exhausted.
template <class T, class Out>
static bool run_phase(const ConvProblem& c, const PhaseAxis& h, const PhaseAxis& w) {
  using In = typename T::In;
  const ConvShape& s = c.shape;
  const int64_t planes = s.images * s.groups * s.out_channels, pixels = h.outs * w.outs;
  if (planes * pixels == 0) return true;
  const bool worthwhile = planes * pixels > 64 * 1024;
  if (h.taps * w.taps == 0) {
    parallel_if(worthwhile, planes, [&](int64_t plane) { place_untouched<Out>(c, h, w, plane); });
    return true;
  }
  ConvProblem part = c;
  part.shape.kernel_h = h.taps;
  part.shape.kernel_w = w.taps;
  part.shape.out_h = h.outs;
  part.shape.out_w = w.outs;
  part.shape.pad_h = h.pad;
  part.shape.pad_w = w.pad;
  part.shape.up_h = part.shape.up_w = 1;
  const int64_t taps = s.groups * s.out_channels * s.channels * h.taps * w.taps;
  auto* weights = static_cast<In*>(scratch(Scratch::phase_weights, static_cast<size_t>(taps) * sizeof(In)));
  auto* out = static_cast<Out*>(scratch(Scratch::results, static_cast<size_t>(planes * pixels) * sizeof(Out)));
  if (!weights || !out) return false;
  phase_weights(c, h, w, weights);
  part.weight = weights;
  part.out = out;
  if (!run_conv<T>(part)) return false;
  parallel_if(worthwhile, planes, [&](int64_t plane) {
    place_phase(s, h, w, out + plane * pixels, static_cast<Out*>(c.out) + plane * s.out_h * s.out_w);
  });
  return true;
}

template <class T>
static bool run_conv_with_zeros(const ConvProblem& c) {
  const ConvShape& s = c.shape;
  if (!has_phases(s)) return run_conv<T>(c);
  for (int64_t y = 0; y < s.up_h; y++) {
    for (int64_t x = 0; x < s.up_w; x++) {
      const PhaseAxis h = phase_of(y, s.up_h, s.out_h, s.kernel_h, s.pad_h), w = phase_of(x, s.up_w, s.out_w, s.kernel_w, s.pad_w);
      const bool fine = c.out_type == DType::float32_ ? run_phase<T, float>(c, h, w) : run_phase<T, typename T::In>(c, h, w);
      if (!fine) return false;
    }
  }
  return true;
}

}  // namespace kerf::KERF_TARGET
