// Prints the largest error of every function of simd_math.h, in ulp of the float32 result, against libm in float64, and
// where it occurs; exits 1 when one exceeds its bound. Compiled once per target:
//   g++ -std=c++20 -O2 -ffp-contract=off <the target's flags> -DKERF_TARGET=<target> -I native/cpu/<target>
//   test/native/simd_math_check.cc
// Arguments: the stride through the 2^32 bit patterns (default 997, about a second a function; 1 takes minutes) and a
// function's name (default all).
#include "simd.h"
#include "../../native/cpu/simd_math.h"
#include <cmath>
#include <cstdio>
#include <cstdlib>

using namespace kerf;
namespace target = kerf::KERF_TARGET;
using target::vf;
using target::W;

static double ulp(double x) { return std::ldexp(1.0, std::max(std::ilogb(x == 0 ? 1e-300 : x), -126) - 23); }

// Infinity stands for "wrong kind": NaN against a number, the wrong zero's sign, infinity far from overflow.
static double ulp_error(float got, double want) {
  float rounded = static_cast<float>(want);
  if (std::isnan(want) || std::isnan(got)) return std::isnan(want) && std::isnan(got) ? 0 : INFINITY;
  if (want == 0 && got == 0) return std::signbit(got) == std::signbit(want) ? 0 : INFINITY;
  if (std::isinf(got) || std::isinf(rounded)) {
    if (got == rounded) return 0;
    bool at_the_edge = std::fabs(got) >= 0x1.fffffep127f && std::fabs(rounded) >= 0x1.fffffep127f && got * rounded > 0;
    return at_the_edge ? 1 : INFINITY;
  }
  return std::fabs(got - want) / ulp(want);
}

struct Case {
  const char* name;
  vf (*f)(vf);
  double (*want)(double);
  double bound;
  float from;  // smaller inputs are not compared: the result is a product with a subnormal
};

static double sigmoid(double x) { return x < 0 ? std::exp(x) / (1 + std::exp(x)) : 1 / (1 + std::exp(-x)); }
static double normal_cdf(double x) { return 0.5 * std::erfc(-x * std::sqrt(0.5)); }
static double silu_derivative(double x) { return sigmoid(x) * (1 + x * sigmoid(-x)); }

static const Case cases[] = {
    {"exp", [](vf x) { return target::exp(x); }, [](double x) { return std::exp(x); }, 2, -INFINITY},
    {"log", [](vf x) { return target::log(x); }, [](double x) { return std::log(x); }, 2, -INFINITY},
    {"log1p", [](vf x) { return target::log1p(x); }, [](double x) { return std::log1p(x); }, 2, -INFINITY},
    {"tanh", [](vf x) { return target::tanh(x); }, [](double x) { return std::tanh(x); }, 2, -INFINITY},
    {"erf", [](vf x) { return target::erf(x); }, [](double x) { return std::erf(x); }, 2, -INFINITY},
    {"sigmoid", [](vf x) { return target::sigmoid(x); }, sigmoid, 2, -INFINITY},
    {"sin", [](vf x) { return target::sin(x); }, [](double x) { return std::sin(x); }, 2, -INFINITY},
    {"cos", [](vf x) { return target::cos(x); }, [](double x) { return std::cos(x); }, 2, -INFINITY},
    {"silu", [](vf x) { return target::silu(x); }, [](double x) { return x * sigmoid(x); }, 2.5, -87.0f},
    // Where the tail matters to nobody (6.7 ulp over all numbers): without fma, exp(-x^2 / 2) loses x^2's rounding, 70 ulp at x = -12.
    {"gelu", [](vf x) { return target::gelu(x); }, [](double x) { return x * normal_cdf(x); }, target::kFused ? 7 : 80,
     -12.5f},
};

// Derivatives pass through zero: absolute errors, against the largest slope of about one.
static const Case derivatives[] = {
    {"gelu'", [](vf x) { return target::gelu_derivative(x); },
     [](double x) { return normal_cdf(x) + x * std::exp(-0.5 * x * x) / std::sqrt(2 * M_PI); }, 4e-7, -1e30f},
    {"silu'", [](vf x) { return target::silu_derivative(x); }, silu_derivative, 4e-7, -1e30f},
};

