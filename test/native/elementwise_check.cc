// Checks the elementwise, copy, creation and random drivers on every target that this CPU runs, against loops in
// float64 (integers exactly), over dtypes, layouts, edge sizes and in-place calls; every output sits between guard bytes.
// Links with native/core, native/ops/{targets,elementwise,copy,create,random}.cc and the targets' install, map and copy
// files; the other kernels are stubbed here. Exits 1 on the first few failures.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "../../native/core/pool.h"
#include "../../native/ops/ops.h"
#include "../../native/ops/philox.h"
#include "../../native/ops/targets.h"

namespace kerf {
#define TARGET(name, parent, features)                                             \
  namespace name {                                                                 \
  void install_rows(Kernels&) {}                                                   \
  void install_matmul(Kernels&) {}                                                 \
  }
#include "../../native/core/targets.def"
#undef TARGET
}  // namespace kerf

using namespace kerf;

static Stream* g_stream;
static int g_checks = 0, g_failures = 0;
static std::string g_where;

static void fail(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  printf("not ok %s: ", g_where.c_str());
  vprintf(format, arguments);
  printf("\n");
  va_end(arguments);
  if (++g_failures > 20) exit(1);
}

static uint64_t g_state = 1;
static uint32_t next_bits() { return static_cast<uint32_t>((g_state = g_state * 6364136223846793005ull + 1442695040888963407ull) >> 32); }

static const char* kNames[] = {"float32", "float16", "bfloat16", "int8", "uint8", "int32", "int64", "bool"};
static bool floating(DType d) { return is_floating(d); }

// A value of any dtype: floats as double, integers as int64.
struct Value { double f; int64_t i; };
static bool same(Value a, Value b) { return (a.f == b.f || (a.f != a.f && b.f != b.f)) && a.i == b.i; }

enum class Layout { contiguous, permuted, negative, stepped, broadcast_first, broadcast_last, scalar, count };

struct Tensor {
  std::vector<char> memory;
  View view{};
  std::vector<int64_t> shape;
  static constexpr char kGuard = 0x5b;

  Tensor(DType dtype, std::vector<int64_t> shape_, Layout layout = Layout::contiguous) : shape(shape_) {
    int rank = static_cast<int>(shape.size());
    view.dtype = dtype;
    view.rank = rank;
    int64_t expected = 1, low = 0, high = 0;
    for (int k = 0; k < rank; k++) {
      int i = layout == Layout::permuted ? k : rank - 1 - k;
      view.shape[i] = shape[i];
      int64_t stride = expected;
      if (layout == Layout::stepped) stride *= 2;
      if (layout == Layout::negative && i % 2 == (rank - 1) % 2) stride = -stride;
      if (layout == Layout::scalar || (layout == Layout::broadcast_first && i == 0) || (layout == Layout::broadcast_last && i == rank - 1)) stride = 0;
      view.stride[i] = stride;
      if (stride) expected *= shape[i] ? shape[i] : 1;
      if (shape[i]) (stride < 0 ? low : high) += stride * (shape[i] - 1);
    }
    int64_t bytes = element_bytes(dtype);
    memory.assign(static_cast<size_t>((high - low + 1) * bytes + 128), kGuard);
    view.data = memory.data() + 64 - low * bytes;
  }

