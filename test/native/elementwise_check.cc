// Checks the elementwise drivers on every target, against loops in float64 (integers exactly), over dtypes, layouts,
// edge sizes and in-place calls.
#include "drivers_check.h"

using UnaryDriver = Status (*)(Stream&, View, View);
using BinaryDriver = Status (*)(Stream&, View, View, View);
struct UnaryCase {
  const char* name;
  UnaryDriver driver;
  double (*f)(double);
  int64_t (*i)(int64_t);
  double ulps;
};
struct BinaryCase {
  const char* name;
  BinaryDriver driver;
  double (*f)(double, double);
  int64_t (*i)(int64_t, int64_t);
  double ulps;
};

static double cdf(double x) { return 0.5 * std::erfc(-x * std::sqrt(0.5)); }
static double sigmoid(double x) { return x < 0 ? std::exp(x) / (1 + std::exp(x)) : 1 / (1 + std::exp(-x)); }
static int64_t wrap(uint64_t x) { return static_cast<int64_t>(x); }

static const UnaryCase kUnary[] = {
    {"neg", ops::neg, [](double x) { return -x; }, [](int64_t x) { return wrap(0 - static_cast<uint64_t>(x)); }, 0},
    {"abs", ops::abs, [](double x) { return std::fabs(x); },
     [](int64_t x) { return x < 0 ? wrap(0 - static_cast<uint64_t>(x)) : x; }, 0},
    {"sign", ops::sign, [](double x) { return std::isnan(x) ? x : static_cast<double>((x > 0) - (x < 0)); },
     [](int64_t x) { return int64_t{x > 0} - int64_t{x < 0}; }, 0},
    {"floor", ops::floor, [](double x) { return std::floor(x); }, nullptr, 0},
    {"ceil", ops::ceil, [](double x) { return std::ceil(x); }, nullptr, 0},
    {"round", ops::round, [](double x) { return std::nearbyint(x); }, nullptr, 0},
    {"relu", ops::relu, [](double x) { return x > 0 || std::isnan(x) ? x : 0; },
     [](int64_t x) { return x > 0 ? x : 0; }, 0},
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
    {"add", ops::add, [](double a, double b) { return a + b; },
     [](int64_t a, int64_t b) { return wrap(static_cast<uint64_t>(a) + static_cast<uint64_t>(b)); }, 0.51},
    {"sub", ops::sub, [](double a, double b) { return a - b; },
     [](int64_t a, int64_t b) { return wrap(static_cast<uint64_t>(a) - static_cast<uint64_t>(b)); }, 0.51},
    {"mul", ops::mul, [](double a, double b) { return a * b; },
     [](int64_t a, int64_t b) { return wrap(static_cast<uint64_t>(a) * static_cast<uint64_t>(b)); }, 0.51},
    {"div", ops::div, [](double a, double b) { return a / b; }, nullptr, 0.51},
    {"maximum", ops::maximum, [](double a, double b) { return std::isnan(a) || std::isnan(b) ? NAN
                                                              : a > b                        ? a
                                                                                             : b; },
     [](int64_t a, int64_t b) { return a > b ? a : b; }, 0},
    {"minimum", ops::minimum, [](double a, double b) { return std::isnan(a) || std::isnan(b) ? NAN
                                                              : a < b                        ? a
                                                                                             : b; },
     [](int64_t a, int64_t b) { return a < b ? a : b; }, 0},
    {"pow", ops::pow, [](double a, double b) { return std::pow(a, b); }, nullptr, 2},
    {"reluGrad", ops::reluGrad, [](double g, double y) { return y > 0 ? g : 0; }, nullptr, 0},
    {"sigmoidGrad", ops::sigmoidGrad, [](double g, double y) { return g * (y * (1 - y)); }, nullptr, -1},
    {"tanhGrad", ops::tanhGrad, [](double g, double y) { return g * (1 - y * y); }, nullptr, -1},
    {"geluGrad", ops::geluGrad,
     [](double g, double x) { return g * (cdf(x) + x * std::exp(-0.5 * x * x) / std::sqrt(2 * M_PI)); }, nullptr, -1},
    {"siluGrad", ops::siluGrad, [](double g, double x) { return g * sigmoid(x) * (1 + x * sigmoid(-x)); }, nullptr, -1},
};
struct CompareCase {
  const char* name;
  BinaryDriver driver;
  bool (*f)(double, double);
  bool (*i)(int64_t, int64_t);
};
static const CompareCase kCompare[] = {
    {"eq", ops::eq, [](double a, double b) { return a == b; }, [](int64_t a, int64_t b) { return a == b; }},
    {"ne", ops::ne, [](double a, double b) { return a != b; }, [](int64_t a, int64_t b) { return a != b; }},
    {"lt", ops::lt, [](double a, double b) { return a < b; }, [](int64_t a, int64_t b) { return a < b; }},
    {"le", ops::le, [](double a, double b) { return a <= b; }, [](int64_t a, int64_t b) { return a <= b; }},
    {"gt", ops::gt, [](double a, double b) { return a > b; }, [](int64_t a, int64_t b) { return a > b; }},
    {"ge", ops::ge, [](double a, double b) { return a >= b; }, [](int64_t a, int64_t b) { return a >= b; }},
};

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
          if (floating(d))
            compare_float(out, i, c.f(a.get(i).f), c.ulps);
          else if (g_checks++; out.get(i).i != narrow(d, c.i(a.get(i).i)))
            fail("[%lld] of %lld is %lld", static_cast<long long>(i), static_cast<long long>(a.get(i).i),
                 static_cast<long long>(out.get(i).i));
        }
        out.check_guards();
        if (output_layout(static_cast<Layout>(l))) {  // in place gives the same bits
          call(c.driver(*g_stream, a.view, a.view));
          for (int64_t i = 0; i < out.size(); i++)
            if (!same(a.get(i), out.get(i))) {
              fail("in place differs at %lld", static_cast<long long>(i));
              break;
            }
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
        Layout b_layout = static_cast<Layout>(next_bits() % static_cast<int>(Layout::count)),
               out_layout = static_cast<Layout>(next_bits() % 4);
        if (l == 0 && next_bits() % 2) b_layout = Layout::scalar, out_layout = Layout::contiguous;
        g_where = describe(c.name, d, shape, static_cast<Layout>(l), b_layout, out_layout);
        Tensor a(d, shape, static_cast<Layout>(l)), b(d, shape, b_layout), out(d, shape, out_layout);
        a.randomize(c.ulps < 0 ? 1 : 0), b.randomize(c.ulps < 0 ? 1 : 0);
        call(c.driver(*g_stream, out.view, a.view, b.view));
        for (int64_t i = 0; i < out.size(); i++) {
          double want = floating(d) ? c.f(a.get(i).f, b.get(i).f) : 0;
          if (floating(d) && c.ulps < 0) {  // differences that cancel: 4e-7 of the gradient, which is positive here
            g_checks++;
            double scale =
                std::fabs(a.get(i).f) *
                (c.driver == ops::tanhGrad || c.driver == ops::sigmoidGrad ? 1 + std::pow(b.get(i).f, 2) : 1);
            if (!(std::fabs(out.get(i).f - want) <= 4e-7 * scale + 0.5000001 * ulp_of(d, want)))
              fail("[%lld] is %.9g, want %.17g", static_cast<long long>(i), out.get(i).f, want);
          } else if (floating(d))
            compare_float(out, i, want, c.ulps);
          else if (g_checks++; out.get(i).i != narrow(d, c.i(a.get(i).i, b.get(i).i)))
            fail("[%lld] is %lld", static_cast<long long>(i), static_cast<long long>(out.get(i).i));
        }
        out.check_guards();
        if (output_layout(static_cast<Layout>(l))) {
          call(c.driver(*g_stream, a.view, a.view, b.view));
          for (int64_t i = 0; i < out.size(); i++)
            if (!same(a.get(i), out.get(i))) {
              fail("in place differs at %lld", static_cast<long long>(i));
              break;
            }
        }
      }
    }
  }
  for (const CompareCase& c : kCompare) {
    for (auto& shape : kShapes) {
      for (int l = 0; l < static_cast<int>(Layout::count); l++) {
        Layout b_layout =
                   l == 0 ? Layout::contiguous : static_cast<Layout>(next_bits() % static_cast<int>(Layout::count)),
               out_layout = static_cast<Layout>(next_bits() % 4);
        g_where = describe(c.name, d, shape, static_cast<Layout>(l), b_layout, out_layout);
        Tensor a(d, shape, static_cast<Layout>(l)), b(d, shape, b_layout), out(DType::bool_, shape, out_layout),
            r(d, shape, out_layout);
        a.randomize(0), b.randomize(0);
        for (int64_t i = 0; i < b.size(); i += 3) b.set(i, a.get(i));
        call(c.driver(*g_stream, out.view, a.view, b.view));
        call(ops::where(*g_stream, r.view, out.view, a.view, b.view));
        for (int64_t i = 0; i < out.size(); i++, g_checks += 2) {
          bool want = floating(d) ? c.f(a.get(i).f, b.get(i).f) : c.i(a.get(i).i, b.get(i).i);
          if (out.get(i).i != want)
            fail("[%lld] is %lld", static_cast<long long>(i), static_cast<long long>(out.get(i).i));
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
        if (floating(d))
          compare_float(out, i, std::isnan(x) ? x : std::min(hi, std::max(lo, x)), 0);
        else {
          int64_t v = a.get(i).i;
          int64_t want = x < lo ? static_cast<int64_t>(lo) : v;
          if (static_cast<double>(want) > hi) want = static_cast<int64_t>(hi);
          if (d == DType::uint8_ && want < 0) want = 0;
          if (g_checks++; out.get(i).i != want)
            fail("[%lld] %lld is %lld, want %lld", static_cast<long long>(i), static_cast<long long>(v),
                 static_cast<long long>(out.get(i).i), static_cast<long long>(want));
        }
      }
      out.check_guards();
    }
  }
}

// Large enough to be queued and split: against the small case's arithmetic.
static void check_large() {
  g_where = std::string(kernels().target) + " large";
  Tensor a(DType::float32_, {1500, 700}), b(DType::float32_, {1500, 700}, Layout::permuted),
      out(DType::float32_, {1500, 700});
  a.randomize(0), b.randomize(0);
  call(ops::add(*g_stream, out.view, a.view, b.view));
  for (int64_t i = 0; i < out.size(); i++, g_checks++) {
    compare_float(out, i, static_cast<float>(a.get(i).f) + static_cast<float>(b.get(i).f), 0);
  }
  out.check_guards();
}

int main() {
  return run_checks([] {
    for (int d = 0; d < kDTypes; d++) {
      check_unary(static_cast<DType>(d));
      check_binary(static_cast<DType>(d));
      check_clamp(static_cast<DType>(d));
    }
    check_large();
  });
}
