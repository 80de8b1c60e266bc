// Rows: softmax, log-softmax, their gradients, and cross-entropy, on one contiguous row. Statistics are float32 lanes
// folded into float64 (vectors.h). A 16-bit row recomputes exp() instead of storing it: one rounding, no scratch.
//
// NaN or +infinity anywhere, or nothing but -infinity, makes the whole row NaN, as in PyTorch: no test is needed, the
// arithmetic does it (inf - inf).
#pragma once
#include "simd_math.h"
#include "vectors.h"

namespace kerf::KERF_TARGET {

template <class T>
KERF_INLINE vf row_max(int64_t n, const T* x) {
  vf s[kChains];
  for (vf& chain : s) chain = set1(-__builtin_inff());
  for_chains(
      n, [&](int64_t i, int chain, auto lanes) { s[chain] = max(s[chain], keep(get(x + i, lanes), s[chain], lanes)); });
  return set1(reduce_max(max(max(s[0], s[1]), max(s[2], s[3]))));
}

template <class T>
void softmax(int64_t n, void* out, const void* a) {
  const T* x = static_cast<const T*>(a);
  T* y = static_cast<T*>(out);
  vf m = row_max(n, x);
  constexpr bool stored = sizeof(T) == sizeof(float);
  double sum = sum_of(n, [&](int64_t i, auto lanes) {
    vf e = exp(sub(get(x + i, lanes), m));
    if (stored) put(y + i, e, lanes);
    return e;
  });
  vf scale = set1(static_cast<float>(1 / sum));
  for_vectors(n, [&](int64_t i, auto lanes) {
    vf e = stored ? get(y + i, lanes) : exp(sub(get(x + i, lanes), m));
    put(y + i, mul(e, scale), lanes);
  });
}

template <class T>
void log_softmax(int64_t n, void* out, const void* a) {
  const T* x = static_cast<const T*>(a);
  T* y = static_cast<T*>(out);
  vf m = row_max(n, x);
  double sum = sum_of(n, [&](int64_t i, auto lanes) { return exp(sub(get(x + i, lanes), m)); });
  vf log_sum = set1(static_cast<float>(__builtin_log(sum)));
  for_vectors(n, [&](int64_t i, auto lanes) { put(y + i, sub(sub(get(x + i, lanes), m), log_sum), lanes); });
}

// y (g - sum(g y))
template <class T>
void softmax_grad(int64_t n, void* out, const void* grad, const void* y) {
  const T* g = static_cast<const T*>(grad);
  const T* p = static_cast<const T*>(y);
  T* d = static_cast<T*>(out);
  double dot = sum_of(n, [&](int64_t i, auto lanes) { return mul(get(g + i, lanes), get(p + i, lanes)); });
  vf s = set1(static_cast<float>(dot));
  for_vectors(n, [&](int64_t i, auto lanes) { put(d + i, mul(get(p + i, lanes), sub(get(g + i, lanes), s)), lanes); });
}

// g - exp(y) sum(g)
template <class T>
void log_softmax_grad(int64_t n, void* out, const void* grad, const void* y) {
  const T* g = static_cast<const T*>(grad);
  const T* l = static_cast<const T*>(y);
  T* d = static_cast<T*>(out);
  double sum = sum_of(n, [&](int64_t i, auto lanes) { return get(g + i, lanes); });
  vf s = set1(static_cast<float>(sum));
  for_vectors(n, [&](int64_t i, auto lanes) { put(d + i, fnma(exp(get(l + i, lanes)), s, get(g + i, lanes)), lanes); });
}

template <class T>
void log_sum_exp(int64_t n, const void* a, LogSum* result) {
  const T* x = static_cast<const T*>(a);
  vf m = row_max(n, x);
  Sums sums = sums_of(n, [&](int64_t i, auto lanes) {
    vf d = sub(get(x + i, lanes), m);
    return Two{exp(d), d};
  });
  result->max = reduce_max(m);
  result->log_sum = static_cast<float>(__builtin_log(sums.x));
  result->sum = sums.y;
}

template <class T>
void cross_entropy_grad(int64_t n, void* out, const void* a, float logsum, float scale, float smooth, int64_t label,
                        float confidence) {
  const T* x = static_cast<const T*>(a);
  T* d = static_cast<T*>(out);
  float at_label = one(x[label]);  // read first: out may be a
  vf shift = set1(logsum), s = set1(scale), less = set1(smooth);
  for_vectors(n,
              [&](int64_t i, auto lanes) { put(d + i, mul(s, sub(exp(sub(get(x + i, lanes), shift)), less)), lanes); });
  float p = reduce_max(exp(set1(at_label - logsum)));
  put_one(d + label, scale * (p - smooth - confidence));
}

template <class T>
void install_rows_float(Kernels& row, DType dtype) {
  int d = static_cast<int>(dtype);
  row.softmax[d] = softmax<T>;
  row.log_softmax[d] = log_softmax<T>;
  row.softmax_grad[d] = softmax_grad<T>;
  row.log_softmax_grad[d] = log_softmax_grad<T>;
  row.log_sum[d] = log_sum_exp<T>;
  row.cross_entropy_grad[d] = cross_entropy_grad<T>;
}

}  // namespace kerf::KERF_TARGET
