// What the drivers of convolutions work out on the host: the phases of one whose input has zeros put in, and the layouts of
// images and weights that its kernels read.
#pragma once
#include <numeric>
#include <vector>

#include "../conv_direct.cuh"
#include "../conv_layout.cuh"
#include "../conv.cuh"
#include "../operands.cuh"
#include "conv_limits.h"
#include "launch.h"

namespace kerf {
namespace cuda {
namespace ops {

// With `up` - 1 zeros between its elements a line of input is met by some of the taps only: always the same ones in every
// up / gcd(stride, up)-th output. Each such phase is a convolution of the elements themselves, so no zero is ever multiplied.
// A line of outputs falls into its phases, and every tap is part of at most one.
inline std::vector<DirectAxis> phases_of(int64_t in, int64_t kernel, int64_t out, int64_t stride, int64_t pad, int64_t dilation,
                                         int64_t up) {
  const int64_t period = up / std::gcd(stride, up), tap_step = up / std::gcd(dilation, up);
  std::vector<DirectAxis> phases;
  for (int64_t first = 0; first < period && first < out; first++) {
    int64_t tap = 0;
    while (tap < tap_step && tap < kernel && (first * stride + tap * dilation - pad) % up != 0) tap++;
    const bool met = tap < tap_step && tap < kernel;
    DirectAxis p{};
    p.in = static_cast<int>(in);
    p.kernel = static_cast<int>(kernel);
    p.all_outs = static_cast<int>(out);
    p.first_out = static_cast<int>(first);
    p.out_step = static_cast<int>(period);
    p.outs = static_cast<int>((out - first + period - 1) / period);
    p.first_tap = static_cast<int>(met ? tap : 0);
    p.tap_step = static_cast<int>(tap_step);
    p.taps = static_cast<int>(met ? (kernel - tap + tap_step - 1) / tap_step : 0);
    p.stride = static_cast<int>(period * stride / up);
    p.pad = static_cast<int>(met ? (pad - first * stride - tap * dilation) / up : 0);
    p.dilation = static_cast<int>(tap_step * dilation / up);
    phases.push_back(p);
  }
  return phases;
}

// Calls body(shape of the phase) for every phase of both axes.
template <class Body>
Status for_phases(const ConvShape& s, Body&& body) {
  for (const DirectAxis& h : phases_of(s.in_h, s.kernel_h, s.out_h, s.stride_h, s.pad_h, s.dilation_h, s.up_h))
    for (const DirectAxis& w : phases_of(s.in_w, s.kernel_w, s.out_w, s.stride_w, s.pad_w, s.dilation_w, s.up_w)) {
      const Status status = body(DirectShape{static_cast<int>(s.images), static_cast<int>(s.groups), static_cast<int>(s.channels),
                                             static_cast<int>(s.out_channels), h, w});
      if (!status.ok()) return status;
    }
  return Status{};
}

template <class T>
Status turn_as(Gpu& gpu, const Turn& turn, void* to, const void* from) {
  const auto tiles = static_cast<int64_t>(turn.images) * turn.groups * turn.channel_tiles() * turn.pixel_tiles();
  if (!fits(tiles)) return too_many("conv2d", tiles);
  T* const out = static_cast<T*>(to);
  const T* const a = static_cast<const T*>(from);
  const auto number = static_cast<uint32_t>(tiles);
  CU_LAUNCH((channels_last<T>), row_blocks(tiles), dim3(kTurnThreads), kTurnSharedBytes, gpu.stream(), number, turn, out, a);
  return gpu.launched("conv2d");
}

// The image [n, groups * channels, h, w] with channels last, in scratch memory.
inline Status lay_image(Gpu& gpu, const View& v, int64_t groups, const uint8_t** laid) {
  const int64_t channels = v.shape[1] / groups, bytes = element_bytes(v.dtype), chunks = chunks_of(channels, v.dtype);
  const Turn turn{static_cast<uint32_t>(v.shape[0]), static_cast<uint32_t>(groups), static_cast<uint32_t>(channels),
                  static_cast<uint32_t>(chunks * 16 / bytes), static_cast<uint32_t>(v.shape[2] * v.shape[3])};
  void* memory;
  const int64_t size = v.shape[0] * groups * chunks * v.shape[2] * v.shape[3] * 16;
  const Status status = gpu.scratch(static_cast<size_t>(size > 16 ? size : 16), &memory);
  *laid = static_cast<const uint8_t*>(memory);
  if (!status.ok() || count(v) == 0) return status;
  return bytes == 4 ? turn_as<uint32_t>(gpu, turn, memory, v.data) : turn_as<uint16_t>(gpu, turn, memory, v.data);
}

template <class T>
Status lay_taps_as(Gpu& gpu, uint32_t n, const DirectShape& p, uint32_t padded, void* to, const void* from) {
  const Taps h{p.h.first_tap, p.h.tap_step, p.h.taps}, w{p.w.first_tap, p.w.tap_step, p.w.taps};
  const auto channels = static_cast<uint32_t>(p.channels);
  const int kernel_h = p.h.kernel, kernel_w = p.w.kernel;
  T* const out = static_cast<T*>(to);
  const T* const a = static_cast<const T*>(from);
  CU_LAUNCH((taps_first<T>), blocks_for(n), threads_for(n), 0, gpu.stream(), n, channels, padded, kernel_h, kernel_w, h, w, out, a);
  return gpu.launched("conv2d");
}

// The weights of a phase, a row an output channel, in scratch memory; of one group.
inline Status lay_weights(Gpu& gpu, const View& weight, const DirectShape& p, PlainRows* rows) {
  const int chunks = chunks_of(p.channels, weight.dtype), bytes = static_cast<int>(element_bytes(weight.dtype));
  rows->rows = p.out_channels;
  rows->row_bytes = p.h.taps * p.w.taps * chunks * 16;
  const int64_t size = static_cast<int64_t>(p.groups) * p.out_channels * rows->row_bytes;
  if (!fits(size / bytes)) return too_many("conv2d", size / bytes);
  void* memory;
  const Status status = gpu.scratch(static_cast<size_t>(size > 16 ? size : 16), &memory);
  rows->data = static_cast<const uint8_t*>(memory);
  if (!status.ok() || size == 0) return status;
  const auto n = static_cast<uint32_t>(size / bytes), padded = static_cast<uint32_t>(chunks * 16 / bytes);
  return bytes == 4 ? lay_taps_as<uint32_t>(gpu, n, p, padded, memory, weight.data)
                    : lay_taps_as<uint16_t>(gpu, n, p, padded, memory, weight.data);
}

// The patches of a phase in an image that lay_image() laid; of the first group.
inline Patches patches_of(const uint8_t* laid, const DirectShape& p, int chunks) {
  return {laid,         p.images,       p.h.outs,           p.w.outs,           p.h.in,
          p.w.in,       p.h.stride,     p.w.stride,         p.h.pad,            p.w.pad,
          p.h.dilation, p.w.dilation,   p.h.taps,           p.w.taps,           chunks,
          chunks * p.groups, Divisor::of(static_cast<int64_t>(p.h.outs) * p.w.outs), Divisor::of(p.w.outs), Divisor::of(chunks),
          Divisor::of(p.w.taps)};
}

// Where the phase's pixels lie in the output.
inline PixelPlaces places_of(const DirectShape& p, const View& out) {
  const int64_t rows = p.h.all_outs, columns = p.w.all_outs;
  PixelPlaces places;
  places.by_area = Divisor::of(static_cast<int64_t>(p.h.outs) * p.w.outs);
  places.by_width = Divisor::of(p.w.outs);
  places.plane = static_cast<uint32_t>(rows * columns);
  places.image = static_cast<uint32_t>(out.shape[1]) * places.plane;
  places.row = static_cast<uint32_t>(p.h.out_step * columns);
  places.column = static_cast<uint32_t>(p.w.out_step);
  places.whole = p.h.out_step == 1 && p.w.out_step == 1 && places.plane % 4 == 0 && reinterpret_cast<uintptr_t>(out.data) % 16 == 0;
  return places;
}

inline dim3 tiles_of(int64_t m, int bm, int64_t n, int bn, int64_t z) {
  return dim3(static_cast<unsigned>((m + bm - 1) / bm), static_cast<unsigned>((n + bn - 1) / bn), static_cast<unsigned>(z));
}

// The phase's output pixels, in an image of that many chunks a channel group.
inline Patches pixels_of(const uint8_t* laid, const DirectShape& p, int chunks) {
  DirectShape pixels = p;
  for (DirectAxis* axis : {&pixels.h, &pixels.w}) {
    axis->in = axis->all_outs;
    axis->stride = axis->out_step;
    axis->pad = -axis->first_out;
    axis->taps = axis->dilation = 1;
  }
  return patches_of(laid, pixels, chunks);
}

}  // namespace ops
}  // namespace cuda
}  // namespace kerf
