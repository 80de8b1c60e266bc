// Random products for the kernels of native/cuda/ and a float64 reference of what they must store. A program prints one
// line of JSON for every run; the tests judge.
#pragma once
#include <random>

#include "program.h"
#include "native/cuda/epilogue.h"

namespace cases {

using namespace kerf::cuda;
using target::Buffer;
using kerf::Activation;

struct Shape { int m, n, k; };

// `plain`: no scales, bias and activation, so that integer sums must come out exactly.
struct Run {
  Shape shape;
  bool plain;
  bool late;
  unsigned seed;
};

// Values of the operand type; 4-byte "types" are float.
template <class T>
constexpr int bytes_of() {
  if constexpr (std::is_same_v<T, float>)
    return 4;
  else
    return cu::kBytesOf<T>;
}

template <class Out>
double value_of(typename Stored<Out>::Element stored) {
  if constexpr (std::is_same_v<Out, float>)
    return static_cast<double>(stored);
  else if constexpr (std::is_same_v<Out, cu::f16>)
    return static_cast<double>(kerf::to_float(kerf::f16{stored}));
  else
    return static_cast<double>(kerf::to_float(kerf::bf16{stored}));
}

template <class Out>
constexpr double rounding() {  // half a unit in the last place, relative
  return std::is_same_v<Out, float> ? 0x1p-24 : std::is_same_v<Out, cu::f16> ? 0x1p-11 : 0x1p-8;
}

// In units of the bound: k products summed in float32, what the epilogue does, the rounding of the output.
template <class Out>
double off(double got, double sum, double size, int k, double bias, bool relu) {
  const double linear = sum + bias, want = relu ? std::max(linear, 0.0) : linear;
  double bound = (k + 2) * 0x1p-24 * (size + std::fabs(bias));
  bound += rounding<Out>() * (std::fabs(want) + bound) + 0x1p-25;
  return std::isnan(got) ? INFINITY : std::fabs(got - want) / bound;
}

template <class T, class Out>
struct Product {
  using Output = Out;
  Shape s;
  bool plain;
  Buffer<uint8_t> w, x;
  Buffer<float> weight_scale, token_scale, bias;
  Buffer<typename Stored<Out>::Element> out;
  std::vector<double> w_values, x_values;

  explicit Product(const Run& run)
      : s(run.shape), plain(run.plain), w(size_t(s.m) * s.k * bytes_of<T>()), x(size_t(s.n) * s.k * bytes_of<T>()),
        weight_scale(s.m), token_scale(s.n), bias(s.m), out(size_t(s.n) * s.m),
        w_values(size_t(s.m) * s.k), x_values(size_t(s.n) * s.k) {
    std::mt19937 random(7);
    std::normal_distribution<double> normal;
    constexpr bool whole = std::is_same_v<T, cu::s8>;
    auto draw = [&] { return whole ? std::clamp(std::round(normal(random) * 60), -128.0, 127.0) : normal(random); };
    for (size_t i = 0; i < w_values.size(); i++) w_values[i] = program::store<T>(w.data(), i, draw());
    for (size_t i = 0; i < x_values.size(); i++) x_values[i] = program::store<T>(x.data(), i, draw());
    const float unit = whole ? 0.02f : 1.0f;
    for (int m = 0; m < s.m; m++) weight_scale[m] = unit * (1 + 0.1f * static_cast<float>(normal(random)));
    for (int n = 0; n < s.n; n++) token_scale[n] = unit * (1 + 0.1f * static_cast<float>(normal(random)));
    for (int m = 0; m < s.m; m++) bias[m] = static_cast<float>(normal(random));
  }

  Activation activation() const { return s.n % 2 ? Activation::relu : Activation::silu; }

  Epilogue<Out> epilogue() const {
    if (plain) return {nullptr, nullptr, nullptr, Activation::none, out.data()};
    return {weight_scale.data(), token_scale.data(), bias.data(), activation(), out.data()};
  }