  int64_t size() const { return count(view); }
  char* at(int64_t i) const {
    int64_t offset = 0;
    for (int k = view.rank - 1; k >= 0; k--) offset += i % view.shape[k] * view.stride[k], i /= view.shape[k];
    return static_cast<char*>(view.data) + offset * element_bytes(view.dtype);
  }
  Value get(int64_t i) const {
    const char* p = at(i);
    switch (view.dtype) {
      case DType::float32_: { float f; memcpy(&f, p, 4); return {f, 0}; }
      case DType::float16_: { f16 h; memcpy(&h, p, 2); return {to_float(h), 0}; }
      case DType::bfloat16_: { bf16 h; memcpy(&h, p, 2); return {to_float(h), 0}; }
      case DType::int8_: return {0, *reinterpret_cast<const int8_t*>(p)};
      case DType::int32_: { int32_t v; memcpy(&v, p, 4); return {0, v}; }
      case DType::int64_: { int64_t v; memcpy(&v, p, 8); return {0, v}; }
      default: return {0, *reinterpret_cast<const uint8_t*>(p)};
    }
  }
  // Rounds floats once to the dtype (the double is a float here or the rounding is the caller's).
  void set(int64_t i, Value v) {
    char* p = at(i);
    float f = static_cast<float>(v.f);
    switch (view.dtype) {
      case DType::float32_: memcpy(p, &f, 4); break;
      case DType::float16_: { f16 h = to_f16(f); memcpy(p, &h, 2); break; }
      case DType::bfloat16_: { bf16 h = to_bf16(f); memcpy(p, &h, 2); break; }
      case DType::int32_: { int32_t x = static_cast<int32_t>(v.i); memcpy(p, &x, 4); break; }
      case DType::int64_: memcpy(p, &v.i, 8); break;
      case DType::bool_: *p = v.i != 0; break;
      default: *p = static_cast<char>(v.i); break;
    }
  }
  // kind 0: numbers around one and every special; 1: positive; for integers any bits, extremes included.
  void randomize(int kind) {
    static const double special[] = {0.0, -0.0, INFINITY, -INFINITY, NAN, 1, -1, 0.5, -2.5, 3.5, 1e-6, -1e-6, 70000, -70000, 1e-40};
    for (int64_t i = 0; i < size(); i++) {
      uint32_t bits = next_bits();
      double x = (static_cast<double>(next_bits()) / 4294967296.0 - 0.5) * std::exp2(static_cast<int>(bits % 12) - 5);
      if (kind == 0 && bits % 7 == 0) x = special[(bits >> 8) % 15];
      if (kind == 1) x = std::fabs(x) + 1e-3;
      int64_t n = static_cast<int64_t>(static_cast<uint64_t>(next_bits()) << 32 | next_bits());
      if (bits % 3 == 0) n %= 5;
      if (bits % 31 == 0) n = INT64_MIN;
      set(i, {x, n});
    }
  }
  void check_guards() const {
    for (size_t i = 0; i < 64; i++)
      if (memory[i] != kGuard || memory[memory.size() - 1 - i] != kGuard) return fail("wrote outside the output");
  }
};

static double ulp_of(DType d, double x) {
  int digits = d == DType::float32_ ? 23 : d == DType::float16_ ? 10 : 7, smallest = d == DType::float16_ ? -14 : -126;
  int e = x == 0 || !std::isfinite(x) ? smallest : std::max(std::ilogb(x), smallest);
  return std::ldexp(1.0, e - digits);
}

static void call(const Status& status) {
  if (!status.ok()) fail("%s", status.what);
  g_stream->wait(g_stream->queued());
}

// Compares with a float64 result: within `ulps` of float32 before the one rounding to the dtype.
static void compare_float(const Tensor& out, int64_t i, double want, double ulps) {
  g_checks++;
  DType d = out.view.dtype;
  double got = out.get(i).f;
  if (std::isnan(want) || std::isnan(got)) {
    if (std::isnan(want) != std::isnan(got)) fail("[%lld] is %.9g, want %.17g", static_cast<long long>(i), got, want);
    return;
  }
  double largest = d == DType::float16_ ? 65504 : 0x1.fffffep127;
  if (std::isinf(got) || std::isinf(want)) {
    if (got == want || (std::isinf(got) && std::fabs(want) >= largest && (got > 0) == (want > 0))) return;
    return fail("[%lld] is %.9g, want %.17g", static_cast<long long>(i), got, want);
  }
  double tolerance = ulps * ulp_of(DType::float32_, want) + 0.5000001 * ulp_of(d, want) * (d == DType::float32_ && ulps == 0 ? 1 : d != DType::float32_);
  if (ulps == 80) tolerance += 1e-36;  // gelu's far tail, where its factors are subnormal
  if (std::fabs(got - want) > tolerance) fail("[%lld] is %.9g, want %.17g", static_cast<long long>(i), got, want);
}

