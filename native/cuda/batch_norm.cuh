// Batch norm on contiguous [n, c, s]. A team of threads has a channel: a block, or one thread where channels lie side by side (s
// is 1). Sums are float64, in one order; what happens to every element is a kernel of its own.
#pragma once
#include "block.cuh"

namespace kerf {
namespace cuda {

struct Channels {
  uint32_t n, c, s;
  CU_FUNCTION uint32_t size() const { return n * s; }
  // Element number i of a channel.
  CU_FUNCTION uint32_t at(uint32_t channel, uint32_t i) const { return (i / s * c + channel) * s + i % s; }
  CU_FUNCTION uint32_t of(uint32_t element) const { return element / s % c; }
};

struct Two {
  double first, second;
  CU_FUNCTION Two operator+(const Two& b) const { return {first + b.first, second + b.second}; }
};

struct BlockTeam {
  CU_FUNCTION static uint32_t first() { return blockIdx.x; }
  CU_FUNCTION static uint32_t step() { return gridDim.x; }
  CU_FUNCTION static bool leads() { return threadIdx.x == 0; }
  template <class Term>
  CU_FUNCTION static Two sum(uint32_t n, uint8_t* slots, Term term) {
    Two all{0, 0};
    for (uint32_t i = threadIdx.x; i < n; i += blockDim.x) all = all + term(i);
    return fold(all, slots, [](const Two& a, const Two& b) { return a + b; });
  }
};
struct ThreadTeam {
  CU_FUNCTION static uint32_t first() { return first_element(); }
  CU_FUNCTION static uint32_t step() { return element_step(); }
  CU_FUNCTION static bool leads() { return true; }
  template <class Term>
  CU_FUNCTION static Two sum(uint32_t n, uint8_t*, Term term) {
    Two all{0, 0};
    for (uint32_t i = 0; i < n; i++) all = all + term(i);
    return all;
  }
};

// One float a channel each; null: absent.
struct ChannelStatistics {
  float* mean;
  float* rstd;
  float* running_mean;
  float* running_var;
};

// The deviations are from the rounded mean, and their sum takes back what rounding it did.
template <class Team, class A>
__global__ void channel_statistics(Channels shape, A a, ChannelStatistics to, double momentum, double eps) {
  uint8_t* const slots = cu::shared_memory();
  const double size = static_cast<double>(shape.size());
  for (uint32_t c = Team::first(); c < shape.c; c += Team::step()) {
    auto x = [&](uint32_t i) { return a.get(shape.at(c, i)); };
    const Two total = Team::sum(shape.size(), slots, [&](uint32_t i) { return Two{static_cast<double>(x(i)), 0}; });
    const float centre = static_cast<float>(total.first / size);
    const Two left = Team::sum(shape.size(), slots, [&](uint32_t i) {
      const float off = x(i) - centre;
      return Two{static_cast<double>(off), static_cast<double>(off * off)};
    });
    if (!Team::leads()) continue;
    const double squares = left.second - left.first * left.first / size, variance = (squares < 0 ? 0 : squares) / size;
    cu::store_global(to.mean + c, centre);
    cu::store_global(to.rstd + c, static_cast<float>(1 / sqrt(variance + eps)));
    if (!to.running_mean) continue;
    auto move = [&](float* running, double value) {
      const double before = static_cast<double>(cu::load_own(running));
      cu::store_global(running, static_cast<float>((1 - momentum) * before + momentum * value));
    };
    move(to.running_mean + c, static_cast<double>(centre) + left.first / size);
    move(to.running_var + c, variance * size / (size - 1));
  }
}

// mean and rstd from the running ones.
__global__ void given_statistics(uint32_t channels, ChannelStatistics of, double eps) {
  for (uint32_t c = first_element(); c < channels; c += element_step()) {
    cu::store_global(of.mean + c, cu::load_global(of.running_mean + c));
    cu::store_global(of.rstd + c, static_cast<float>(1 / sqrt(static_cast<double>(cu::load_global(of.running_var + c)) + eps)));
  }
}

// What a channel's elements share, in float32; null: 1 or 0.
struct ChannelTerms {
  const float* mean;
  const float* rstd;
  const float* weight;
  const float* bias;
  CU_FUNCTION float centre(uint32_t c) const { return cu::load_global(mean + c); }
  CU_FUNCTION float scale(uint32_t c) const {
    const float r = cu::load_global(rstd + c);
    return weight ? cu::load_global(weight + c) * r : r;
  }
  CU_FUNCTION float shift(uint32_t c) const { return bias ? cu::load_global(bias + c) : 0.0f; }
};

template <class A>
__global__ void normalize_channels(uint32_t n, Channels shape, A out, A a, ChannelTerms by) {
  for (uint32_t i = first_element(); i < n; i += element_step()) {
    const uint32_t c = shape.of(i);
    out.put(i, (a.own(i) - by.centre(c)) * by.scale(c) + by.shift(c));
  }
}

// What a channel's gradients come to; dweight and dbias may be null. With h = (a - mean) rstd: dbias = sum(grad), dweight =
// sum(grad h), da = weight rstd (grad - mean_grad - (a - mean) slope).
struct ChannelSums {
  float* dweight;
  float* dbias;
  float* mean_grad;
  float* slope;
};

template <class Team, class A>
__global__ void channel_sums(Channels shape, A grad, A a, ChannelTerms by, ChannelSums to) {
  uint8_t* const slots = cu::shared_memory();
  const double size = static_cast<double>(shape.size());
  for (uint32_t c = Team::first(); c < shape.c; c += Team::step()) {
    const float centre = by.centre(c);
    const Two sums = Team::sum(shape.size(), slots, [&](uint32_t i) {
      const uint32_t at = shape.at(c, i);
      const float g = grad.get(at);
      return Two{static_cast<double>(g), static_cast<double>(g * (a.get(at) - centre))};
    });
    if (!Team::leads()) continue;
    const double r = static_cast<double>(cu::load_global(by.rstd + c));
    if (to.dweight) cu::store_global(to.dweight + c, static_cast<float>(sums.second * r));
    if (to.dbias) cu::store_global(to.dbias + c, static_cast<float>(sums.first));
    cu::store_global(to.mean_grad + c, static_cast<float>(sums.first / size));
    cu::store_global(to.slope + c, static_cast<float>(sums.second * r * r / size));
  }
}

// Given statistics are constants: da = weight rstd grad.
template <bool given, class A>
__global__ void channel_grad(uint32_t n, Channels shape, A da, A grad, A a, ChannelTerms by, const float* mean_grad,
                             const float* slope) {
  for (uint32_t i = first_element(); i < n; i += element_step()) {
    const uint32_t c = shape.of(i);
    float g = grad.own(i);
    if (!given) g = g - cu::load_global(mean_grad + c) - (a.own(i) - by.centre(c)) * cu::load_global(slope + c);
    da.put(i, by.scale(c) * g);
  }
}

}  // namespace cuda
}  // namespace kerf
