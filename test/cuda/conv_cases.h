// A convolution for the kernels of native/cuda/ as they get it, images channels last and weights with taps before channels, and a
// float64 reference of what they must store.
#pragma once
#include "matmul_cases.h"
#include "native/cuda/conv.cuh"
#include "native/cuda/conv_weight_grad.cuh"

namespace cases {

struct Geometry {
  int images, channels, size, out_channels, kernel, stride, pad;
  int out() const { return (size + 2 * pad - kernel) / stride + 1; }
  int pixels() const { return images * out() * out(); }
};

template <class T>
struct Convolution {
  static constexpr int kUnit = 16 / bytes_of<T>();
  Geometry g;
  int chunks, out_chunks;
  Buffer<uint8_t> x, weight, grad;  // [image][y][x][padded], [out channel][tap][padded], [image][y][x][padded]
  std::vector<double> x_values, weight_values, grad_values;  // without padding
  Buffer<float> bias;

  explicit Convolution(const Geometry& geometry)
      : g(geometry), chunks((g.channels + kUnit - 1) / kUnit), out_chunks((g.out_channels + kUnit - 1) / kUnit),
        x(size_t(g.images) * g.size * g.size * chunks * 16), weight(size_t(g.out_channels) * g.kernel * g.kernel * chunks * 16),
        grad(size_t(g.pixels()) * out_chunks * 16), bias(g.out_channels) {
    std::mt19937 random(5);
    std::normal_distribution<double> normal;
    auto lay = [&](Buffer<uint8_t>& to, std::vector<double>& values, int channels) {
      const int padded = (channels + kUnit - 1) / kUnit * kUnit;
      const size_t rows = to.size() / (size_t(padded) * bytes_of<T>());
      for (size_t row = 0; row < rows; row++)
        for (int c = 0; c < padded; c++) {
          const double v = program::store<T>(to.data(), row * padded + c, c < channels ? normal(random) : 0);
          if (c < channels) values.push_back(v);
        }
    };
    lay(x, x_values, g.channels);
    lay(weight, weight_values, g.channels);
    lay(grad, grad_values, g.out_channels);
    for (int o = 0; o < g.out_channels; o++) bias[o] = static_cast<float>(normal(random));
  }

  kerf::cuda::Patches patches() const {
    return {x.data(), g.images, g.out(), g.out(), g.size, g.size, g.stride, g.stride, g.pad, g.pad, 1, 1, g.kernel, g.kernel,
            chunks, chunks, Divisor::of(g.out() * g.out()), Divisor::of(g.out()), Divisor::of(chunks), Divisor::of(g.kernel)};
  }
  kerf::cuda::Patches gradients() const {
    return {grad.data(), g.images, g.out(), g.out(), g.out(), g.out(), 1, 1, 0, 0, 1, 1, 1, 1, out_chunks, out_chunks,
            Divisor::of(g.out() * g.out()), Divisor::of(g.out()), Divisor::of(out_chunks), Divisor::of(1)};
  }
  PlainRows weights() const { return {weight.data(), g.out_channels, g.kernel * g.kernel * chunks * 16}; }

  // Calls body(pixel, element of x's image at channel 0) for every output pixel that tap (r, s) takes inside.
  template <class Body>
  void meets(int r, int s, Body body) const {
    for (int p = 0; p < g.pixels(); p++) {
      const int image = p / (g.out() * g.out()), y = p / g.out() % g.out() * g.stride + r - g.pad, column = p % g.out() * g.stride + s - g.pad;
      if (y >= 0 && y < g.size && column >= 0 && column < g.size) body(p, size_t((image * g.size + y) * g.size + column) * g.channels);
    }
  }
};

// out [image][channel][pixel]
template <class Out, class T>
double worst_of_forward(const Convolution<T>& c, const Buffer<typename Stored<Out>::Element>& out) {
  const Geometry& g = c.g;
  const int area = g.out() * g.out(), k = g.kernel * g.kernel * g.channels;
  double most = 0;
  for (int o = 0; o < g.out_channels; o++) {
    std::vector<double> sums(g.pixels()), sizes(g.pixels());
    for (int r = 0; r < g.kernel; r++)
      for (int s = 0; s < g.kernel; s++)
        c.meets(r, s, [&](int p, size_t at) {
          for (int i = 0; i < g.channels; i++) {
            const double v = c.x_values[at + i] * c.weight_values[size_t((o * g.kernel + r) * g.kernel + s) * g.channels + i];
            sums[p] += v;
            sizes[p] += std::fabs(v);
          }
        });
    for (int p = 0; p < g.pixels(); p++)
      most = std::max(most, off<Out>(value_of<Out>(out[size_t(p / area * g.out_channels + o) * area + p % area]), sums[p], sizes[p], k,
                                     double(c.bias[o]), true));
  }
  return most;
}

// out [channel][tap][padded channel]
template <class T>
double worst_of_weight_grad(const Convolution<T>& c, const Buffer<float>& out) {
  const Geometry& g = c.g;
  double most = 0;
  for (int o = 0; o < g.out_channels; o++)
    for (int tap = 0; tap < g.kernel * g.kernel; tap++)
      for (int i = 0; i < g.channels; i++) {
        double sum = 0, size = 0;
        c.meets(tap / g.kernel, tap % g.kernel, [&](int p, size_t at) {
          const double v = c.grad_values[size_t(p) * g.out_channels + o] * c.x_values[at + i];
          sum += v;
          size += std::fabs(v);
        });
        const size_t at = (size_t(o) * g.kernel * g.kernel + tap) * c.chunks * c.kUnit + i;
        most = std::max(most, off<float>(double(out[at]), sum, size, g.pixels(), 0, false));
      }
  return most;
}

}  // namespace cases
