// maxPool2d, avgPool2d, adaptiveAvgPool2d and their gradients.
#include "../pooling.cuh"

#include "../../core/image_contracts.h"
#include "launch.h"

namespace kerf {
namespace cuda {
namespace ops {
namespace {

// Places on an axis, padding included, are numbered in 31 bits.
bool countable_plane(const View& v) { return fits(count(v)) && v.shape[1] < 1 << 30 && v.shape[2] < 1 << 30; }

MaxAxis max_axis(const PoolWindow& w, int64_t in, int64_t out) {
  return {static_cast<int>(in),      static_cast<int>(out), static_cast<int>(w.kernel), static_cast<int>(w.stride),
          static_cast<int>(w.pad), static_cast<int>(w.dilation)};
}

// What makes an axis of averages of the sizes of its input and output.
struct Regular {
  PoolWindow window;
  bool pads;
  bool may(int64_t in, int64_t out) const { return window_fits(window, in, out); }
  RegularAxis operator()(int64_t in, int64_t out) const {
    return {static_cast<int>(in),           static_cast<int>(out),        static_cast<int>(window.kernel),
            static_cast<int>(window.stride), static_cast<int>(window.pad), pads};
  }
};
struct Adaptive {
  bool may(int64_t in, int64_t out) const { return in > 0 && out > 0; }
  AdaptiveAxis operator()(int64_t in, int64_t out) const { return {static_cast<int>(in), static_cast<int>(out)}; }
};

template <class Rule>
Status average(Gpu& gpu, const char* op, const View& out, const View& a, const Rule& h, const Rule& w) {
  REQUIRE(pools(out, a) && h.may(a.shape[1], out.shape[1]) && w.may(a.shape[2], out.shape[2]));
  if (count(out) == 0) return Status{};
  if (!countable_plane(a) || !countable_plane(out)) return too_many(op, count(a));
  return with_floats(op, a.dtype, [&](auto type) {
    using T = decltype(type);
    const auto n = static_cast<uint32_t>(count(out));
    const auto rows = h(a.shape[1], out.shape[1]), columns = w(a.shape[2], out.shape[2]);
    const T to{out.data}, from{a.data};
    CU_LAUNCH((avg_pool<std::decay_t<decltype(rows)>, T>), blocks_for(n), threads_for(n), 0, gpu.stream(), n, rows, columns, to, from);
    return gpu.launched(op);
  });
}

template <class Rule>
Status average_grad(Gpu& gpu, const char* op, const View& da, const View& grad, const Rule& h, const Rule& w) {
  REQUIRE(pools(grad, da) && h.may(da.shape[1], grad.shape[1]) && w.may(da.shape[2], grad.shape[2]));
  if (count(da) == 0) return Status{};
  if (!countable_plane(da) || !countable_plane(grad)) return too_many(op, count(da));
  return with_floats(op, da.dtype, [&](auto type) {
    using T = decltype(type);
    const auto n = static_cast<uint32_t>(count(da));
    const auto rows = h(da.shape[1], grad.shape[1]), columns = w(da.shape[2], grad.shape[2]);
    const T to{da.data}, from{grad.data};
    CU_LAUNCH((avg_pool_grad<std::decay_t<decltype(rows)>, T>), blocks_for(n), threads_for(n), 0, gpu.stream(), n, rows, columns, to,
              from);
    return gpu.launched(op);
  });
}

}  // namespace

Status maxPool2d(Gpu& gpu, View out, OptView taps, View a, i64 kernelH, i64 kernelW, i64 strideH, i64 strideW, i64 padH, i64 padW,
                 i64 dilationH, i64 dilationW) {
  const PoolWindow h{kernelH, strideH, padH, dilationH}, w{kernelW, strideW, padW, dilationW};
  REQUIRE(pools(out, a) && window_fits(h, a.shape[1], out.shape[1]) && window_fits(w, a.shape[2], out.shape[2]));
  REQUIRE(h.kernel * w.kernel <= kMaxWindow && (!present(taps) || holds_taps(taps, out)));
  if (count(out) == 0) return Status{};
  if (!countable_plane(a) || !countable_plane(out)) return too_many("maxPool2d", count(a));
  return with_floats("maxPool2d", a.dtype, [&](auto type) {
    using T = decltype(type);
    const auto n = static_cast<uint32_t>(count(out));
    const MaxAxis rows = max_axis(h, a.shape[1], out.shape[1]), columns = max_axis(w, a.shape[2], out.shape[2]);
    const T to{out.data}, from{a.data};
    auto* const numbers = present(taps) ? static_cast<int32_t*>(taps.data) : nullptr;
    CU_LAUNCH((max_pool<T>), blocks_for(n), threads_for(n), 0, gpu.stream(), n, rows, columns, to, numbers, from);
    return gpu.launched("maxPool2d");
  });
}

Status maxPool2dGrad(Gpu& gpu, View da, View grad, View taps, i64 kernelH, i64 kernelW, i64 strideH, i64 strideW, i64 padH,
                     i64 padW, i64 dilationH, i64 dilationW) {
  const PoolWindow h{kernelH, strideH, padH, dilationH}, w{kernelW, strideW, padW, dilationW};
  REQUIRE(pools(grad, da) && window_fits(h, da.shape[1], grad.shape[1]) && window_fits(w, da.shape[2], grad.shape[2]));
  REQUIRE(h.kernel * w.kernel <= kMaxWindow && holds_taps(taps, grad));
  if (count(da) == 0) return Status{};
  if (!countable_plane(da) || !countable_plane(grad)) return too_many("maxPool2dGrad", count(da));
  return with_floats("maxPool2dGrad", da.dtype, [&](auto type) {
    using T = decltype(type);
    const auto n = static_cast<uint32_t>(count(da));
    const MaxAxis rows = max_axis(h, da.shape[1], grad.shape[1]), columns = max_axis(w, da.shape[2], grad.shape[2]);
    const T to{da.data}, from{grad.data};
    const auto* const numbers = static_cast<const int32_t*>(taps.data);
    CU_LAUNCH((max_pool_grad<T>), blocks_for(n), threads_for(n), 0, gpu.stream(), n, rows, columns, to, from, numbers);
    return gpu.launched("maxPool2dGrad");
  });
}

Status avgPool2d(Gpu& gpu, View out, View a, i64 kernelH, i64 kernelW, i64 strideH, i64 strideW, i64 padH, i64 padW,
                 i64 countIncludePad) {
  const bool pads = countIncludePad != 0;
  return average(gpu, "avgPool2d", out, a, Regular{{kernelH, strideH, padH, 1}, pads}, Regular{{kernelW, strideW, padW, 1}, pads});
}

Status avgPool2dGrad(Gpu& gpu, View da, View grad, i64 kernelH, i64 kernelW, i64 strideH, i64 strideW, i64 padH, i64 padW,
                     i64 countIncludePad) {
  const bool pads = countIncludePad != 0;
  return average_grad(gpu, "avgPool2dGrad", da, grad, Regular{{kernelH, strideH, padH, 1}, pads},
                      Regular{{kernelW, strideW, padW, 1}, pads});
}

Status adaptiveAvgPool2d(Gpu& gpu, View out, View a) {
  // One window is a plane's mean, by many threads.
  if (pools(out, a) && out.shape[1] == 1 && out.shape[2] == 1 && count(a) > 0) return mean(gpu, out, a);
  return average(gpu, "adaptiveAvgPool2d", out, a, Adaptive{}, Adaptive{});
}

Status adaptiveAvgPool2dGrad(Gpu& gpu, View da, View grad) {
  return average_grad(gpu, "adaptiveAvgPool2dGrad", da, grad, Adaptive{}, Adaptive{});
}

}  // namespace ops
}  // namespace cuda
}  // namespace kerf