static int report(const char* name, double worst, double bound, const char* unit, float x, float y, float got,
                  double want) {
  bool ok = worst <= bound;
  printf("%s %-8s %.3g %s at (%.9g, %.9g): %.9g, want %.17g\n", ok ? "ok    " : "not ok", name, worst, unit, x, y, got,
         want);
  fflush(stdout);
  return !ok;
}

static const float kSpecial[] = {0.0f,  -0.0f, 1,      -1,     2,        -2,        3,    -3,      0.5f,     -0.5f,          1.5f,           -1.5f,
                                 1e30f, -1e30f, 1e-40f, -1e-40f, INFINITY, -INFINITY, NAN, 0x1p24f, -0x1p24f, 0x1.fffffep23f, -0x1.fffffep23f, 0x1.fffffep127f};
constexpr int kSpecials = sizeof kSpecial / sizeof kSpecial[0];

static int check(const Case& c, uint64_t stride, bool absolute) {
  double worst = 0;
  float where = 0, got = 0;
  auto compare = [&](const float* x) {
    float y[W];
    target::store(y, c.f(target::load(x)));
    for (int i = 0; i < W; i++) {
      if (x[i] < c.from || (absolute && !(x[i] < 1e30f))) continue;
      double want = c.want(x[i]), e = absolute ? std::fabs(y[i] - want) : ulp_error(y[i], want);
      if (!(e <= worst)) worst = e, where = x[i], got = y[i];
    }
  };
  float x[W];
  for (int i = 0; i < kSpecials; i += W) {
    for (int j = 0; j < W; j++) x[j] = kSpecial[(i + j) % kSpecials];
    compare(x);
  }
  for (uint64_t base = 0; base < (1ull << 32); base += stride * W) {
    for (int i = 0; i < W; i++) x[i] = bits_to_float(static_cast<uint32_t>(base + stride * i));
    compare(x);
  }
  return report(c.name, worst, c.bound, absolute ? "absolute" : "ulp", where, 0, got, c.want(where));
}

static int check_pow(uint64_t stride) {
  double worst = 0;
  float wx = 0, wy = 0, got = 0;
  auto compare = [&](const float* x, const float* y) {
    float r[W];
    target::store(r, target::pow(target::load(x), target::load(y)));
    for (int i = 0; i < W; i++) {
      double e = ulp_error(r[i], std::pow(static_cast<double>(x[i]), static_cast<double>(y[i])));
      if (!(e <= worst)) worst = e, wx = x[i], wy = y[i], got = r[i];
    }
  };
  float x[W], y[W];
  for (int i = 0; i < kSpecials * kSpecials; i += W) {
    for (int j = 0; j < W; j++) x[j] = kSpecial[(i + j) / kSpecials % kSpecials], y[j] = kSpecial[(i + j) % kSpecials];
    compare(x, y);
  }
  uint64_t state = 1;
  auto next = [&] {
    return static_cast<uint32_t>((state = state * 6364136223846793005ull + 1442695040888963407ull) >> 32);
  };
  for (uint64_t i = 0; i < (1ull << 32) / stride; i += W) {
    for (int j = 0; j < W; j++) {
      x[j] = bits_to_float(next() & 0x7fffffffu);
      // half of the exponents spread the result over float32's whole range, the others are any bits at all
      double exponent = (next() / 4294967296.0 * 210 - 105) / std::log(static_cast<double>(x[j]));
      y[j] = j % 2 ? static_cast<float>(exponent) : bits_to_float(next());
    }
    compare(x, y);
  }
  return report("pow", worst, 2, "ulp", wx, wy, got, std::pow(static_cast<double>(wx), static_cast<double>(wy)));
}

int main(int argc, char** argv) {
  uint64_t stride = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 997;
  auto wanted = [&](const char* name) { return argc <= 2 || strcmp(argv[2], name) == 0; };
  int failed = 0;
  for (const Case& c : cases)
    if (wanted(c.name)) failed += check(c, stride, false);
  for (const Case& c : derivatives)
    if (wanted(c.name)) failed += check(c, stride, true);
  if (wanted("pow")) failed += check_pow(stride);
  return failed != 0;
}
