// sum, mean, max, min, variance: what is folded, and how a state becomes an output. How it is walked: fold.h.
#include <cmath>
#include <limits>

#include "fold.h"
#include "ops.h"
#include "scalar.h"

namespace kerf::ops {
namespace {

// Totals are float64 for floats, int64 otherwise.
template <class Total>
struct SumFold {
  int64_t bytes;
  SumCell row_cell;
  SumColumnsCell columns_cell;
  DType out;
  double divisor;
  float* means = nullptr;  // variance's first pass keeps them here instead of in `out`

  void start(FoldState& s, int64_t n) const { memset(s.first, 0, static_cast<size_t>(n) * 8); }
  void row(FoldState& s, int64_t n, const void* a, int64_t) const { row_cell(n, a, s.first); }
  void columns(FoldState& s, int64_t rows, int64_t n, const void* a, int64_t row, int64_t) const {
    columns_cell(rows, n, a, row, s.first);
  }
  void merge(FoldState& s, int64_t n, const char* first, const char*) const {
    for (int64_t i = 0; i < n; i++) s.first_as<Total>()[i] += reinterpret_cast<const Total*>(first)[i];
  }
  void finish(FoldState& s, int64_t n, char* to, int64_t step) const {
    Total* total = s.first_as<Total>();
    if (means)
      for (int64_t i = 0; i < n; i++) means[s.index + i] = static_cast<float>(static_cast<double>(total[i]) / divisor);
    else if constexpr (std::is_same_v<Total, double>)
      for (int64_t i = 0; i < n; i++) put_float(out, to, i * step, total[i] / divisor);
    else
      for (int64_t i = 0; i < n; i++) reinterpret_cast<int64_t*>(to)[i * step] = static_cast<int64_t>(total[i]);
  }
};

struct ExtremeFold {
  int64_t bytes;
  ExtremeCell row_cell;
  ExtremeColumnsCell columns_cell;
  uint64_t least;  // the bits of an element that every other one beats

  void start(FoldState& s, int64_t n) const {
    for (int64_t i = 0; i < n; i++) memcpy(s.first + i * bytes, &least, static_cast<size_t>(bytes));
  }
  void row(FoldState& s, int64_t n, const void* a, int64_t) const { row_cell(n, a, s.first); }
  void columns(FoldState& s, int64_t rows, int64_t n, const void* a, int64_t row, int64_t) const {
    columns_cell(rows, n, a, row, s.first);
  }
  void merge(FoldState& s, int64_t n, const char* first, const char*) const { columns_cell(1, n, first, 0, s.first); }
  void finish(FoldState& s, int64_t n, char* to, int64_t step) const {
    for (int64_t i = 0; i < n; i++) memcpy(to + i * step * bytes, s.first + i * bytes, static_cast<size_t>(bytes));
  }
};

uint64_t extreme_bits(DType dtype, bool lowest) {
  switch (dtype) {
    case DType::float32_: return lowest ? 0xff800000 : 0x7f800000;
    case DType::float16_: return lowest ? 0xfc00 : 0x7c00;
    case DType::bfloat16_: return lowest ? 0xff80 : 0x7f80;
    case DType::int8_: return lowest ? 0x80 : 0x7f;
    case DType::uint8_: return lowest ? 0 : 0xff;
    case DType::int32_: return lowest ? 0x80000000 : 0x7fffffff;
    case DType::int64_: return lowest ? uint64_t{1} << 63 : ~(uint64_t{1} << 63);
    case DType::bool_: return lowest ? 0 : 1;
  }
  return 0;
}

// Two passes: the deviations from the rounded mean, and their sum, which takes back what rounding the mean did.
struct VarianceFold {
  int64_t bytes;
  MomentsCell row_cell;
  MomentsColumnsCell columns_cell;
  DType out;
  double size, correction;
  const float* means;

