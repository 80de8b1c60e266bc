// The kernels of convolutions in the emulator. With KERF_QUICK one of them only: what a broken kernel is tried on (1: mma, 2:
// simt, 3: the weight gradient by simt, 4: channels last, 5: the weight gradient by mma).
#include "emulator/emulator.h"
#include "conv_cases.h"
#include "native/cuda/conv_layout.cuh"

using namespace cases;
using kerf::cuda::Divisor;

static Shape forward_shape(const Geometry& g) { return {g.pixels(), g.out_channels, g.kernel * g.kernel * g.channels}; }

template <class Out>
static ImageEpilogue<Out> epilogue_of(const Geometry& g, const Buffer<float>& bias, const Buffer<typename Stored<Out>::Element>& out) {
  const auto area = static_cast<uint32_t>(g.out() * g.out());
  const PixelPlaces places{Divisor::of(area), Divisor::of(g.out()), area * g.out_channels, area, static_cast<uint32_t>(g.out()), 1,
                           area % 4 == 0};
  return {bias.data(), Activation::relu, out.data(), places};
}

template <class T, int BN, int WM, int WN, int STAGES, class Out>
static void mma(const char* kernel, const Geometry& g) {
  using C = MmaConfig<T, 128, BN, WM, WN, STAGES>;
  const Convolution<T> c(g);
  runs(kernel, forward_shape(g), [&] {
    Buffer<typename Stored<Out>::Element> out(size_t(g.pixels()) * g.out_channels);
    const Patches patches = c.patches();
    const PlainRows weights = c.weights();
    const ImageEpilogue<Out> epilogue = epilogue_of<Out>(g, c.bias, out);
    CU_LAUNCH((conv_mma<C, ImageEpilogue<Out>>), dim3((g.pixels() + 127) / 128, (g.out_channels + BN - 1) / BN), dim3(C::kThreads),
              C::kSharedBytes, 0, patches, weights, epilogue);
    return worst_of_forward<Out>(c, out);
  });
}

static void simt(const Geometry& g) {
  const Convolution<float> c(g);
  runs("conv f32", forward_shape(g), [&] {
    Buffer<float> out(size_t(g.pixels()) * g.out_channels);
    const Patches patches = c.patches();
    const PlainRows weights = c.weights();
    const ImageEpilogue<float> epilogue = epilogue_of<float>(g, c.bias, out);
    CU_LAUNCH((conv_simt<ImageEpilogue<float>>), dim3((g.pixels() + 127) / 128, (g.out_channels + 127) / 128), dim3(kSimtThreads),
              kConvSimtBytes, 0, patches, weights, epilogue);
    return worst_of_forward<float>(c, out);
  });
}

// Two parts of the pixels.
template <class T, class Launch>
static void weight_grad(const char* kernel, const Geometry& g, int bm, int bn, Launch launch) {
  const Convolution<T> c(g);
  const int columns = g.kernel * g.kernel * c.chunks * c.kUnit;
  runs(kernel, {columns, g.out_channels, g.pixels()}, [&] {
    const dim3 grid((columns + bm - 1) / bm, (g.out_channels + bn - 1) / bn, 2);
    Buffer<float> out(size_t(g.out_channels) * columns), parts(size_t(grid.x) * grid.y * 2 * bm * bn);
    Buffer<unsigned> arrived(grid.x * grid.y);
    for (unsigned i = 0; i < grid.x * grid.y; i++) arrived[i] = 0;
    const Split split{reinterpret_cast<uint8_t*>(parts.data()), arrived.data()};
    launch(grid, c.patches(), c.gradients(), columns, split, Epilogue<float>{nullptr, nullptr, nullptr, Activation::none, out.data()});
    return worst_of_weight_grad(c, out);
  });
}

