// Layer norm and RMS norm on one contiguous row, two passes for the statistics (the row is in cache for the second),
// and the weight gradients, which are sums down columns.
#pragma once
#include "vectors.h"

namespace kerf::KERF_TARGET {

template <class Lanes>
KERF_INLINE vf get_or(const float* p, float absent, int64_t i, Lanes lanes) {
  return p ? get(p + i, lanes) : set1(absent);
}

// out = (a - mean) rstd weight + bias, rstd = 1 / sqrt(variance + eps), variance without Bessel's correction
template <class T>
void layer_norm(int64_t n, void* out, float* mean, float* rstd, const void* a, const float* weight, const float* bias,
                double eps) {
  const T* x = static_cast<const T*>(a);
  T* y = static_cast<T*>(out);
  double m = sum_of(n, [&](int64_t i, auto lanes) { return get(x + i, lanes); }) / static_cast<double>(n);
  vf center = set1(static_cast<float>(m));
  double squares = sum_of(n, [&](int64_t i, auto lanes) {
    vf d = sub(get(x + i, lanes), center);
    return mul(d, d);
  });
  *mean = static_cast<float>(m);
  *rstd = static_cast<float>(1 / __builtin_sqrt(squares / static_cast<double>(n) + eps));
  vf scale = set1(*rstd);
  for_vectors(n, [&](int64_t i, auto lanes) {
    vf normal = mul(sub(get(x + i, lanes), center), scale);
    put(y + i, fma(normal, get_or(weight, 1.0f, i, lanes), get_or(bias, 0.0f, i, lanes)), lanes);
  });
}

// out = a rstd weight, rstd = 1 / sqrt(mean(a^2) + eps)
template <class T>
void rms_norm(int64_t n, void* out, float*, float* rstd, const void* a, const float* weight, const float*, double eps) {
  const T* x = static_cast<const T*>(a);
  T* y = static_cast<T*>(out);
  double squares = sum_of(n, [&](int64_t i, auto lanes) {
    vf v = get(x + i, lanes);
    return mul(v, v);
  });
  *rstd = static_cast<float>(1 / __builtin_sqrt(squares / static_cast<double>(n) + eps));
  vf scale = set1(*rstd);
  for_vectors(n, [&](int64_t i, auto lanes) {
    put(y + i, mul(mul(get(x + i, lanes), scale), get_or(weight, 1.0f, i, lanes)), lanes);
  });
}

// With h = (a - mean) rstd and w = grad weight: da = rstd (w - mean(w) - h mean(w h)). RMS norm centres nothing, so it
// lacks both the mean and the middle term.
template <bool Centered, class T>
void norm_grad(int64_t n, void* da, const void* grad, const void* a, float mean, float rstd, const float* weight) {
  const T* g = static_cast<const T*>(grad);
  const T* x = static_cast<const T*>(a);
  T* d = static_cast<T*>(da);
  vf scale = set1(rstd), center = set1(Centered ? mean : 0.0f);
  Sums sums = sums_of(n, [&](int64_t i, auto lanes) {
    vf w = mul(get(g + i, lanes), get_or(weight, 1.0f, i, lanes));
    return Two{w, mul(w, mul(sub(get(x + i, lanes), center), scale))};
  });
  double count = static_cast<double>(n);
  vf first = set1(Centered ? static_cast<float>(sums.x / count) : 0.0f),
     second = set1(static_cast<float>(sums.y / count));
  for_vectors(n, [&](int64_t i, auto lanes) {
    vf w = mul(get(g + i, lanes), get_or(weight, 1.0f, i, lanes));
    vf h = mul(sub(get(x + i, lanes), center), scale);
    put(d + i, mul(scale, fnma(h, second, sub(w, first))), lanes);
  });
}

template <class T>
void norm_columns(int64_t rows, int64_t columns, const void* grad, int64_t grad_row, const void* a, int64_t a_row,
                  const float* mean, const float* rstd, double* dweight, double* dbias) {
  for (int64_t start = 0; start < rows; start += kRows) {
    int64_t end = rows - start < kRows ? rows : start + kRows;
    for_column_blocks(columns, [&](int64_t c, auto lanes, auto block) {
      constexpr int vectors = decltype(block)::count;
      vf dw[vectors], db[vectors];
      for (int v = 0; v < vectors; v++) dw[v] = db[v] = set1(0.0f);
      const T* g = static_cast<const T*>(grad) + start * grad_row + c;
      const T* x = static_cast<const T*>(a) + start * a_row + c;
      for (int64_t r = start; r < end; r++, g += grad_row, x += a_row) {
        vf center = set1(mean ? mean[r] : 0.0f), scale = set1(rstd[r]);
        for (int v = 0; v < vectors; v++) {
          vf grads = get(g + v * W, lanes);
          dw[v] = fma(grads, mul(sub(get(x + v * W, lanes), center), scale), dw[v]);
          db[v] = add(db[v], grads);
        }
      }
      for (int v = 0; v < vectors; v++) {
        add_to(dweight + c + v * W, dw[v], lanes);
        if (dbias) add_to(dbias + c + v * W, db[v], lanes);
      }
    });
  }
}

template <class T>
void install_norm_float(Kernels& row, DType dtype) {
  int d = static_cast<int>(dtype);
  row.layer_norm[d] = layer_norm<T>;
  row.rms_norm[d] = rms_norm<T>;
  row.layer_norm_grad[d] = norm_grad<true, T>;
  row.rms_norm_grad[d] = norm_grad<false, T>;
  row.norm_columns[d] = norm_columns<T>;
}

}  // namespace kerf::KERF_TARGET