static const std::vector<std::vector<int64_t>> kShapes = {{0}, {}, {1}, {3}, {7}, {8}, {15}, {16}, {17}, {33}, {1023}, {5, 7}, {2, 3, 37}, {4, 0, 3}, {3, 1, 64}, {70, 41}};

using UnaryDriver = Status (*)(Stream&, View, View);
using BinaryDriver = Status (*)(Stream&, View, View, View);
struct UnaryCase { const char* name; UnaryDriver driver; double (*f)(double); int64_t (*i)(int64_t); double ulps; };
struct BinaryCase { const char* name; BinaryDriver driver; double (*f)(double, double); int64_t (*i)(int64_t, int64_t); double ulps; };

static double cdf(double x) { return 0.5 * std::erfc(-x * std::sqrt(0.5)); }
static double sigmoid(double x) { return x < 0 ? std::exp(x) / (1 + std::exp(x)) : 1 / (1 + std::exp(-x)); }
static int64_t wrap(uint64_t x) { return static_cast<int64_t>(x); }

static const UnaryCase kUnary[] = {
    {"neg", ops::neg, [](double x) { return -x; }, [](int64_t x) { return wrap(0 - static_cast<uint64_t>(x)); }, 0},
    {"abs", ops::abs, [](double x) { return std::fabs(x); }, [](int64_t x) { return x < 0 ? wrap(0 - static_cast<uint64_t>(x)) : x; }, 0},
    {"sign", ops::sign, [](double x) { return std::isnan(x) ? x : static_cast<double>((x > 0) - (x < 0)); }, [](int64_t x) { return int64_t{x > 0} - int64_t{x < 0}; }, 0},
    {"floor", ops::floor, [](double x) { return std::floor(x); }, nullptr, 0},
    {"ceil", ops::ceil, [](double x) { return std::ceil(x); }, nullptr, 0},
    {"round", ops::round, [](double x) { return std::nearbyint(x); }, nullptr, 0},
    {"relu", ops::relu, [](double x) { return x > 0 || std::isnan(x) ? x : 0; }, [](int64_t x) { return x > 0 ? x : 0; }, 0},
    {"sqrt", ops::sqrt, [](double x) { return std::sqrt(x); }, nullptr, 0.51},
    {"rsqrt", ops::rsqrt, [](double x) { return 1 / std::sqrt(x); }, nullptr, 1.5},
    {"exp", ops::exp, [](double x) { return std::exp(x); }, nullptr, 2},
    {"log", ops::log, [](double x) { return std::log(x); }, nullptr, 2},
    {"log1p", ops::log1p, [](double x) { return std::log1p(x); }, nullptr, 2},
    {"sin", ops::sin, [](double x) { return std::sin(x); }, nullptr, 2},
    {"cos", ops::cos, [](double x) { return std::cos(x); }, nullptr, 2},
    {"tanh", ops::tanh, [](double x) { return std::tanh(x); }, nullptr, 2},
    {"sigmoid", ops::sigmoid, sigmoid, nullptr, 2},
    {"erf", ops::erf, [](double x) { return std::erf(x); }, nullptr, 2},
    {"silu", ops::silu, [](double x) { return x * sigmoid(x); }, nullptr, 2.5},
    {"gelu", ops::gelu, [](double x) { return x * cdf(x); }, nullptr, 80},
};
static const BinaryCase kBinary[] = {
    {"add", ops::add, [](double a, double b) { return a + b; }, [](int64_t a, int64_t b) { return wrap(static_cast<uint64_t>(a) + static_cast<uint64_t>(b)); }, 0.51},
    {"sub", ops::sub, [](double a, double b) { return a - b; }, [](int64_t a, int64_t b) { return wrap(static_cast<uint64_t>(a) - static_cast<uint64_t>(b)); }, 0.51},
    {"mul", ops::mul, [](double a, double b) { return a * b; }, [](int64_t a, int64_t b) { return wrap(static_cast<uint64_t>(a) * static_cast<uint64_t>(b)); }, 0.51},
    {"div", ops::div, [](double a, double b) { return a / b; }, nullptr, 0.51},
    {"maximum", ops::maximum, [](double a, double b) { return std::isnan(a) || std::isnan(b) ? NAN : a > b ? a : b; }, [](int64_t a, int64_t b) { return a > b ? a : b; }, 0},
    {"minimum", ops::minimum, [](double a, double b) { return std::isnan(a) || std::isnan(b) ? NAN : a < b ? a : b; }, [](int64_t a, int64_t b) { return a < b ? a : b; }, 0},
    {"pow", ops::pow, [](double a, double b) { return std::pow(a, b); }, nullptr, 2},
    {"reluGrad", ops::reluGrad, [](double g, double y) { return y > 0 ? g : 0; }, nullptr, 0},
    {"sigmoidGrad", ops::sigmoidGrad, [](double g, double y) { return g * (y * (1 - y)); }, nullptr, -1},
    {"tanhGrad", ops::tanhGrad, [](double g, double y) { return g * (1 - y * y); }, nullptr, -1},
    {"geluGrad", ops::geluGrad, [](double g, double x) { return g * (cdf(x) + x * std::exp(-0.5 * x * x) / std::sqrt(2 * M_PI)); }, nullptr, -1},
    {"siluGrad", ops::siluGrad, [](double g, double x) { return g * sigmoid(x) * (1 + x * sigmoid(-x)); }, nullptr, -1},
};
struct CompareCase { const char* name; BinaryDriver driver; bool (*f)(double, double); bool (*i)(int64_t, int64_t); };
static const CompareCase kCompare[] = {
    {"eq", ops::eq, [](double a, double b) { return a == b; }, [](int64_t a, int64_t b) { return a == b; }},
    {"ne", ops::ne, [](double a, double b) { return a != b; }, [](int64_t a, int64_t b) { return a != b; }},
    {"lt", ops::lt, [](double a, double b) { return a < b; }, [](int64_t a, int64_t b) { return a < b; }},
    {"le", ops::le, [](double a, double b) { return a <= b; }, [](int64_t a, int64_t b) { return a <= b; }},
    {"gt", ops::gt, [](double a, double b) { return a > b; }, [](int64_t a, int64_t b) { return a > b; }},
    {"ge", ops::ge, [](double a, double b) { return a >= b; }, [](int64_t a, int64_t b) { return a >= b; }},
};