template <class T>
static void weight_grad_mma(const char* kernel, const Geometry& g) {
  using C = MmaConfig<T, 128, 64, 64, 32, 3>;
  const int channels = g.out_channels;
  weight_grad<T>(kernel, g, C::BM, C::BN, [=](dim3 grid, Patches input, Patches grad, int columns, Split split, Epilogue<float> e) {
    CU_LAUNCH((conv_weight_grad_mma<C>), grid, dim3(C::kThreads), C::kSharedBytes, 0, input, grad, columns, channels, split, e);
  });
}

static void weight_grad_simt(const Geometry& g) {
  const int channels = g.out_channels;
  weight_grad<float>("conv grad f32", g, kSimtTile, kSimtTile,
                     [=](dim3 grid, Patches input, Patches grad, int columns, Split split, Epilogue<float> e) {
                       CU_LAUNCH(conv_weight_grad_simt, grid, dim3(kSimtThreads), kSimtSplitBytes, 0, input, grad, columns, channels,
                                 split, e);
                     });
}

// By one block: several tiles after each other.
template <class T>
static void turn(const char* kernel, const Turn& t) {
  runs(kernel, {static_cast<int>(t.pixels), static_cast<int>(t.padded), 1}, [&] {
    Buffer<T> from(size_t(t.images) * t.groups * t.channels * t.pixels), to(size_t(t.images) * t.groups * t.padded * t.pixels);
    for (size_t i = 0; i < from.size(); i++) from[i] = static_cast<T>(i * 7 + 1);
    const T* const a = from.data();
    T* const out = to.data();
    const uint32_t tiles = t.images * t.groups * t.channel_tiles() * t.pixel_tiles();
    CU_LAUNCH((channels_last<T>), dim3(1), dim3(kTurnThreads), kTurnSharedBytes, 0, tiles, t, out, a);
    for (uint32_t plane = 0; plane < t.images * t.groups; plane++)
      for (uint32_t c = 0; c < t.padded; c++)
        for (uint32_t p = 0; p < t.pixels; p++) {
          const T want = c < t.channels ? from[(size_t(plane) * t.channels + c) * t.pixels + p] : T(0);
          const size_t at = ((size_t(plane / t.groups) * t.pixels + p) * t.groups + plane % t.groups) * t.padded + c;
          if (to[at] != want) return static_cast<double>(INFINITY);
        }
    return 0.0;
  });
}

int main() {
  using cu::bf16, cu::f16;
  // images, channels, size, out channels, kernel, stride, pad
  const Geometry whole{2, 64, 8, 64, 3, 1, 1}, ragged{3, 5, 7, 19, 3, 2, 2}, narrow{1, 16, 5, 6, 2, 1, 0}, columns{2, 64, 9, 64, 2, 1, 0};
  [[maybe_unused]] const Geometry wide{2, 32, 9, 128, 2, 1, 0};
  const int quick =
#ifdef KERF_QUICK
      KERF_QUICK;
#else
      0;
#endif
  if (quick == 0 || quick == 1) mma<f16, 64, 64, 32, 3, f16>("conv f16 128x64", whole);
  if (quick == 0 || quick == 2) simt({2, 16, 8, 128, 3, 1, 1});
  if (quick == 0 || quick == 3) weight_grad_simt(wide);
  if (quick == 0 || quick == 4) turn<uint16_t>("channels last 16", {2, 1, 64, 64, 64});
  if (quick == 0 || quick == 5) weight_grad_mma<f16>("conv grad f16", columns);
  if (quick != 0) return 0;
  mma<bf16, 64, 64, 32, 3, float>("conv bf16 128x64", ragged);
  mma<f16, 16, 32, 16, 4, f16>("conv f16 128x16", narrow);
  mma<bf16, 16, 32, 16, 4, bf16>("conv bf16 128x16", ragged);
  simt(ragged);
  simt(narrow);
  weight_grad_simt(ragged);
  weight_grad_mma<bf16>("conv grad bf16", ragged);
  weight_grad_mma<f16>("conv grad f16", narrow);
  turn<uint32_t>("channels last 32", {1, 1, 32, 32, 64});
  turn<uint16_t>("channels last 16", {2, 3, 5, 8, 37});
}
