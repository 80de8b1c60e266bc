// conv2d and conv2dWeightGrad: products whose operands are patches of images laid channels last; few output channels a group
// directly.
#include "../conv.cuh"

#include "../conv_weight_grad.cuh"
#include "../finish.h"
#include "activate.h"
#include "conv_plan.h"

namespace kerf {
namespace cuda {
namespace ops {
namespace {

constexpr int kFewChannels = 4;  // of a group's outputs: a tile of 16 or more would mostly be empty

bool describe(const View& out, const View& x, const View& w, const Geometry& g, ConvShape& s) {
  return w.rank == 4 && contiguous(w) && describe_conv(out, x, {w.shape[0], w.shape[1], w.shape[2], w.shape[3]}, g, s);
}

// ---- forward

struct Forward {
  View out, x, weight;
  const float* bias;
  Activation activation;
  const uint8_t* laid;  // x, channels last
};

template <class Out>
ImageEpilogue<Out> epilogue_of(const Forward& f, const DirectShape& p) {
  auto* const out = static_cast<typename Stored<Out>::Element*>(f.out.data) + p.h.first_out * p.w.all_outs + p.w.first_out;
  return {f.bias, f.activation, out, places_of(p, f.out)};
}

template <class C, class Out>
Status run_mma(Gpu& gpu, const Forward& f, const DirectShape& p, const Patches& patches, const PlainRows& weights) {
  using E = ImageEpilogue<Out>;
  const Status status = allow_shared<conv_mma<C, E>>("conv2d", C::kSharedBytes);
  if (!status.ok()) return status;
  const E epilogue = epilogue_of<Out>(f, p);
  CU_LAUNCH((conv_mma<C, E>), tiles_of(patches.rows(), C::BM, p.out_channels, C::BN, p.groups), dim3(C::kThreads), C::kSharedBytes,
            gpu.stream(), patches, weights, epilogue);
  return gpu.launched("conv2d");
}

template <class T, class Out>
Status choose_mma(Gpu& gpu, const Forward& f, const DirectShape& p, const Patches& patches, const PlainRows& weights) {
  if (p.out_channels <= 16) return run_mma<MmaConfig<T, 128, 16, 32, 16, 4>, Out>(gpu, f, p, patches, weights);
  return run_mma<MmaConfig<T, 128, 64, 64, 32, 3>, Out>(gpu, f, p, patches, weights);
}

template <class T>
Status choose_out(Gpu& gpu, const Forward& f, const DirectShape& p, const Patches& patches, const PlainRows& weights) {
  if (f.out.dtype == DType::float32_) return choose_mma<T, float>(gpu, f, p, patches, weights);
  return choose_mma<T, T>(gpu, f, p, patches, weights);
}

Status multiply(Gpu& gpu, const Forward& f, const DirectShape& p) {
  PlainRows weights;
  const Status status = lay_weights(gpu, f.weight, p, &weights);
  if (!status.ok()) return status;
  const Patches patches = patches_of(f.laid, p, chunks_of(p.channels, f.x.dtype));
  if (f.x.dtype == DType::float16_) return choose_out<cu::f16>(gpu, f, p, patches, weights);
  if (f.x.dtype == DType::bfloat16_) return choose_out<cu::bf16>(gpu, f, p, patches, weights);
  const ImageEpilogue<float> epilogue = epilogue_of<float>(f, p);
  CU_LAUNCH((conv_simt<ImageEpilogue<float>>), tiles_of(patches.rows(), kSimtTile, p.out_channels, kSimtTile, p.groups),
            dim3(kSimtThreads), kConvSimtBytes, gpu.stream(), patches, weights, epilogue);
  return gpu.launched("conv2d");
}

Status directly(Gpu& gpu, const Forward& f, const DirectShape& p) {
  const int64_t n = f.out.shape[0] * f.out.shape[1] * p.h.outs * p.w.outs;
  const Finish finish{f.bias, f.activation};
  return with_floats("conv2d", f.x.dtype, [&](auto type) {
    return with_floats("conv2d", f.out.dtype, [&](auto out_type) {
      using T = decltype(type);
      using Out = decltype(out_type);
      const auto size = static_cast<uint32_t>(n);
      const Out to{f.out.data};
      const T from{f.x.data}, weight{f.weight.data};
      CU_LAUNCH((conv_direct<Out, T, Finish>), blocks_for(n), threads_for(n), 0, gpu.stream(), size, p, to, from, weight, finish);
      return gpu.launched("conv2d");
    });
  });
}

// ---- the gradient for weights

struct WeightGrad {
  View dweight, grad, x;
  const uint8_t *laid_grad, *laid_x;
};

template <class Kernel>
Status run_split(Gpu& gpu, const WeightGrad& g, const DirectShape& p, int bm, int bn, int pixels_of_tile, Kernel&& launch) {
  const DType dtype = g.x.dtype;
  const int chunks = chunks_of(p.channels, dtype), out_chunks = chunks_of(p.out_channels, dtype);
  const int64_t taps = static_cast<int64_t>(p.h.taps) * p.w.taps, padded = chunks * (16 / element_bytes(dtype)), columns = taps * padded;
  if (columns == 0) return Status{};
  Patches input = patches_of(g.laid_x, p, chunks), pixels = pixels_of(g.laid_grad, p, out_chunks);
  // Two waves of an H100's multiprocessors, at least four tiles of pixels each; by the shape alone, so that sums never change.
  dim3 grid = tiles_of(columns, bm, p.out_channels, bn, 1);
  const int64_t tiles = static_cast<int64_t>(grid.x) * grid.y, depth = (static_cast<int64_t>(pixels.rows()) + pixels_of_tile - 1) / pixels_of_tile;
  const int64_t most = depth / 4 > 1 ? depth / 4 : 1, wanted = (264 + tiles - 1) / tiles;
  grid.z = static_cast<unsigned>(wanted < most ? wanted : most);

  void *parts, *arrived, *sums;
  Status status = gpu.scratch(static_cast<size_t>(tiles * grid.z * bm * bn) * 4, &parts);
  if (status.ok()) status = gpu.scratch(static_cast<size_t>(tiles) * 4, &arrived);
  if (status.ok()) status = gpu.scratch(static_cast<size_t>(columns * p.out_channels) * 4, &sums);
  if (!status.ok()) return status;
  View words{};
  words.data = arrived;
  words.dtype = DType::int32_;
  words.rank = 1;
  words.shape[0] = tiles;
  words.stride[0] = 1;
  status = fill(gpu, words, 0);
  const Split split{static_cast<uint8_t*>(parts), static_cast<unsigned*>(arrived)};
  const Epilogue<float> epilogue{nullptr, nullptr, nullptr, Activation::none, static_cast<float*>(sums)};
  for (int group = 0; group < p.groups && status.ok(); group++) {
    status = launch(grid, input, pixels, static_cast<int>(columns), split, epilogue);
    if (!status.ok()) return status;
    input.data += static_cast<size_t>(chunks) * 16;
    pixels.data += static_cast<size_t>(out_chunks) * 16;
    // [output][tap][channel] to [output][channel][tap of the kernel]
    View from{}, to{};
    from.dtype = to.dtype = DType::float32_;
    from.rank = to.rank = 4;
    const int64_t shape[4] = {p.out_channels, p.channels, p.h.taps, p.w.taps};
    const int64_t source[4] = {columns, 1, p.w.taps * padded, padded};
    const int64_t target[4] = {p.weight(1, 0), p.weight(0, 1), static_cast<int64_t>(p.h.tap_step) * p.w.kernel, p.w.tap_step};
    for (int i = 0; i < 4; i++) {
      from.shape[i] = to.shape[i] = shape[i];
      from.stride[i] = source[i];
      to.stride[i] = target[i];
    }
    from.data = sums;
    to.data = static_cast<float*>(g.dweight.data) + p.weight(group * p.out_channels, 0) +
              static_cast<int64_t>(p.h.first_tap) * p.w.kernel + p.w.first_tap;
    status = copy(gpu, to, from);
  }
  return status;
}

template <class T>
Status weight_grad_mma(Gpu& gpu, const WeightGrad& g, const DirectShape& p) {
  using C = MmaConfig<T, 128, 64, 64, 32, 3>;
  const Status status = allow_shared<conv_weight_grad_mma<C>>("conv2dWeightGrad", C::kSharedBytes);
  if (!status.ok()) return status;
  return run_split(gpu, g, p, C::BM, C::BN, ColumnTiles<C>::kPixels,
                   [&](dim3 grid, const Patches& input, const Patches& pixels, int columns, const Split& split, const Epilogue<float>& e) {
                     const int channels = p.out_channels;
                     CU_LAUNCH((conv_weight_grad_mma<C>), grid, dim3(C::kThreads), C::kSharedBytes, gpu.stream(), input, pixels,
                               columns, channels, split, e);
                     return gpu.launched("conv2dWeightGrad");
                   });
}

Status weight_grad_simt(Gpu& gpu, const WeightGrad& g, const DirectShape& p) {
  const Status status = allow_shared<conv_weight_grad_simt>("conv2dWeightGrad", kSimtSplitBytes);
  if (!status.ok()) return status;
  return run_split(gpu, g, p, kSimtTile, kSimtTile, kSimtDepth,
                   [&](dim3 grid, const Patches& input, const Patches& pixels, int columns, const Split& split, const Epilogue<float>& e) {
                     const int channels = p.out_channels;
                     CU_LAUNCH(conv_weight_grad_simt, grid, dim3(kSimtThreads), kSimtSplitBytes, gpu.stream(), input, pixels, columns,
                               channels, split, e);
                     return gpu.launched("conv2dWeightGrad");
                   });
}

Status weight_grad_directly(Gpu& gpu, const WeightGrad& g, const DirectShape& p) {
  const int64_t n = g.dweight.shape[0] * g.dweight.shape[1] * p.h.taps * p.w.taps;
  if (n == 0) return Status{};
  if (!fits(n)) return too_many("conv2dWeightGrad", n);
  return with_floats("conv2dWeightGrad", g.x.dtype, [&](auto type) {
    using T = decltype(type);
    const auto size = static_cast<uint32_t>(n);
    float* const to = static_cast<float*>(g.dweight.data);
    const T grad{g.grad.data}, x{g.x.data};
    const bool many = static_cast<int64_t>(p.images) * p.h.outs * p.w.outs > 1024;
    CU_LAUNCH((conv_direct_weight_grad<T>), row_blocks(n), dim3(many ? kThreads : 32),
              kFoldBytes, gpu.stream(), size, p, to, grad, x);
    return gpu.launched("conv2dWeightGrad");
  });
}

}  // namespace

Status conv2d(Gpu& gpu, View out, View x, View weight, OptView bias, i64 activation, i64 groups, i64 strideH, i64 strideW, i64 padH,
              i64 padW, i64 dilationH, i64 dilationW, i64 upH, i64 upW) {
  REQUIRE(weight.dtype == x.dtype && (out.dtype == x.dtype || out.dtype == DType::float32_));
  REQUIRE(activation >= 0 && activation <= static_cast<i64>(Activation::tanh));
  ConvShape s;
  REQUIRE(describe(out, x, weight, {groups, strideH, strideW, padH, padW, dilationH, dilationW, upH, upW}, s));
  REQUIRE(holds_bias(bias, weight.shape[0]));
  if (!is_floating(x.dtype)) return no_kernel("conv2d", x.dtype);
  if (count(out) == 0) return Status{};
  if (!countable_conv(s, x.dtype) || !fits(count(out))) return too_many("conv2d", count(out));
  Forward f{out, x, weight, data_of<float>(bias), Activation::none, nullptr};
  const bool few = s.out_channels <= kFewChannels;
  const Status status = few ? Status{} : lay_image(gpu, x, groups, &f.laid);
  if (!status.ok()) return status;
  return with_activation(gpu, out, static_cast<Activation>(activation), [&](const View& sums, Activation fused) {
    f.out = sums;
    f.activation = fused;
    return for_phases(s, [&](const DirectShape& p) { return few ? directly(gpu, f, p) : multiply(gpu, f, p); });
  });
}

Status conv2dWeightGrad(Gpu& gpu, View dweight, View grad, View x, i64 groups, i64 strideH, i64 strideW, i64 padH, i64 padW,
                        i64 dilationH, i64 dilationW, i64 upH, i64 upW) {
  REQUIRE(grad.dtype == x.dtype && dweight.dtype == DType::float32_);
  ConvShape s;
  REQUIRE(describe(grad, x, dweight, {groups, strideH, strideW, padH, padW, dilationH, dilationW, upH, upW}, s));
  if (!is_floating(x.dtype)) return no_kernel("conv2dWeightGrad", x.dtype);
  if (count(dweight) == 0) return Status{};
  if (!countable_conv(s, x.dtype)) return too_many("conv2dWeightGrad", count(grad));
  Status status;
  // Taps that only ever met zeros are part of no phase.
  if (upH > 1 || upW > 1 || count(grad) == 0) status = fill(gpu, dweight, 0);
  if (count(grad) == 0) return status;
  WeightGrad g{dweight, grad, x, nullptr, nullptr};
  const bool few = s.out_channels <= kFewChannels;
  if (status.ok() && !few) status = lay_image(gpu, x, groups, &g.laid_x);
  if (status.ok() && !few) status = lay_image(gpu, grad, groups, &g.laid_grad);
  if (!status.ok()) return status;
  return for_phases(s, [&](const DirectShape& p) {
    if (few) return weight_grad_directly(gpu, g, p);
    if (x.dtype == DType::float16_) return weight_grad_mma<cu::f16>(gpu, g, p);
    if (x.dtype == DType::bfloat16_) return weight_grad_mma<cu::bf16>(gpu, g, p);
    return weight_grad_simt(gpu, g, p);
  });
}

}  // namespace ops
}  // namespace cuda
}  // namespace kerf
