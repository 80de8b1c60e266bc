// Drivers of quantization, elementwise but for dynamicQuantize, which finds a range first.
#include "../core/quantize_contracts.h"
#include "axes.h"
#include "iterate.h"
#include "ops.h"
#include "scalar.h"

namespace kerf::ops {
namespace {

constexpr double kQuantizeNs = 0.4;  // an element, one core: a broadcast scale is faster, a strided one a division slower

// A walk over out, the inputs and, last, scale and zero point; the zero point stands in for itself or for the scale.
template <int N>
struct Quantizing {
  Runs<N> runs;
  bool zeros;
  float low, high;

  QuantizeRun at(char* const* inputs) const {  // a first, scale and zero point last
    QuantizeRun run;
    run.a = inputs[N - 4];
    run.stride_a = runs.step[N - 3];
    run.scale = reinterpret_cast<const float*>(inputs[N - 3]);
    run.stride_scale = runs.step[N - 2];
    run.zero = zeros ? reinterpret_cast<const int32_t*>(inputs[N - 2]) : nullptr;
    run.stride_zero = zeros ? runs.step[N - 1] : 0;
    run.low = low;
    run.high = high;
    return run;
  }
};

}  // namespace

Status quantize(Stream& stream, View out, View a, View scale, OptView zero, f64 low, f64 high) {
  REQUIRE(quantizes(out, a, low, high) && scales_of(out, scale, zero));
  QuantizeCell cell = kernels().quantize[static_cast<int>(a.dtype)];
  if (!cell) return no_kernel("quantize", a.dtype);
  Quantizing<4> q{make_runs<4>({&out, &a, &scale, &or_scale(zero, scale)}), present(zero), static_cast<float>(low),
                  static_cast<float>(high)};
  if (count(out) == 0) return Status{};
  return stream.run(static_cast<double>(count(out)) * kQuantizeNs, [q, cell, copy_out = copy_cell(out.dtype)] {
    apply(q.runs, kQuantizeNs, copy_out, [&](int64_t n, char* o, char* const* p) { cell(n, o, q.at(p)); });
  });
}

Status dequantize(Stream& stream, View out, View a, View scale, OptView zero) {
  REQUIRE(dequantizes(out, a) && scales_of(out, scale, zero));
  DequantizeCell cell = kernels().dequantize[static_cast<int>(out.dtype)];
  if (!cell) return no_kernel("dequantize", out.dtype);
  Quantizing<4> q{make_runs<4>({&out, &a, &scale, &or_scale(zero, scale)}), present(zero), 0, 0};
  if (count(out) == 0) return Status{};
  return stream.run(static_cast<double>(count(out)) * kQuantizeNs, [q, cell, type = a.dtype, copy_out = copy_cell(out.dtype)] {
    apply(q.runs, kQuantizeNs, copy_out, [&](int64_t n, char* o, char* const* p) { cell(n, o, type, q.at(p)); });
  });
}

Status fakeQuantize(Stream& stream, View out, View a, View scale, OptView zero, f64 low, f64 high) {
  REQUIRE(same_shape(out, a) && out.dtype == a.dtype && low <= high && scales_of(out, scale, zero));
  FakeQuantizeCell cell = kernels().fake_quantize[static_cast<int>(a.dtype)];
  if (!cell) return no_kernel("fakeQuantize", a.dtype);
  Quantizing<4> q{make_runs<4>({&out, &a, &scale, &or_scale(zero, scale)}), present(zero), static_cast<float>(low),
                  static_cast<float>(high)};
  if (count(out) == 0) return Status{};
  return stream.run(static_cast<double>(count(out)) * kQuantizeNs, [q, cell, copy_out = copy_cell(out.dtype)] {
    apply(q.runs, kQuantizeNs, copy_out, [&](int64_t n, char* o, char* const* p) { cell(n, o, q.at(p)); });
  });
}

Status fakeQuantizeGrad(Stream& stream, View out, View grad, View a, View scale, OptView zero, f64 low, f64 high) {
  REQUIRE(same_shape(out, a) && out.dtype == a.dtype && low <= high && scales_of(out, scale, zero));
  REQUIRE(same_shape(out, grad) && out.dtype == grad.dtype);
  FakeQuantizeGradCell cell = kernels().fake_quantize_grad[static_cast<int>(a.dtype)];
  if (!cell) return no_kernel("fakeQuantizeGrad", a.dtype);
  Quantizing<5> q{make_runs<5>({&out, &grad, &a, &scale, &or_scale(zero, scale)}), present(zero), static_cast<float>(low),
                  static_cast<float>(high)};
  if (count(out) == 0) return Status{};
  return stream.run(static_cast<double>(count(out)) * kQuantizeNs, [q, cell, copy_out = copy_cell(out.dtype)] {
    apply(q.runs, kQuantizeNs, copy_out,
          [&](int64_t n, char* o, char* const* p) { cell(n, o, p[0], q.runs.step[1], q.at(p)); });
  });
}

Status dynamicQuantize(Stream& stream, View out, View scale, View zero, View a) {
  REQUIRE(quantizes_by_range(out, scale, zero, a));
  const int64_t total = count(a), scales = count(scale);
  RangeCell range = kernels().range[static_cast<int>(a.dtype)];
  QuantizeCell cell = kernels().quantize[static_cast<int>(a.dtype)];
  if (!range || !cell) return no_kernel("dynamicQuantize", a.dtype);
  const int64_t n = a.shape[a.rank - 1], rows = n ? total / n : 0;
  if (scales == 0) return Status{};
  struct Pointers {
    const char* a;
    uint8_t* out;
    float* scale;
    int32_t* zero;
    int64_t bytes;
  } x{static_cast<const char*>(a.data), static_cast<uint8_t*>(out.data), static_cast<float*>(scale.data),
      static_cast<int32_t*>(zero.data), element_bytes(a.dtype)};
  const bool by_rows = scales == rows && scales > 1;
  return stream.run(static_cast<double>(total) * kQuantizeNs, [x, range, cell, n, rows, total, by_rows] {
    auto quantize_by = [&](int64_t from, int64_t size, int64_t which) {
      QuantizeRun run{x.a + from * x.bytes, 1, x.scale + which, 0, x.zero + which, 0, 0.0f, 255.0f};
      cell(size, x.out + from, run);
    };
    const double ns = static_cast<double>(total) * kQuantizeNs;
    if (by_rows) {
      const int64_t each = ceil_div(16 * 1024, n);  // rows a task
      run_tasks(ns, ceil_div(rows, each), [&](int64_t task) {
        for (int64_t row = task * each; row < rows && row < (task + 1) * each; row++) {
          Range r{0, 0, true};
          range(n, x.a + row * n * x.bytes, &r);
          dynamic_scale(r, x.scale + row, x.zero + row);
          quantize_by(row * n, n, row);
        }
      });
      return;
    }
    constexpr int64_t kPieces = 64;
    const int64_t pieces = total < kPieces * 1024 ? 1 : kPieces, each = ceil_div(total, pieces);
    Range found[kPieces];
    auto piece = [&](int64_t task) { return total - task * each < each ? total - task * each : each; };
    run_tasks(ns, pieces, [&](int64_t task) {
      found[task] = {0, 0, true};
      if (piece(task) > 0) range(piece(task), x.a + task * each * x.bytes, found + task);
    });
    for (int64_t task = 1; task < pieces; task++) {
      if (found[task].min < found[0].min) found[0].min = found[task].min;
      if (found[task].max > found[0].max) found[0].max = found[task].max;
      found[0].finite &= found[task].finite;
    }
    dynamic_scale(found[0], x.scale, x.zero);
    run_tasks(ns, pieces, [&](int64_t task) {
      if (piece(task) > 0) quantize_by(task * each, piece(task), 0);
    });
  });
}

Status packInt4(Stream& stream, View out, View a) {
  REQUIRE(holds_pairs(out, a));
  const int64_t n = a.shape[a.rank - 1], bytes = (n + 1) / 2, rows = n ? count(a) / n : 0;
  if (rows == 0) return Status{};
  return stream.run(static_cast<double>(rows * n), [n, bytes, rows, to = static_cast<uint8_t*>(out.data), from = static_cast<const uint8_t*>(a.data)] {
    for (int64_t row = 0; row < rows; row++) {
      const uint8_t* x = from + row * n;
      uint8_t* y = to + row * bytes;
      for (int64_t i = 0; i < n / 2; i++) y[i] = static_cast<uint8_t>((x[2 * i] & 15) | x[2 * i + 1] << 4);
      if (n % 2) y[n / 2] = x[n - 1] & 15;
    }
  });
}

Status unpackInt4(Stream& stream, View out, View a) {
  REQUIRE(holds_pairs(a, out));
  const int64_t n = out.shape[out.rank - 1], bytes = (n + 1) / 2, rows = n ? count(out) / n : 0;
  if (rows == 0) return Status{};
  const uint8_t sign = out.dtype == DType::int8_ ? 8 : 0;  // (x ^ 8) - 8 extends the sign
  return stream.run(static_cast<double>(rows * n), [n, bytes, rows, sign, to = static_cast<uint8_t*>(out.data), from = static_cast<const uint8_t*>(a.data)] {
    for (int64_t row = 0; row < rows; row++) {
      const uint8_t* x = from + row * bytes;
      uint8_t* y = to + row * n;
      for (int64_t i = 0; i < n; i++) {
        const uint8_t nibble = i % 2 ? x[i / 2] >> 4 : x[i / 2] & 15;
        y[i] = static_cast<uint8_t>((nibble ^ sign) - sign);
      }
    }
  });
}

}  // namespace kerf::ops
