#include "../resize.cuh"

#include "../../core/image_contracts.h"
#include "launch.h"

namespace kerf {
namespace cuda {
namespace ops {
namespace {

struct Ratio {
  double num, den;
};

Status table_of(Gpu& gpu, int64_t in, int64_t out, Resize mode, Ratio ratio, ResizeTable& table) {
  void* memory;
  const Status status = gpu.scratch(static_cast<size_t>(out) * (sizeof(int) + sizeof(float)), &memory);
  if (!status.ok()) return status;
  int* const low = static_cast<int*>(memory);
  table = {static_cast<int>(in), static_cast<int>(out), low, reinterpret_cast<float*>(low + out)};
  CU_LAUNCH(resize_lines, blocks_for(out), threads_for(out), 0, gpu.stream(), table, mode, ratio.num, ratio.den);
  return gpu.launched("resize");
}

// Reads planes of `from`, writes planes of `to`; in and out say which of the two has the sizes of the input.
Status run(Gpu& gpu, const char* op, bool grad, const View& to, const View& from, const View& in, const View& out, Resize mode,
           Ratio h, Ratio w) {
  REQUIRE(resizes(in, out));
  if (count(to) == 0) return Status{};
  if (!fits(count(in)) || !fits(count(out)) || in.shape[1] >= 1 << 30 || in.shape[2] >= 1 << 30) return too_many(op, count(in));
  if (out.shape[1] >= 1 << 30 || out.shape[2] >= 1 << 30) return too_many(op, count(out));
  ResizeTable rows, columns;
  Status status = table_of(gpu, in.shape[1], out.shape[1], mode, h, rows);
  if (status.ok()) status = table_of(gpu, in.shape[2], out.shape[2], mode, w, columns);
  if (!status.ok()) return status;
  return with_floats(op, in.dtype, [&](auto type) {
    using T = decltype(type);
    const auto n = static_cast<uint32_t>(count(to));
    const T target{to.data}, source{from.data};
    auto launch = [&](auto kernel) {
      CU_LAUNCH(kernel, blocks_for(n), threads_for(n), 0, gpu.stream(), n, rows, columns, target, source);
    };
    if (mode == Resize::nearest)
      launch(grad ? resize_grad_planes<true, T> : resize_planes<true, T>);
    else
      launch(grad ? resize_grad_planes<false, T> : resize_planes<false, T>);
    return gpu.launched(op);
  });
}

}  // namespace

Status resize(Gpu& gpu, View out, View a, i64 mode, f64 numH, f64 denH, f64 numW, f64 denW) {
  return run(gpu, "resize", false, out, a, a, out, static_cast<Resize>(mode), {numH, denH}, {numW, denW});
}
Status resizeGrad(Gpu& gpu, View da, View grad, i64 mode, f64 numH, f64 denH, f64 numW, f64 denW) {
  return run(gpu, "resizeGrad", true, da, grad, da, grad, static_cast<Resize>(mode), {numH, denH}, {numW, denW});
}

}  // namespace ops
}  // namespace cuda
}  // namespace kerf
