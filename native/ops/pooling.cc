// maxPool2d, avgPool2d, adaptiveAvgPool2d and their gradients on contiguous [planes, h, w]. Tasks are planes.
#include <algorithm>
#include <atomic>

#include "../core/image_contracts.h"
#include "axes.h"
#include "ops.h"
#include "scalar.h"

namespace kerf::ops {
namespace {

constexpr int64_t kTaskElements = 16384;

PoolAxis axis_of(const PoolWindow& w, int64_t in, int64_t out) {
  return PoolAxis{in, out, w.kernel, out == 1 ? 1 : w.stride, w.pad, w.dilation, true, nullptr, nullptr, nullptr};
}

// Floats that a kernel needs: two rows of values, and two of tap numbers for the maximum.
int64_t row_floats(const PoolAxis& columns) { return std::max(4 * (span(columns) + columns.stride), columns.in); }

double plane_ns(const View& x, const View& y, double window) {
  return 0.3 * static_cast<double>(count(x)) + 0.3 * static_cast<double>(count(y)) * window + 200;
}

// Calls body(plane, spare) for every plane; each thread has `floats` of its own.
template <class Body>
void for_planes(const char* op, double ns, const View& x, int64_t floats, Body body) {
  int64_t planes = x.shape[0], size = x.shape[1] * x.shape[2];
  int64_t per_task = ceil_div(kTaskElements, size > 0 ? size : 1);
  std::atomic<bool> failed = false;
  run_tasks(ns, ceil_div(planes, per_task), [&](int64_t task) {
    float* spare = static_cast<float*>(scratch(Scratch::row, static_cast<size_t>(floats) * sizeof(float)));
    if (!spare) {
      failed = true;
      return;
    }
    int64_t end = std::min((task + 1) * per_task, planes);
    for (int64_t plane = task * per_task; plane < end; plane++) body(plane, spare);
  });
  if (failed)
    Stream::fail(Code::out_of_memory, "%s: no memory for rows of %lld elements", op, static_cast<long long>(x.shape[2]));
}

char* plane_of(const View& v, int64_t plane) { return element(v, plane * v.shape[1] * v.shape[2]); }

int32_t* taps_of(const OptView& v, int64_t plane) {
  return present(v) ? static_cast<int32_t*>(v.data) + plane * v.shape[1] * v.shape[2] : nullptr;
}

// ---- averages: which inputs each output's window has

struct Windows {
  PoolAxis rows, columns;
};

using Ends = void (*)(PoolAxis& axis, int64_t* begin, int64_t* end, float* count, const PoolWindow& w, bool pads);

void regular_ends(PoolAxis& axis, int64_t* begin, int64_t* end, float* count, const PoolWindow& w, bool pads) {
  for (int64_t o = 0; o < axis.out; o++) {
    int64_t from = o * w.stride - w.pad, to = std::min(from + w.kernel, axis.in + w.pad);
    begin[o] = std::max<int64_t>(from, 0);
    end[o] = std::min(to, axis.in);
    count[o] = static_cast<float>(pads ? to - from : end[o] - begin[o]);
  }
}

void adaptive_ends(PoolAxis& axis, int64_t* begin, int64_t* end, float* count, const PoolWindow&, bool) {
  axis.regular = false;
  for (int64_t o = 0; o < axis.out; o++) {
    begin[o] = o * axis.in / axis.out;
    end[o] = ceil_div((o + 1) * axis.in, axis.out);
    count[o] = static_cast<float>(end[o] - begin[o]);
  }
}

bool may_pool(Ends ends, const PoolWindow& w, int64_t in, int64_t out) {
  return ends == adaptive_ends ? in > 0 && out > 0 : window_fits(w, in, out);
}

// False where there is no memory for the tables. They live in the stream thread's scratch for the length of a command.
bool average_windows(Windows& windows, Ends ends, const PoolWindow& h, const PoolWindow& w, bool pads) {
  int64_t outputs = windows.rows.out + windows.columns.out;
  void* memory = scratch(Scratch::bias, static_cast<size_t>(outputs) * (2 * sizeof(int64_t) + sizeof(float)));
  if (!memory) return false;
  int64_t* begin = static_cast<int64_t*>(memory);
  int64_t* end = begin + outputs;
  float* count = reinterpret_cast<float*>(end + outputs);
  auto table = [&](PoolAxis& axis, const PoolWindow& window, int64_t at) {
    ends(axis, begin + at, end + at, count + at, window, pads);
    axis.begin = begin + at;
    axis.end = end + at;
    axis.count = count + at;
  };
  table(windows.rows, h, 0);
  table(windows.columns, w, windows.rows.out);
  return true;
}

Status average(const char* op, Stream& stream, const View& out, const View& a, Ends ends, PoolWindow h, PoolWindow w, bool pads) {
  REQUIRE(pools(out, a) && may_pool(ends, h, a.shape[1], out.shape[1]) && may_pool(ends, w, a.shape[2], out.shape[2]));
  AvgPoolCell cell = kernels().avg_pool[static_cast<int>(a.dtype)];
  if (!cell) return no_kernel(op, a.dtype);
  if (count(a) == 0) return Status{};
  double ns = plane_ns(a, out, static_cast<double>(h.kernel + w.kernel));
  return stream.run(ns, [op, cell, out, a, ends, h, w, pads, ns] {
    Windows s{axis_of(h, a.shape[1], out.shape[1]), axis_of(w, a.shape[2], out.shape[2])};
    if (!average_windows(s, ends, h, w, pads)) return Stream::fail(Code::out_of_memory, "%s: no memory for windows", op);
    for_planes(op, ns, a, row_floats(s.columns), [&](int64_t plane, float* spare) {
      cell(s.rows, s.columns, plane_of(out, plane), plane_of(a, plane), spare);
    });
  });
}

Status average_grad(const char* op, Stream& stream, const View& da, const View& grad, Ends ends, PoolWindow h, PoolWindow w,
                    bool pads) {
  REQUIRE(pools(grad, da));
  REQUIRE(may_pool(ends, h, da.shape[1], grad.shape[1]) && may_pool(ends, w, da.shape[2], grad.shape[2]));
  AvgPoolGradCell cell = kernels().avg_pool_grad[static_cast<int>(da.dtype)];
  if (!cell) return no_kernel(op, da.dtype);
  if (count(da) == 0) return Status{};
  double ns = plane_ns(da, grad, static_cast<double>(h.kernel * w.kernel));
  return stream.run(ns, [op, cell, da, grad, ends, h, w, pads, ns] {
    Windows s{axis_of(h, da.shape[1], grad.shape[1]), axis_of(w, da.shape[2], grad.shape[2])};
    if (!average_windows(s, ends, h, w, pads)) return Stream::fail(Code::out_of_memory, "%s: no memory for windows", op);
    for_planes(op, ns, da, row_floats(s.columns) + s.columns.out, [&](int64_t plane, float* spare) {
      cell(s.rows, s.columns, plane_of(da, plane), plane_of(grad, plane), spare);
    });
  });
}

constexpr PoolWindow kAdaptive = {1, 1, 0, 1};

}  // namespace

Status maxPool2d(Stream& stream, View out, OptView taps, View a, i64 kernelH, i64 kernelW, i64 strideH, i64 strideW,
                 i64 padH, i64 padW, i64 dilationH, i64 dilationW) {
  PoolWindow h{kernelH, strideH, padH, dilationH}, w{kernelW, strideW, padW, dilationW};
  REQUIRE(pools(out, a) && window_fits(h, a.shape[1], out.shape[1]) && window_fits(w, a.shape[2], out.shape[2]));
  REQUIRE(h.kernel * w.kernel <= kMaxWindow);
  REQUIRE(!present(taps) || holds_taps(taps, out));
  const Kernels& k = kernels();
  int d = static_cast<int>(a.dtype);
  MaxPoolCell cell = present(taps) ? k.max_pool_taps[d] : k.max_pool[d];
  if (!cell) return no_kernel("maxPool2d", a.dtype);
  double ns = plane_ns(a, out, static_cast<double>(h.kernel + w.kernel));
  return stream.run(ns, [cell, out, taps, a, h, w, ns] {
    PoolAxis rows = axis_of(h, a.shape[1], out.shape[1]), columns = axis_of(w, a.shape[2], out.shape[2]);
    for_planes("maxPool2d", ns, a, rows_together(rows, columns) * row_floats(columns), [&](int64_t plane, float* spare) {
      cell(rows, columns, plane_of(out, plane), taps_of(taps, plane), plane_of(a, plane), spare);
    });
  });
}

Status maxPool2dGrad(Stream& stream, View da, View grad, View taps, i64 kernelH, i64 kernelW, i64 strideH, i64 strideW,
                     i64 padH, i64 padW, i64 dilationH, i64 dilationW) {
  PoolWindow h{kernelH, strideH, padH, dilationH}, w{kernelW, strideW, padW, dilationW};
  REQUIRE(pools(grad, da) && window_fits(h, da.shape[1], grad.shape[1]) && window_fits(w, da.shape[2], grad.shape[2]));
  REQUIRE(h.kernel * w.kernel <= kMaxWindow);
  REQUIRE(holds_taps(taps, grad));
  MaxPoolGradCell cell = kernels().max_pool_grad[static_cast<int>(da.dtype)];
  if (!cell) return no_kernel("maxPool2dGrad", da.dtype);
  double ns = plane_ns(da, grad, 4);
  return stream.run(ns, [cell, da, grad, taps, h, w, ns] {
    PoolAxis rows = axis_of(h, da.shape[1], grad.shape[1]), columns = axis_of(w, da.shape[2], grad.shape[2]);
    int64_t area = h.kernel * w.kernel;
    int64_t* offsets = static_cast<int64_t*>(scratch(Scratch::bias, static_cast<size_t>(area) * sizeof(int64_t)));
    if (!offsets) return Stream::fail(Code::out_of_memory, "maxPool2dGrad: no memory for the window's offsets");
    for (int64_t i = 0; i < area; i++)
      offsets[i] = i / w.kernel * h.dilation * columns.in + i % w.kernel * w.dilation;
    for_planes("maxPool2dGrad", ns, da, rows.in * columns.in, [&](int64_t plane, float* spare) {
      const int32_t* numbers = static_cast<const int32_t*>(taps.data) + plane * rows.out * columns.out;
      cell(rows, columns, plane_of(da, plane), plane_of(grad, plane), numbers, offsets, spare);
    });
  });
}

Status avgPool2d(Stream& stream, View out, View a, i64 kernelH, i64 kernelW, i64 strideH, i64 strideW, i64 padH,
                 i64 padW, i64 countIncludePad) {
  return average("avgPool2d", stream, out, a, regular_ends, {kernelH, strideH, padH, 1}, {kernelW, strideW, padW, 1},
                 countIncludePad != 0);
}

Status avgPool2dGrad(Stream& stream, View da, View grad, i64 kernelH, i64 kernelW, i64 strideH, i64 strideW, i64 padH,
                     i64 padW, i64 countIncludePad) {
  return average_grad("avgPool2dGrad", stream, da, grad, regular_ends, {kernelH, strideH, padH, 1},
                      {kernelW, strideW, padW, 1}, countIncludePad != 0);
}

Status adaptiveAvgPool2d(Stream& stream, View out, View a) {
  return average("adaptiveAvgPool2d", stream, out, a, adaptive_ends, kAdaptive, kAdaptive, false);
}

Status adaptiveAvgPool2dGrad(Stream& stream, View da, View grad) {
  return average_grad("adaptiveAvgPool2dGrad", stream, da, grad, adaptive_ends, kAdaptive, kAdaptive, false);
}

}  // namespace kerf::ops
