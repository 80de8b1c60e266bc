// Elementary functions on the SIMD vocabulary; include the target's simd.h first. Largest errors found by
// test/native/simd_math_check.cc over all float32 numbers, in ulp, with fused multiplies (and without, where that differs):
//
//   exp 0.78  log 0.82  log1p 0.84  tanh 1.35  erf 1.61 (1.76)  sigmoid 0.79 (1.47)  sin, cos 1.56 (libm)
//   pow 0.80 (libm)  silu 1.56 (2.35)  gelu 6.7 (68, far in the left tail)  gelu', silu' 2.2e-7 absolute
//
// Infinities, NaN, zeros and subnormals behave as in C's libm. The polynomials are minimax fits in the relative error
// of the result, with coefficients rounded to float32 one after the other; each fit's own error is given beside it.
#pragma once
#include <cmath>
#include "../core/elem.h"

namespace kerf::KERF_TARGET {

constexpr float kInfinity = __builtin_inff();
constexpr float kNaN = __builtin_nanf("");

// c[0] + c[1] x + ... by Horner's rule.
template <int N>
KERF_INLINE vf polynomial(vf x, const float (&c)[N]) {
  vf r = set1(c[N - 1]);
  for (int i = N - 2; i >= 0; i--) r = fma(r, x, set1(c[i]));
  return r;
}

// 2^n for |n| <= 126.
KERF_INLINE vf power_of_two(vi n) { return as_float(shift_left<23>(add_i(n, set1i(127)))); }

// ln 2 = high + low; high has 10 bits, so that n * high is exact with or without a fused multiply.
constexpr float kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;

constexpr float kExp[] = {0.5f, 0.166666672f, 0.041666463f, 0.00833320431f, 0.00139350945f, 0.000199476548f};  // 2^-33

// exp(x) = (high + low) 2^n, with high = 1 + r and low the rest of the series and what rounding lost.
struct ExpParts {
  vf high, low;
  vi n;
};
KERF_INLINE ExpParts exp_parts(vf x) {
  x = max(set1(-105.0f), min(set1(89.0f), x));  // beyond, the result is 0 or infinity anyway; NaN passes
  vf n = round(mul(x, set1(1.44269504f)));
  vf r = fnma(n, set1(kLn2Low), fnma(n, set1(kLn2High), x));
  vf high = add(set1(1.0f), r);
  vf low = fma(mul(r, r), polynomial(r, kExp), sub(r, sub(high, set1(1.0f))));
  return {high, low, to_int(n)};
}

KERF_INLINE vf exp(vf x) {
  ExpParts e = exp_parts(x);
  vi half = shift_right<1>(e.n);  // two factors: 2^n itself may be beyond float32, and a subnormal rounds once
  return mul(mul(add(e.high, e.low), power_of_two(half)), power_of_two(sub_i(e.n, half)));
}

// For x > 0, finite: x = m 2^e with m in [sqrt(1/2), sqrt(2)); subnormals included.
struct Split {
  vf m, e;
};
KERF_INLINE Split split_exponent(vf x) {
  vm tiny = lt(x, set1(0x1p-126f));
  x = select(tiny, mul(x, set1(0x1p24f)), x);
  vi bits = as_int(x);
  // Subtracting sqrt(1/2)'s pattern makes the exponent field turn over at sqrt(1/2) instead of at one.
  vi e = shift_right<23>(sub_i(bits, set1i(0x3f3504f3)));
  vf m = as_float(sub_i(bits, shift_left<23>(e)));
  return {m, sub(to_float32(e), select(tiny, set1(24.0f), set1(0.0f)))};
}

constexpr float kLog[] = {0.333333135f, -0.250000089f, 0.20002073f,   -0.166679963f, 0.142203271f,
                          -0.12406034f, 0.118835725f,  -0.116714239f, 0.067509003f};  // 2^-30

// log(1 + f) + e ln 2 + c for f in [sqrt(1/2) - 1, sqrt(2) - 1] and a small correction c.
KERF_INLINE vf log_sum(vf f, vf e, vf c) {
  vf f2 = mul(f, f);
  vf tail = fma(e, set1(kLn2Low), c);
  tail = add(tail, mul(mul(f, f2), polynomial(f, kLog)));
  tail = fnma(set1(0.5f), f2, tail);
  return fma(e, set1(kLn2High), add(f, tail));
}

// What the formula cannot give: zero, infinity, NaN and negative numbers (x is log's argument).
KERF_INLINE vf log_special(vf x, vf result) {
  result = select(eq(x, set1(0.0f)), set1(-kInfinity), result);
  result = select(lt(x, set1(0.0f)), set1(kNaN), result);
  return select(lt(x, set1(kInfinity)), result, x);  // +inf and NaN are their own logarithms
}

KERF_INLINE vf log(vf x) {
  Split s = split_exponent(x);
  return log_special(x, log_sum(sub(s.m, set1(1.0f)), s.e, set1(0.0f)));
}

KERF_INLINE vf log1p(vf x) {
  vf u = add(set1(1.0f), x);
  Split s = split_exponent(u);
  vm near = eq(s.e, set1(0.0f));  // then 1 + f is 1 + x, and x itself is the exact f
  // u lost c of 1 + x: log(u + c) = log(u) + c / u.
  vf lost = select(gt(x, set1(1.0f)), sub(set1(1.0f), sub(u, x)), sub(x, sub(u, set1(1.0f))));
  vf c = select(near, set1(0.0f), div(lost, u));
  vf r = log_sum(select(near, x, sub(s.m, set1(1.0f))), s.e, c);
  r = select(lt(abs(x), set1(0x1p-25f)), x, r);  // keeps -0
  return log_special(u, r);
}

constexpr float kTanh[] = {-0.333333313f, 0.133332208f,    -0.0539481789f,
                           0.021706894f,  -0.00819001347f, 0.00215268391f};  // 2^-32

KERF_INLINE vf tanh(vf x) {
  vf a = abs(x);
  vf x2 = mul(x, x);
  vf small = fma(mul(x, x2), polynomial(x2, kTanh), x);  // below 0.625
  vf large = sub(set1(1.0f), div(set1(2.0f), add(exp(add(a, a)), set1(1.0f))));
  return copysign(select(lt(a, set1(0.625f)), small, large), x);  // the sum of zeros is +0
}

// sigmoid(x) = z / (1 + z) or 1 / (1 + z) with z = exp(-|x|), the quotient corrected once by what its operands'
// rounding lost; `other` is sigmoid(-x), uncorrected.
struct SigmoidPair {
  vf value, other;
};
KERF_INLINE SigmoidPair sigmoid_pair(vf x) {
  ExpParts e = exp_parts(neg(abs(x)));
  vi half = shift_right<1>(e.n);
  vf scale = power_of_two(half), rest = power_of_two(sub_i(e.n, half));
  vf sum = add(e.high, e.low);
  vf z = mul(mul(sum, scale), rest), z_low = mul(mul(sub(e.low, sub(sum, e.high)), scale), rest);
  vf d = add(set1(1.0f), z);
  vf d_low = add(sub(z, sub(d, set1(1.0f))), z_low);
  vm negative = lt(x, set1(0.0f));
  vf numerator = select(negative, z, set1(1.0f));
  vf inverse = div(set1(1.0f), d);
  vf q = mul(numerator, inverse);
  vf residual = sub(fnma(q, d, numerator), mul(q, d_low));
  residual = add(residual, select(negative, z_low, set1(0.0f)));
  return {fma(residual, inverse, q), mul(select(negative, set1(1.0f), z), inverse)};
}

KERF_INLINE vf sigmoid(vf x) { return sigmoid_pair(x).value; }

// erfc(a) = exp(-a^2) t P(t) with t = 1 / (1 + 0.4 a), for a in [0, 10.1]: 2^-29
constexpr float kErfc[] = {0.225685939f, 0.225434989f,   0.210095644f,   0.157193422f,  0.172726437f, -0.0468698554f,
                           0.166105062f, -0.0920815915f, -0.0782950744f, 0.0785644799f, -0.018559454f};

// exp(-a^2) and erfc(a) for a >= 0 with a^2 = high + low; both are zero beyond a = 10.5.
struct Tail {
  vf exp, erfc;
};
KERF_INLINE Tail erfc_tail(vf a, vf high, vf low) {
  vf e = exp(neg(high));
  e = fnma(e, low, e);
  vf t = div(set1(1.0f), fma(set1(0.4f), a, set1(1.0f)));
  return {e, mul(e, mul(t, polynomial(t, kErfc)))};
}

constexpr float kErf[] = {0.128379166f,   -0.376126289f,    0.112836242f,   -0.02685556f,
                          0.00519175315f, -0.000803975272f, 7.94310035e-05f};  // 2^-30

KERF_INLINE vf erf(vf x) {
  vf a = min(set1(5.0f), abs(x));  // erf(4) already rounds to one; NaN passes
  vf a2 = mul(a, a);
  vf small = fma(x, polynomial(a2, kErf), x);  // below 0.9
  vf low = kFused ? fma(a, a, neg(a2)) : set1(0.0f);
  vf large = sub(set1(1.0f), erfc_tail(a, a2, low).erfc);
  return select(lt(a, set1(0.9f)), small, copysign(large, x));
}

// The normal distribution at x: exp(-x^2 / 2) and its integral from -infinity, without cancellation on the left.
struct Normal {
  vf exp, cdf;
};
KERF_INLINE Normal normal(vf x) {
  vf a = min(set1(14.5f), abs(x));
  vf a2 = mul(a, a);
  vf low = kFused ? fma(a, a, neg(a2)) : set1(0.0f);
  Tail tail = erfc_tail(mul(a, set1(0.707106781f)), mul(set1(0.5f), a2), mul(set1(0.5f), low));
  vf half = mul(set1(0.5f), tail.erfc);
  vf cdf = select(gt(x, set1(0.0f)), sub(set1(1.0f), half), half);
  // In the middle 1/2 + erf(x / sqrt(2)) / 2 loses nothing, and the tail's quotient a few ulp.
  vf u = mul(x, set1(0.353553391f));
  vf middle = add(set1(0.5f), fma(u, polynomial(mul(set1(0.5f), a2), kErf), u));
  return {tail.exp, select(lt(a, set1(0.7f)), middle, cdf)};
}

// x times the normal distribution's integral: 0.5 x (1 + erf(x / sqrt(2))).
KERF_INLINE vf gelu(vf x) { return mul(x, normal(x).cdf); }

KERF_INLINE vf gelu_derivative(vf x) {
  Normal n = normal(x);
  return fma(mul(x, set1(0.398942280f)), n.exp, n.cdf);  // 1 / sqrt(2 pi)
}

KERF_INLINE vf silu(vf x) { return mul(x, sigmoid(x)); }

KERF_INLINE vf silu_derivative(vf x) {
  SigmoidPair s = sigmoid_pair(x);
  return mul(s.value, fma(x, s.other, set1(1.0f)));
}

template <class F>
KERF_INLINE vf per_lane(vf x, F f) {
  float lane[W];
  store(lane, x);
  for (int i = 0; i < W; i++) lane[i] = f(lane[i]);
  return load(lane);
}

constexpr float kSin[] = {-0.166666672f, 0.0083333794f, -0.000198530586f, 2.83239228e-06f};    // 2^-32
constexpr float kCos[] = {0.0416666679f, -0.00138889789f, 2.48215129e-05f, -2.88277107e-07f};  // 2^-37

// sin(x + quarter pi / 2) for |x| <= 2^14: there x - n pi/2 is exact but for the last two of pi/2's three parts.
KERF_INLINE vf sin_reduced(vf x, int quarter) {
  vf n = round(mul(x, set1(0.636619772f)));
  vf r = fnma(n, set1(0x1.921fb6p0f), x);
  r = fnma(n, set1(-0x1.777a5cp-25f), r);
  r = fnma(n, set1(-0x1.ee59dap-50f), r);
  vf r2 = mul(r, r);
  vf s = fma(mul(r, r2), polynomial(r2, kSin), r);
  vf c = fma(mul(r2, r2), polynomial(r2, kCos), fnma(set1(0.5f), r2, set1(1.0f)));
  vi q = add_i(to_int(n), set1i(quarter));
  vf result = select(eq_i(and_i(q, set1i(1)), set1i(0)), s, c);
  return bit_xor(result, as_float(shift_left<30>(and_i(q, set1i(2)))));
}

// The reduction needs fused multiplies and a moderate argument; the rest goes to libm.
KERF_INLINE vf sin(vf x) {
  if constexpr (!kFused) return per_lane(x, [](float v) { return ::sinf(v); });
  vm large = mask_not(le(abs(x), set1(0x1p14f)));
  vf r = sin_reduced(select(large, set1(0.0f), x), 0);
  r = select(eq(x, set1(0.0f)), x, r);  // the reduction loses the zero's sign
  return any(large) ? select(large, per_lane(select(large, x, set1(0.0f)), [](float v) { return ::sinf(v); }), r) : r;
}

KERF_INLINE vf cos(vf x) {
  if constexpr (!kFused) return per_lane(x, [](float v) { return ::cosf(v); });
  vm large = mask_not(le(abs(x), set1(0x1p14f)));
  vf r = sin_reduced(select(large, set1(0.0f), x), 1);
  return any(large) ? select(large, per_lane(select(large, x, set1(0.0f)), [](float v) { return ::cosf(v); }), r) : r;
}

// P of log(m) = 2 s (1 + s^2 (1/3 + s^2 P(s^2))) with s = (m - 1) / (m + 1)
constexpr float kAtanh[] = {0.199999988f, 0.142859861f, 0.110898599f, 0.097784929f};  // 2^-43 of the logarithm

// The logarithm of a positive, finite x as high + low, to about 2^-35.
struct Log {
  vf high, low;
};
KERF_INLINE Log log_parts(vf x) {
  Split split = split_exponent(x);
  vf f = sub(split.m, set1(1.0f));
  vf d = add(set1(2.0f), f), d_low = sub(f, sub(d, set1(2.0f)));
  vf inverse = div(set1(1.0f), d);
  vf s = mul(f, inverse);
  vf s_low = mul(fnma(s, d_low, fnma(s, d, f)), inverse);
  vf s2 = mul(s, s), s2_low = fma(add(s, s), s_low, fma(s, s, neg(s2)));
  vf q = mul(s2, polynomial(s2, kAtanh));
  vf c = add(set1(0x1.555556p-2f), q);  // 1/3 + q
  vf c_low = sub(sub(q, sub(c, set1(0x1.555556p-2f))), set1(9.93410776e-09f));
  vf v = mul(s2, c), v_low = fma(s2, c_low, fma(s2_low, c, fma(s2, c, neg(v))));
  vf two_s = add(s, s), two_s_low = add(s_low, s_low);
  vf w = mul(two_s, v), w_low = fma(two_s, v_low, fma(two_s_low, v, fma(two_s, v, neg(w))));
  vf h = add(two_s, w), h_low = add(add(sub(w, sub(h, two_s)), two_s_low), w_low);
  vf exponent = mul(split.e, set1(kLn2High));  // exact
  vf high = add(exponent, h), back = sub(high, exponent);
  vf lost = add(sub(exponent, sub(high, back)), sub(h, back));
  vf low = add(fma(split.e, set1(kLn2Low), h_low), lost);
  vf sum = add(high, low);
  return {sum, sub(low, sub(sum, high))};
}

// C's pow, special cases included.
KERF_INLINE vf pow(vf x, vf y) {
  if constexpr (!kFused) {
    float a[W], b[W];
    store(a, x);
    store(b, y);
    for (int i = 0; i < W; i++) a[i] = ::powf(a[i], b[i]);
    return load(a);
  }
  vf a = abs(x), infinity = set1(kInfinity), zero = set1(0.0f), one = set1(1.0f);
  Log l = log_parts(a);
  vm edge = mask_or(eq(a, zero), mask_not(lt(a, infinity)));
  vf high = select(edge, select(eq(a, zero), neg(infinity), a), l.high);
  vf product = mul(y, high);
  vf low = fma(y, l.low, fma(y, high, neg(product)));
  // A product this large over- or underflows whatever its low part, which may be infinite or NaN.
  low = select(mask_and(lt(abs(product), set1(200.0f)), mask_not(edge)), low, zero);
  ExpParts e = exp_parts(product);
  vi half = shift_right<1>(e.n);
  vf sum = add(e.high, fma(add(e.high, e.low), low, e.low));
  vf r = mul(mul(sum, power_of_two(half)), power_of_two(sub_i(e.n, half)));

  vm integer = eq(round(y), y);
  vf half_y = mul(y, set1(0.5f));
  vm odd = mask_and(integer, ne(round(half_y), half_y));
  r = select(odd, copysign(r, x), r);
  r = select(mask_and(mask_and(lt(x, zero), gt(x, neg(infinity))), mask_not(integer)), set1(kNaN), r);
  r = select(mask_or(is_nan(x), is_nan(y)), set1(kNaN), r);
  vm to_one = mask_or(eq(y, zero), mask_or(eq(x, one), mask_and(eq(x, neg(one)), eq(abs(y), infinity))));
  return select(to_one, one, r);
}

}  // namespace kerf::KERF_TARGET