  // How far the worst element is from the reference, in units of its bound; infinite for NaN. Products are exact; a sum
  // of k terms in float32 is off by at most k units of 2^-24 of the sum of magnitudes (k + 2 with a scale for all of
  // them), the epilogue by 8 of its value
  // (expf included; silu's slope is below 1.1), and then comes the rounding of the output.
  double worst() const {
    double most = 0;
    for (int n = 0; n < s.n; n++)
      for (int m = 0; m < s.m; m++) {
        double sum = 0, size = 0;
        for (int k = 0; k < s.k; k++) {
          double p = w_values[size_t(m) * s.k + k] * x_values[size_t(n) * s.k + k];
          sum += p;
          size += std::fabs(p);
        }
        double bound = std::is_same_v<T, cu::s8> ? 0 : (s.k + 2) * 0x1p-24 * size;
        double want = sum;
        if (!plain) {
          double scale = double(weight_scale[m]) * double(token_scale[n]);
          double linear = sum * scale + double(bias[m]);
          double parts = std::fabs(sum * scale) + std::fabs(double(bias[m]));
          bound = 1.1 * (bound * std::fabs(scale) + 8 * 0x1p-24 * parts);
          want = activation() == Activation::relu ? std::max(linear, 0.0) : linear / (1 + std::exp(-linear));
        }
        if (!(plain && std::is_same_v<T, cu::s8> && std::is_same_v<Out, float>))
          bound += rounding<Out>() * (std::fabs(want) + bound) + 0x1p-25;
        double got = value_of<Out>(out[size_t(n) * s.m + m]), off = std::fabs(got - want);
        if (off == 0) continue;
        most = std::max(most, std::isnan(off) || bound == 0 ? INFINITY : off / bound);
      }
    return most;
  }
};

#ifndef __CUDACC__
inline void print(const char* kernel, const Run& run, double worst) {
  using cu::emu::machine;
  printf("{\"kernel\":\"%s\",\"m\":%d,\"n\":%d,\"k\":%d,", kernel, run.shape.m, run.shape.n, run.shape.k);
  printf("\"plain\":%d,\"late\":%d,\"seed\":%u,\"worst\":%.4g,\"reports\":[", run.plain, run.late, run.seed,
         std::isinf(worst) ? 1e300 : worst);
  const char* comma = "";
  for (auto& [what, count] : machine.reports) {
    printf("%s\"%s\"", comma, what.c_str());
    comma = ",";
  }
  printf("],\"sites\":[");
  comma = "";
  for (auto& [key, site] : machine.sites) {
    auto [file, line, column, shared] = key;
    std::string name = file;
    printf("%s{\"file\":\"%s\",\"line\":%u,\"shared\":%d,\"accesses\":%llu,\"cost\":%.4f}", comma,
           name.substr(name.rfind('/') + 1).c_str(), line, shared, static_cast<unsigned long long>(site.accesses),
           static_cast<double>(site.actual) / static_cast<double>(site.ideal));
    comma = ",";
  }
  printf("]}\n");
}

// Runs `launch`, which answers how far off it was, for every mode and seed; printed as a product of this shape.
template <class Launch>
void runs(const char* kernel, const Shape& shape, Launch launch) {
  for (bool late : {false, true})
    for (unsigned seed : {0u, 1u, 2u}) {
      cu::emu::prepare({seed, late, true});
      const double worst = launch();
      print(kernel, Run{shape, false, late, seed}, worst);
    }
}

// Runs `launch(product)` for every mode, seed and shape.
template <class T, class Out, class Launch>
void all(const char* kernel, const std::vector<Shape>& shapes, bool plain, Launch launch) {
  for (const Shape& shape : shapes)
    for (bool late : {false, true})
      for (unsigned seed : {0u, 1u, 2u}) {
        Run run{shape, plain, late, seed};
        Product<T, Out> product(run);
        cu::emu::prepare({seed, late, true});
        launch(product);
        print(kernel, run, product.worst());
      }
}
#endif

}  // namespace cases