static int64_t narrow(DType d, int64_t x) {
  Tensor t(d, {1});
  t.set(0, {0, x});
  return t.get(0).i;
}

static std::string describe(const char* name, DType d, const std::vector<int64_t>& shape, Layout a, Layout b, Layout out) {
  std::string s = std::string(kernels().target) + " " + name + " " + kNames[static_cast<int>(d)] + " [";
  for (int64_t n : shape) s += std::to_string(n) + ",";
  return s + "] layouts " + std::to_string(static_cast<int>(a)) + std::to_string(static_cast<int>(b)) + std::to_string(static_cast<int>(out));
}

static bool output_layout(Layout l) { return l <= Layout::stepped; }

static void check_unary(DType d) {
  for (const UnaryCase& c : kUnary) {
    if (!floating(d) && (!c.i || d == DType::bool_)) continue;
    for (auto& shape : kShapes) {
      for (int l = 0; l < static_cast<int>(Layout::count); l++) {
        Layout out_layout = static_cast<Layout>(next_bits() % 4);
        g_where = describe(c.name, d, shape, static_cast<Layout>(l), Layout::contiguous, out_layout);
        Tensor a(d, shape, static_cast<Layout>(l)), out(d, shape, out_layout);
        a.randomize(0);
        call(c.driver(*g_stream, out.view, a.view));
        for (int64_t i = 0; i < out.size(); i++) {
          if (floating(d)) compare_float(out, i, c.f(a.get(i).f), c.ulps);
          else if (g_checks++; out.get(i).i != narrow(d, c.i(a.get(i).i))) fail("[%lld] of %lld is %lld", static_cast<long long>(i), static_cast<long long>(a.get(i).i), static_cast<long long>(out.get(i).i));
        }
        out.check_guards();
        if (output_layout(static_cast<Layout>(l))) {  // in place gives the same bits
          call(c.driver(*g_stream, a.view, a.view));
          for (int64_t i = 0; i < out.size(); i++)
            if (!same(a.get(i), out.get(i))) { fail("in place differs at %lld", static_cast<long long>(i)); break; }
        }
      }
    }
  }
}

