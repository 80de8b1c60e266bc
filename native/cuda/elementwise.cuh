// One kernel for every elementwise op: out[i] = F(a[i], b[i], ...), F a function object, any strides, float or integer.
#pragma once
#include "elements.cuh"

namespace kerf {
namespace cuda {

// out, a. Out and In are Floats<...> or Integers; out may be a.
template <class F, class Out, class In>
__global__ void map1(uint32_t n, Layout<2> layout, Out out, In a, F f) {
  for (uint32_t i = first_element(); i < n; i += element_step()) {
    int64_t at[2];
    locate(layout, i, at);
    out.put(at[0], f(a.own(at[1])));
  }
}

template <class F, class Out, class In>
__global__ void map2(uint32_t n, Layout<3> layout, Out out, In a, In b, F f) {
  for (uint32_t i = first_element(); i < n; i += element_step()) {
    int64_t at[3];
    locate(layout, i, at);
    out.put(at[0], f(a.own(at[1]), b.own(at[2])));
  }
}

// out = condition ? a : b, on elements of the unsigned type T.
template <class T>
__global__ void select(uint32_t n, Layout<4> layout, T* out, const uint8_t* condition, const T* a, const T* b) {
  for (uint32_t i = first_element(); i < n; i += element_step()) {
    int64_t at[4];
    locate(layout, i, at);
    const bool first = cu::load_own(condition + at[1]) != 0;
    cu::store_global(out + at[0], cu::load_own(first ? a + at[2] : b + at[3]));
  }
}

// ---- the functions; those of floats compute in float32

struct Neg { CU_FUNCTION float operator()(float x) const { return -x; }
             CU_FUNCTION int64_t operator()(int64_t x) const { return static_cast<int64_t>(0u - static_cast<uint64_t>(x)); } };
struct Abs { CU_FUNCTION float operator()(float x) const { return fabsf(x); }
             CU_FUNCTION int64_t operator()(int64_t x) const { return x < 0 ? Neg()(x) : x; } };
struct Sign { CU_FUNCTION float operator()(float x) const { return x > 0.0f ? 1.0f : x < 0.0f ? -1.0f : x; }
              CU_FUNCTION int64_t operator()(int64_t x) const { return (x > 0) - (x < 0); } };
struct Relu { CU_FUNCTION float operator()(float x) const { return x > 0.0f || x != x ? x : 0.0f; }
              CU_FUNCTION int64_t operator()(int64_t x) const { return x > 0 ? x : 0; } };
struct Floor { CU_FUNCTION float operator()(float x) const { return floorf(x); } };
struct Ceil { CU_FUNCTION float operator()(float x) const { return ceilf(x); } };
struct Round { CU_FUNCTION float operator()(float x) const { return rintf(x); } };
struct Exp { CU_FUNCTION float operator()(float x) const { return expf(x); } };
struct Log { CU_FUNCTION float operator()(float x) const { return logf(x); } };
struct Log1p { CU_FUNCTION float operator()(float x) const { return log1pf(x); } };
struct Sqrt { CU_FUNCTION float operator()(float x) const { return sqrtf(x); } };
struct Rsqrt { CU_FUNCTION float operator()(float x) const { return 1.0f / sqrtf(x); } };
struct Sin { CU_FUNCTION float operator()(float x) const { return sinf(x); } };
struct Cos { CU_FUNCTION float operator()(float x) const { return cosf(x); } };
struct Tanh { CU_FUNCTION float operator()(float x) const { return tanhf(x); } };
struct Sigmoid { CU_FUNCTION float operator()(float x) const {
  const float e = expf(-fabsf(x));  // never overflows
  return (x < 0.0f ? e : 1.0f) / (1.0f + e);
} };
// x Phi(x); erfc keeps the digits of the left tail that 1 + erf would lose
struct Gelu { CU_FUNCTION float operator()(float x) const { return x * 0.5f * erfcf(x * -0.70710678118654752f); } };
struct Silu { CU_FUNCTION float operator()(float x) const { return x * Sigmoid()(x); } };
struct Erf { CU_FUNCTION float operator()(float x) const { return erff(x); } };

struct Add { CU_FUNCTION float operator()(float a, float b) const { return a + b; }
             CU_FUNCTION int64_t operator()(int64_t a, int64_t b) const {
               return static_cast<int64_t>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b)); } };
struct Sub { CU_FUNCTION float operator()(float a, float b) const { return a - b; }
             CU_FUNCTION int64_t operator()(int64_t a, int64_t b) const {
               return static_cast<int64_t>(static_cast<uint64_t>(a) - static_cast<uint64_t>(b)); } };
struct Mul { CU_FUNCTION float operator()(float a, float b) const { return a * b; }
             CU_FUNCTION int64_t operator()(int64_t a, int64_t b) const {
               return static_cast<int64_t>(static_cast<uint64_t>(a) * static_cast<uint64_t>(b)); } };
struct Div { CU_FUNCTION float operator()(float a, float b) const { return a / b; } };
struct Pow { CU_FUNCTION float operator()(float a, float b) const { return powf(a, b); } };
// NaN on either side wins
struct Maximum { CU_FUNCTION float operator()(float a, float b) const { return a != a || a > b ? a : b; }
                 CU_FUNCTION int64_t operator()(int64_t a, int64_t b) const { return a > b ? a : b; } };
struct Minimum { CU_FUNCTION float operator()(float a, float b) const { return a != a || a < b ? a : b; }
                 CU_FUNCTION int64_t operator()(int64_t a, int64_t b) const { return a < b ? a : b; } };
struct ReluGrad { CU_FUNCTION float operator()(float g, float y) const { return y > 0.0f ? g : 0.0f; } };
// Phi(x) + x phi(x)
struct GeluGrad { CU_FUNCTION float operator()(float g, float x) const {
  const float density = 0.39894228040143268f * expf(-0.5f * x * x);
  return g * (0.5f * erfcf(x * -0.70710678118654752f) + x * density);
} };
struct SiluGrad { CU_FUNCTION float operator()(float g, float x) const {
  const float s = Sigmoid()(x);
  return g * (s * (1.0f + x * Sigmoid()(-x)));
} };
struct SigmoidGrad { CU_FUNCTION float operator()(float g, float y) const { return g * (y * (1.0f - y)); } };
struct TanhGrad { CU_FUNCTION float operator()(float g, float y) const { return g * (1.0f - y * y); } };

struct Eq { template <class T> CU_FUNCTION int64_t operator()(T a, T b) const { return a == b; } };
struct Ne { template <class T> CU_FUNCTION int64_t operator()(T a, T b) const { return a != b; } };
struct Lt { template <class T> CU_FUNCTION int64_t operator()(T a, T b) const { return a < b; } };
struct Le { template <class T> CU_FUNCTION int64_t operator()(T a, T b) const { return a <= b; } };
struct Gt { template <class T> CU_FUNCTION int64_t operator()(T a, T b) const { return a > b; } };
struct Ge { template <class T> CU_FUNCTION int64_t operator()(T a, T b) const { return a >= b; } };

// NaN stays NaN; where low > high the result is high.
template <class T>
struct Clamp {
  T low, high;
  CU_FUNCTION T operator()(T x) const {
    x = x < low ? low : x;
    return x > high ? high : x;
  }
};

}  // namespace cuda
}  // namespace kerf
