// resize and its gradient on contiguous [planes, h, w]. Tasks are planes.
#include <algorithm>
#include <atomic>
#include <cmath>

#include "../core/image_contracts.h"
#include "axes.h"
#include "ops.h"
#include "scalar.h"

namespace kerf::ops {
namespace {

// Where output line o lies among the input's lines.
struct Ratio {
  double num, den;
};

void lines(const ResizeAxis& axis, int64_t* low, int64_t* high, float* weight, Resize mode, Ratio ratio) {
  for (int64_t o = 0; o < axis.out; o++) {
    double at = static_cast<double>(o);
    double source = mode == Resize::linear ? (at + 0.5) * ratio.num / ratio.den - 0.5 : at * ratio.num / ratio.den;
    double last = static_cast<double>(axis.in - 1);
    source = source > 0 ? source : 0;  // NaN too
    source = source < last ? source : last;
    low[o] = static_cast<int64_t>(source);
    high[o] = std::min(low[o] + 1, axis.in - 1);
    weight[o] = static_cast<float>(source - static_cast<double>(low[o]));
  }
}

// Reads planes of `from`, writes planes of `to`; in and out say which of the two has the sizes of the input.
Status run(const char* op, Stream& stream, ResizeCell cell, const View& to, const View& from, const View& in,
           const View& out, Resize mode, Ratio h, Ratio w, bool whole_plane) {
  REQUIRE(resizes(in, out));
  if (!cell) return no_kernel(op, in.dtype);
  if (count(in) == 0) return Status{};  // no table for sizes that nothing has
  double ns = 0.5 * static_cast<double>(count(in)) + 2 * static_cast<double>(count(out)) + 200;
  return stream.run(ns, [op, cell, to, from, in, out, mode, h, w, whole_plane, ns] {
    ResizeAxis rows{in.shape[1], out.shape[1], nullptr, nullptr, nullptr};
    ResizeAxis columns{in.shape[2], out.shape[2], nullptr, nullptr, nullptr};
    int64_t n = rows.out + columns.out;
    void* memory = scratch(Scratch::bias, static_cast<size_t>(n) * (2 * sizeof(int64_t) + sizeof(float)));
    if (!memory) return Stream::fail(Code::out_of_memory, "%s: no memory for %lld lines", op, static_cast<long long>(n));
    int64_t* low = static_cast<int64_t*>(memory);
    int64_t* high = low + n;
    float* weight = reinterpret_cast<float*>(high + n);
    auto table = [&](ResizeAxis& axis, int64_t at, Ratio ratio) {
      lines(axis, low + at, high + at, weight + at, mode, ratio);
      axis.low = low + at;
      axis.high = high + at;
      axis.weight = mode == Resize::nearest ? nullptr : weight + at;
    };
    table(rows, 0, h);
    table(columns, rows.out, w);
    int64_t floats = columns.in + (whole_plane ? rows.in * columns.in : 0);
    std::atomic<bool> failed = false;
    run_tasks(ns, in.shape[0], [&](int64_t plane) {
      float* spare = static_cast<float*>(scratch(Scratch::row, static_cast<size_t>(floats) * sizeof(float)));
      if (!spare) {
        failed = true;
        return;
      }
      cell(rows, columns, element(to, plane * to.shape[1] * to.shape[2]),
           element(from, plane * from.shape[1] * from.shape[2]), spare);
    });
    if (failed) Stream::fail(Code::out_of_memory, "%s: no memory for %lld floats", op, static_cast<long long>(floats));
  });
}

}  // namespace

Status resize(Stream& stream, View out, View a, i64 mode, f64 numH, f64 denH, f64 numW, f64 denW) {
  return run("resize", stream, kernels().resize[static_cast<int>(a.dtype)], out, a, a, out, static_cast<Resize>(mode),
             {numH, denH}, {numW, denW}, false);
}

Status resizeGrad(Stream& stream, View da, View grad, i64 mode, f64 numH, f64 denH, f64 numW, f64 denW) {
  return run("resizeGrad", stream, kernels().resize_grad[static_cast<int>(da.dtype)], da, grad, da, grad,
             static_cast<Resize>(mode), {numH, denH}, {numW, denW}, da.dtype != DType::float32_);
}

}  // namespace kerf::ops