static void check_binary(DType d) {
  for (const BinaryCase& c : kBinary) {
    if (!floating(d) && !c.i) continue;
    if (d == DType::bool_ && (c.driver == ops::sub || c.driver == ops::add)) continue;  // add is "or": checked apart
    for (auto& shape : kShapes) {
      for (int l = 0; l < static_cast<int>(Layout::count); l++) {
        Layout b_layout = static_cast<Layout>(next_bits() % static_cast<int>(Layout::count)), out_layout = static_cast<Layout>(next_bits() % 4);
        if (l == 0 && next_bits() % 2) b_layout = Layout::scalar, out_layout = Layout::contiguous;
        g_where = describe(c.name, d, shape, static_cast<Layout>(l), b_layout, out_layout);
        Tensor a(d, shape, static_cast<Layout>(l)), b(d, shape, b_layout), out(d, shape, out_layout);
        a.randomize(c.ulps < 0 ? 1 : 0), b.randomize(c.ulps < 0 ? 1 : 0);
        call(c.driver(*g_stream, out.view, a.view, b.view));
        for (int64_t i = 0; i < out.size(); i++) {
          double want = floating(d) ? c.f(a.get(i).f, b.get(i).f) : 0;
          if (floating(d) && c.ulps < 0) {  // differences that cancel: 4e-7 of the gradient, which is positive here
            g_checks++;
            double scale = std::fabs(a.get(i).f) * (c.driver == ops::tanhGrad || c.driver == ops::sigmoidGrad ? 1 + std::pow(b.get(i).f, 2) : 1);
            if (!(std::fabs(out.get(i).f - want) <= 4e-7 * scale + 0.5000001 * ulp_of(d, want))) fail("[%lld] is %.9g, want %.17g", static_cast<long long>(i), out.get(i).f, want);
          } else if (floating(d)) compare_float(out, i, want, c.ulps);
          else if (g_checks++; out.get(i).i != narrow(d, c.i(a.get(i).i, b.get(i).i))) fail("[%lld] is %lld", static_cast<long long>(i), static_cast<long long>(out.get(i).i));
        }
        out.check_guards();
        if (output_layout(static_cast<Layout>(l))) {
          call(c.driver(*g_stream, a.view, a.view, b.view));
          for (int64_t i = 0; i < out.size(); i++)
            if (!same(a.get(i), out.get(i))) { fail("in place differs at %lld", static_cast<long long>(i)); break; }
        }
      }
    }
  }
  for (const CompareCase& c : kCompare) {
    for (auto& shape : kShapes) {
      for (int l = 0; l < static_cast<int>(Layout::count); l++) {
        Layout b_layout = l == 0 ? Layout::contiguous : static_cast<Layout>(next_bits() % static_cast<int>(Layout::count)), out_layout = static_cast<Layout>(next_bits() % 4);
        g_where = describe(c.name, d, shape, static_cast<Layout>(l), b_layout, out_layout);
        Tensor a(d, shape, static_cast<Layout>(l)), b(d, shape, b_layout), out(DType::bool_, shape, out_layout), r(d, shape, out_layout);
        a.randomize(0), b.randomize(0);
        for (int64_t i = 0; i < b.size(); i += 3) b.set(i, a.get(i));
        call(c.driver(*g_stream, out.view, a.view, b.view));
        call(ops::where(*g_stream, r.view, out.view, a.view, b.view));
        for (int64_t i = 0; i < out.size(); i++, g_checks += 2) {
          bool want = floating(d) ? c.f(a.get(i).f, b.get(i).f) : c.i(a.get(i).i, b.get(i).i);
          if (out.get(i).i != want) fail("[%lld] is %lld", static_cast<long long>(i), static_cast<long long>(out.get(i).i));
          if (!same(r.get(i), want ? a.get(i) : b.get(i))) fail("where [%lld]", static_cast<long long>(i));
        }
        out.check_guards(), r.check_guards();
      }
    }
  }
}

