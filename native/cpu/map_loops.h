// The loops behind the elementwise cells; include the target's simd.h first. Floating dtypes go through the vocabulary
// (float16 and bfloat16 compute in float32 and round once), integers and bool through plain loops that the compiler
// vectorises. An operation is a lambda without captures: its type is the template argument, so that it is inlined.
//
// Contract: out is contiguous, an input's stride is anything, out may be exactly an input (each element is read before
// it is written), tails never touch memory beyond n.
#pragma once
#include "../core/kernels.h"
#include "convert.h"

namespace kerf::KERF_TARGET {

// ---- floating dtypes

// Three ways to read an operand; `at` reads W elements, `at_n` the first n of them.
template <class T>
struct Contiguous {
  const T* p;
  [[gnu::always_inline]] vf at(int64_t i) const { return load(p + i); }
  [[gnu::always_inline]] vf at_n(int64_t i, int64_t n) const { return load_n(p + i, n); }
};
template <class T>
struct Broadcast {
  vf value;
  explicit Broadcast(const T* p) {
    T lane[W];
    for (T& l : lane) l = *p;
    value = load(lane);
  }
  [[gnu::always_inline]] vf at(int64_t) const { return value; }
  [[gnu::always_inline]] vf at_n(int64_t, int64_t) const { return value; }
};
template <class T>
struct Strided {
  const T* p;
  int64_t stride;
  [[gnu::always_inline]] vf at(int64_t i) const { return at_n(i, W); }
  [[gnu::always_inline]] vf at_n(int64_t i, int64_t n) const {
    T lane[W] = {};
    for (int j = 0; j < n; j++) lane[j] = p[(i + j) * stride];
    return load(lane);
  }
};

template <class F, class T, class A>
KERF_INLINE void unary_run(int64_t n, T* out, A a) {
  int64_t i = 0;
  for (; i + W <= n; i += W) store(out + i, F{}(a.at(i)));
  if (i < n) store_n(out + i, F{}(a.at_n(i, n - i)), n - i);
}

template <class F, class T>
void unary(int64_t n, void* out_, const void* a_, int64_t stride_a) {
  T* out = static_cast<T*>(out_);
  const T* a = static_cast<const T*>(a_);
  if (stride_a == 1) return unary_run<F>(n, out, Contiguous<T>{a});
  if (stride_a == 0) return unary_run<F>(n, out, Broadcast<T>{a});
  unary_run<F>(n, out, Strided<T>{a, stride_a});
}

template <class F, class T, class A, class B>
KERF_INLINE void binary_run(int64_t n, T* out, A a, B b) {
  int64_t i = 0;
  for (; i + W <= n; i += W) store(out + i, F{}(a.at(i), b.at(i)));
  if (i < n) store_n(out + i, F{}(a.at_n(i, n - i), b.at_n(i, n - i)), n - i);
}

template <class F, class A, class B>
KERF_INLINE void compare_run(int64_t n, uint8_t* out, A a, B b) {
  int64_t i = 0;
  for (; i + W <= n; i += W) store_mask(out + i, F{}(a.at(i), b.at(i)));
  if (i < n) store_mask_n(out + i, F{}(a.at_n(i, n - i), b.at_n(i, n - i)), n - i);
}

template <class F, class T>
void binary(int64_t n, void* out_, const void* a_, int64_t stride_a, const void* b_, int64_t stride_b) {
  T* out = static_cast<T*>(out_);
  const T *a = static_cast<const T*>(a_), *b = static_cast<const T*>(b_);
  if (stride_a == 1 && stride_b == 1) return binary_run<F>(n, out, Contiguous<T>{a}, Contiguous<T>{b});
  if (stride_a == 1 && stride_b == 0) return binary_run<F>(n, out, Contiguous<T>{a}, Broadcast<T>{b});
  if (stride_a == 0 && stride_b == 1) return binary_run<F>(n, out, Broadcast<T>{a}, Contiguous<T>{b});
  binary_run<F>(n, out, Strided<T>{a, stride_a}, Strided<T>{b, stride_b});
}

template <class F, class T>
void compare(int64_t n, void* out_, const void* a_, int64_t stride_a, const void* b_, int64_t stride_b) {
  uint8_t* out = static_cast<uint8_t*>(out_);
  const T *a = static_cast<const T*>(a_), *b = static_cast<const T*>(b_);
  if (stride_a == 1 && stride_b == 1) return compare_run<F>(n, out, Contiguous<T>{a}, Contiguous<T>{b});
  if (stride_a == 1 && stride_b == 0) return compare_run<F>(n, out, Contiguous<T>{a}, Broadcast<T>{b});
  compare_run<F>(n, out, Strided<T>{a, stride_a}, Strided<T>{b, stride_b});
}

// NaN stays NaN; where low > high the result is high.
template <class T>
void clamp(int64_t n, void* out_, const void* a_, int64_t stride_a, double low, double high) {
  T* out = static_cast<T*>(out_);
  const T* a = static_cast<const T*>(a_);
  vf low_v = set1(static_cast<float>(low)), high_v = set1(static_cast<float>(high));
  for (int64_t i = 0; i < n; i += W) {
    int64_t m = n - i < W ? n - i : W;
    vf x = stride_a == 1 && m == W ? load(a + i) : Strided<T>{a, stride_a}.at_n(i, m);
    vf r = min(high_v, max(low_v, x));
    if (m == W)
      store(out + i, r);
    else
      store_n(out + i, r, m);
  }
}

// ---- integers and bool, and everything that only moves bits. ivdep: an exact alias is read before it is written.

template <class F, class T>
void unary_plain(int64_t n, void* out_, const void* a_, int64_t stride_a) {
  T* out = static_cast<T*>(out_);
  const T* a = static_cast<const T*>(a_);
  if (stride_a == 1) {
#pragma GCC ivdep
    for (int64_t i = 0; i < n; i++) out[i] = F{}(a[i]);
    return;
  }
  for (int64_t i = 0; i < n; i++) out[i] = F{}(a[i * stride_a]);
}

template <class F, class Out, class T>
void binary_plain(int64_t n, void* out_, const void* a_, int64_t stride_a, const void* b_, int64_t stride_b) {
  Out* out = static_cast<Out*>(out_);
  const T *a = static_cast<const T*>(a_), *b = static_cast<const T*>(b_);
  if (stride_a == 1 && stride_b == 1) {
#pragma GCC ivdep
    for (int64_t i = 0; i < n; i++) out[i] = F{}(a[i], b[i]);
    return;
  }
  if (stride_a == 1 && stride_b == 0) {
    T value = *b;
#pragma GCC ivdep
    for (int64_t i = 0; i < n; i++) out[i] = F{}(a[i], value);
    return;
  }
  for (int64_t i = 0; i < n; i++) out[i] = F{}(a[i * stride_a], b[i * stride_b]);
}

// T is an unsigned integer of the dtype's size.
template <class T>
void where(int64_t n, void* out_, const uint8_t* condition, int64_t stride_c, const void* a_, int64_t stride_a,
           const void* b_, int64_t stride_b) {
  T* out = static_cast<T*>(out_);
  const T *a = static_cast<const T*>(a_), *b = static_cast<const T*>(b_);
  if (stride_c == 1 && stride_a == 1 && stride_b == 1) {
#pragma GCC ivdep
    for (int64_t i = 0; i < n; i++) {
      T x = a[i], y = b[i];
      out[i] = condition[i] ? x : y;
    }
    return;
  }
  if (stride_c == 1 && stride_a == 1 && stride_b == 0) {
    T y = *b;
#pragma GCC ivdep
    for (int64_t i = 0; i < n; i++) {
      T x = a[i];
      out[i] = condition[i] ? x : y;
    }
    return;
  }
  for (int64_t i = 0; i < n; i++) out[i] = condition[i * stride_c] ? a[i * stride_a] : b[i * stride_b];
}

// The integer bounds inside [low, high]; infinities mean none.
template <class T>
void clamp_plain(int64_t n, void* out_, const void* a_, int64_t stride_a, double low, double high) {
  T* out = static_cast<T*>(out_);
  const T* a = static_cast<const T*>(a_);
  T low_t = convert<T>(__builtin_ceil(low)), high_t = convert<T>(__builtin_floor(high));
#pragma GCC ivdep
  for (int64_t i = 0; i < n; i++) {
    T x = a[i * stride_a];
    x = x < low_t ? low_t : x;
    out[i] = x > high_t ? high_t : x;
  }
}

}  // namespace kerf::KERF_TARGET