  void start(FoldState& s, int64_t n) const {
    memset(s.first, 0, static_cast<size_t>(n) * 8);
    memset(s.second, 0, static_cast<size_t>(n) * 8);
  }
  void row(FoldState& s, int64_t n, const void* a, int64_t) const {
    row_cell(n, a, means[s.index], s.first_as<double>(), s.second_as<double>());
  }
  void columns(FoldState& s, int64_t rows, int64_t n, const void* a, int64_t row, int64_t) const {
    columns_cell(rows, n, a, row, means + s.index, s.first_as<double>(), s.second_as<double>());
  }
  void merge(FoldState& s, int64_t n, const char* first, const char* second) const {
    for (int64_t i = 0; i < n; i++) {
      s.first_as<double>()[i] += reinterpret_cast<const double*>(first)[i];
      s.second_as<double>()[i] += reinterpret_cast<const double*>(second)[i];
    }
  }
  void finish(FoldState& s, int64_t n, char* to, int64_t step) const {
    double degrees = size > correction ? size - correction : 0;
    for (int64_t i = 0; i < n; i++) {
      double deviation = s.first_as<double>()[i];
      double squares = s.second_as<double>()[i] - deviation * deviation / size;
      put_float(out, to, i * step, (squares < 0 ? 0 : squares) / degrees);
    }
  }
};

Status sum_or_mean(const char* op, Stream& stream, const View& out, const View& a, bool mean) {
  REQUIRE(reduces(out, a));
  REQUIRE(is_floating(a.dtype) ? out.dtype == a.dtype : out.dtype == DType::int64_ && !mean);
  int d = static_cast<int>(a.dtype);
  if (!kernels().sum[d]) return no_kernel(op, a.dtype);
  double ns = fold_ns(a);
  return stream.run(ns, [out, a, mean, ns] {
    int d = static_cast<int>(a.dtype);
    int64_t outputs = count(out);
    double divisor = mean ? static_cast<double>(count(a)) / static_cast<double>(outputs ? outputs : 1) : 1;
    int64_t bytes = element_bytes(a.dtype);
    if (is_floating(a.dtype))
      fold_axes(SumFold<double>{bytes, kernels().sum[d], kernels().sum_columns[d], out.dtype, divisor}, out, a, ns);
    else
      fold_axes(SumFold<uint64_t>{bytes, kernels().sum[d], kernels().sum_columns[d], out.dtype, 1}, out, a, ns);
  });
}

Status extreme(const char* op, Stream& stream, const View& out, const View& a, bool highest) {
  REQUIRE(reduces(out, a));
  REQUIRE(out.dtype == a.dtype);
  if (!kernels().max[static_cast<int>(a.dtype)]) return no_kernel(op, a.dtype);
  double ns = fold_ns(a);
  return stream.run(ns, [out, a, highest, ns] {
    int d = static_cast<int>(a.dtype);
    const Kernels& k = kernels();
    fold_axes(ExtremeFold{element_bytes(a.dtype), highest ? k.max[d] : k.min[d],
                          highest ? k.max_columns[d] : k.min_columns[d], extreme_bits(a.dtype, highest)},
              out, a, ns);
  });
}

}  // namespace

Status sum(Stream& stream, View out, View a) { return sum_or_mean("sum", stream, out, a, false); }
Status mean(Stream& stream, View out, View a) { return sum_or_mean("mean", stream, out, a, true); }
Status max(Stream& stream, View out, View a) { return extreme("max", stream, out, a, true); }
Status min(Stream& stream, View out, View a) { return extreme("min", stream, out, a, false); }

Status variance(Stream& stream, View out, View a, f64 correction) {
  REQUIRE(reduces(out, a));
  REQUIRE(out.dtype == a.dtype);
  if (!kernels().moments[static_cast<int>(a.dtype)]) return no_kernel("variance", a.dtype);
  double ns = 2 * fold_ns(a);
  return stream.run(ns, [out, a, correction, ns] {
    int d = static_cast<int>(a.dtype);
    const Kernels& k = kernels();
    int64_t outputs = count(out), bytes = element_bytes(a.dtype);
    if (outputs == 0) return;
    double size = static_cast<double>(count(a)) / static_cast<double>(outputs);
    float* means = static_cast<float*>(scratch(Scratch::bias, static_cast<size_t>(outputs) * sizeof(float)));
    if (!means)
      return Stream::fail(Code::out_of_memory, "variance: no memory for %lld means", static_cast<long long>(outputs));
    fold_axes(SumFold<double>{bytes, k.sum[d], k.sum_columns[d], out.dtype, size, means}, out, a, ns / 2);
    fold_axes(VarianceFold{bytes, k.moments[d], k.moments_columns[d], out.dtype, size, correction, means}, out, a,
              ns / 2);
  });
}

}  // namespace kerf::ops