static void check_clamp(DType d) {
  if (d == DType::bool_) return;
  for (auto [low, high] : std::vector<std::pair<double, double>>{{-1, 2}, {-INFINITY, 0.5}, {0.25, INFINITY}, {3, 1}}) {
    for (int l = 0; l < static_cast<int>(Layout::count); l++) {
      g_where = describe("clamp", d, {3, 41}, static_cast<Layout>(l), Layout::contiguous, Layout::contiguous);
      Tensor a(d, {3, 41}, static_cast<Layout>(l)), out(d, {3, 41});
      a.randomize(0);
      call(ops::clamp(*g_stream, out.view, a.view, low, high));
      for (int64_t i = 0; i < out.size(); i++) {
        double x = floating(d) ? a.get(i).f : static_cast<double>(a.get(i).i);
        double lo = floating(d) ? low : std::ceil(low), hi = floating(d) ? high : std::floor(high);
        if (floating(d)) compare_float(out, i, std::isnan(x) ? x : std::min(hi, std::max(lo, x)), 0);
        else {
          int64_t v = a.get(i).i;
          int64_t want = x < lo ? static_cast<int64_t>(lo) : v;
          if (static_cast<double>(want) > hi) want = static_cast<int64_t>(hi);
          if (d == DType::uint8_ && want < 0) want = 0;
          if (g_checks++; out.get(i).i != want) fail("[%lld] %lld is %lld, want %lld", static_cast<long long>(i), static_cast<long long>(v), static_cast<long long>(out.get(i).i), static_cast<long long>(want));
        }
      }
      out.check_guards();
    }
  }
}

static Value cast_value(DType from, DType to, Value v) {
  if (to == DType::bool_) return {0, floating(from) ? v.f != 0 : v.i != 0};
  if (floating(to)) {
    if (floating(from)) return v;
    return {static_cast<double>(static_cast<float>(v.i)), 0};
  }
  if (!floating(from)) return {0, narrow(to, v.i)};
  long double low = to == DType::int8_ ? -128 : to == DType::uint8_ ? 0 : to == DType::int32_ ? INT32_MIN : static_cast<long double>(INT64_MIN);
  long double high = to == DType::int8_ ? 127 : to == DType::uint8_ ? 255 : to == DType::int32_ ? INT32_MAX : static_cast<long double>(INT64_MAX);
  if (std::isnan(v.f)) return {0, 0};
  long double t = std::trunc(static_cast<long double>(v.f));
  return {0, static_cast<int64_t>(t < low ? low : t > high ? high : t)};
}

static void check_copy(DType from, DType to) {
  auto shapes = kShapes;
  shapes.push_back({33, 65}), shapes.push_back({100, 7}), shapes.push_back({3, 40, 129}), shapes.push_back({5, 64, 64}), shapes.push_back({257, 3});
  for (auto& shape : shapes) {
    for (int l = 0; l < static_cast<int>(Layout::count) * 2; l++) {
      Layout a_layout = static_cast<Layout>(l / 2), out_layout = l % 2 ? static_cast<Layout>(next_bits() % 4) : Layout::contiguous;
      g_where = describe("copy", from, shape, a_layout, Layout::contiguous, out_layout) + " to " + kNames[static_cast<int>(to)];
      Tensor a(from, shape, a_layout), out(to, shape, out_layout), want(to, {1});
      a.randomize(0);
      call(ops::copy(*g_stream, out.view, a.view));
      for (int64_t i = 0; i < out.size(); i++, g_checks++) {
        want.set(0, cast_value(from, to, a.get(i)));
        if (!same(want.get(0), out.get(i))) fail("[%lld] (%.9g, %lld) is (%.9g, %lld)", static_cast<long long>(i), a.get(i).f, static_cast<long long>(a.get(i).i), out.get(i).f, static_cast<long long>(out.get(i).i));
      }
      out.check_guards();
    }
  }
}

static void check_create(DType d) {
  for (Layout layout : {Layout::contiguous, Layout::permuted, Layout::negative, Layout::stepped}) {
    g_where = describe("create", d, {3, 5, 7}, layout, layout, layout);
    Tensor out(d, {3, 5, 7}, layout), a(d, {3, 5, 7}, Layout::permuted);
    a.randomize(0);
    call(ops::fill(*g_stream, out.view, 2.7));
    Tensor want(d, {1});
    for (int64_t i = 0; i < out.size(); i++, g_checks++) {
      want.set(0, {2.7, d == DType::bool_ ? 1 : 2});
      if (!same(want.get(0), out.get(i))) fail("fill [%lld]", static_cast<long long>(i));
    }
    if (d != DType::bool_) {
      call(ops::arange(*g_stream, out.view, 3, 1));
      for (int64_t i = 0; i < out.size(); i++, g_checks++) {
        want.set(0, {static_cast<double>(3 + i), 3 + i});
        if (!same(want.get(0), out.get(i))) fail("arange [%lld]", static_cast<long long>(i));
      }
    }
    for (int64_t k : {-9, -2, 0, 1, 3, 9}) {
      for (int upper : {0, 1}) {
        call(ops::tri(*g_stream, out.view, a.view, k, upper));
        for (int64_t i = 0; i < out.size(); i++, g_checks++) {
          int64_t column = i % 7, row = i / 7 % 5;
          bool keep = upper ? column - row >= k : column - row <= k;
          if (!same(out.get(i), keep ? a.get(i) : Value{0, 0})) fail("tri k %lld upper %d [%lld]", static_cast<long long>(k), upper, static_cast<long long>(i));
        }
      }
    }
    Tensor index(DType::int64_, {3, 5}, layout);
    for (int64_t i = 0; i < 15; i++) index.set(i, {0, (i * 5) % 7});
    call(ops::oneHot(*g_stream, out.view, index.view));
    for (int64_t i = 0; i < out.size(); i++, g_checks++) {
      Value one{floating(d) ? 1.0 : 0, floating(d) ? 0 : 1};
      if (!same(out.get(i), i % 7 == index.get(i / 7).i ? one : Value{0, 0})) fail("oneHot [%lld]", static_cast<long long>(i));
    }
    out.check_guards();
    index.set(4, {0, 7});
    call(ops::oneHot(*g_stream, out.view, index.view));
    Status status = g_stream->take_error();
    if (g_checks++; status.code != Code::range || !strstr(status.what, "index 7 at position 4")) fail("oneHot accepted 7: %s", status.what);
  }
}

static void check_random() {
  g_where = "random";
  const uint64_t all = ~uint64_t{0};
  Words w = philox(0, 0), v = philox(all, all);
  // Random123's kat_vectors has all four counter words set in its second line; here the upper two are always 0.
  if (w.w[0] != 0x6627e8d5u || w.w[1] != 0xe169c58du || w.w[2] != 0xbc57ac4cu || w.w[3] != 0x9b00dbd8u) fail("philox(0, 0) = %08x %08x %08x %08x", w.w[0], w.w[1], w.w[2], w.w[3]);
  if (memcmp(&v, &w, sizeof v) == 0) fail("philox ignores its key");
  for (DType d : {DType::float32_, DType::float16_, DType::bfloat16_}) {
    const int64_t n = 200'003;
    Tensor a(d, {n}), b(d, {n});
    call(ops::randUniform(*g_stream, a.view, -1, 3, 42, 5));
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < n; i++, g_checks++) {
      double x = a.get(i).f;
      if (!(x >= -1 && x < 3)) fail("uniform %.9g", x);
      sum += x, squares += x * x;
    }
    if (std::fabs(sum / n - 1) > 0.02 || std::fabs(squares / n - 1 - 16.0 / 12) > 0.03) fail("uniform mean %g, square %g", sum / n, squares / n);
    call(ops::randNormal(*g_stream, a.view, 0, 1, -7, 0));
    double moments[5] = {};
    for (int64_t i = 0; i < n; i++) for (int k = 1; k < 5; k++) moments[k] += std::pow(a.get(i).f, k) / n;
    if (std::fabs(moments[1]) > 0.01 || std::fabs(moments[2] - 1) > 0.02 || std::fabs(moments[3]) > 0.05 || std::fabs(moments[4] - 3) > 0.1) fail("normal moments %g %g %g %g", moments[1], moments[2], moments[3], moments[4]);
    // an offset continues the same sequence, in pieces of any size and through any layout
    for (int64_t start : {1, 2, 3, 5, 257}) {
      Tensor part(d, {10, 31}, Layout::permuted);
      call(ops::randNormal(*g_stream, part.view, 0, 1, -7, start));
      for (int64_t i = 0; i < 310; i++, g_checks++) if (!same(part.get(i), a.get(start + i))) { fail("normal from %lld differs at %lld", static_cast<long long>(start), static_cast<long long>(i)); break; }
    }
    pool_set_threads(1);
    call(ops::randNormal(*g_stream, b.view, 0, 1, -7, 0));
    pool_set_threads(2);
    if (a.memory != b.memory) fail("normals depend on the number of threads");
    Tensor mask(DType::bool_, {n}), out(d, {n}), u(DType::float32_, {n});
    call(ops::dropout(*g_stream, out.view, mask.view, a.view, 0.3, 9, 2));
    call(ops::randUniform(*g_stream, u.view, 0, 1, 9, 2));
    for (int64_t i = 0; i < n; i++, g_checks++) {
      bool keep = u.get(i).f >= 0.3;
      if (mask.get(i).i != keep) fail("dropout mask [%lld]", static_cast<long long>(i));
      compare_float(out, i, keep ? a.get(i).f / 0.7 : 0, 1.5);
    }
    call(ops::dropout(*g_stream, out.view, mask.view, a.view, 1, 9, 2));
    for (int64_t i = 0; i < n; i++) if (out.get(i).f != 0) fail("dropout p = 1");
  }
  Tensor r(DType::int64_, {10000});
  call(ops::randUniform(*g_stream, r.view, -2, 3, 1, 0));
  int seen[5] = {};
  for (int64_t i = 0; i < 10000; i++) {
    int64_t x = r.get(i).i;
    if (x < -2 || x > 2) fail("randint %lld", static_cast<long long>(x));
    else seen[x + 2]++;
  }
  for (int c : seen) if (c < 1800 || c > 2200) fail("randint is not even: %d", c);
}

// Large enough to be queued and split: against the small case's arithmetic.
static void check_large() {
  g_where = std::string(kernels().target) + " large";
  Tensor a(DType::float32_, {1500, 700}), b(DType::float32_, {1500, 700}, Layout::permuted), out(DType::float32_, {1500, 700}), t(DType::float32_, {1500, 700});
  a.randomize(0), b.randomize(0);
  call(ops::add(*g_stream, out.view, a.view, b.view));
  call(ops::copy(*g_stream, t.view, b.view));
  for (int64_t i = 0; i < out.size(); i++, g_checks++) {
    compare_float(out, i, static_cast<float>(a.get(i).f) + static_cast<float>(b.get(i).f), 0);
    if (!same(t.get(i), b.get(i))) { fail("transposed copy [%lld]", static_cast<long long>(i)); break; }
  }
  out.check_guards(), t.check_guards();
}

int main() {
  Stream stream;
  g_stream = &stream;
  for (int target = 0; target < target_count(); target++) {
    TargetInfo info = target_info(target);
    char why[200];
    if (!info.supported || !choose_target(info.name, why, sizeof why)) continue;
    int before = g_checks;
    for (int d = 0; d < kDTypes; d++) {
      check_unary(static_cast<DType>(d));
      check_binary(static_cast<DType>(d));
      check_clamp(static_cast<DType>(d));
      check_create(static_cast<DType>(d));
      for (int to = 0; to < kDTypes; to++) check_copy(static_cast<DType>(d), static_cast<DType>(to));
    }
    check_random();
    check_large();
    printf("%s: %d comparisons, %d failures so far\n", info.name, g_checks - before, g_failures);
  }
  stream.stop();
  pool_shutdown();
  return g_failures != 0 || g_checks == 0;
}
