// What follows the sums of a float product: bias and activation in float32, then one rounding to the output's dtype.
#pragma once
#include "../core/kernels.h"
#include "simd_math.h"

namespace kerf::KERF_TARGET {

KERF_INLINE vf activate(Activation activation, vf x) {
  switch (activation) {
    case Activation::none: return x;
    case Activation::relu: return max(set1(0.0f), x);  // max gives its second operand for NaN
    case Activation::gelu: return gelu(x);
    case Activation::silu: return silu(x);
    case Activation::sigmoid: return sigmoid(x);
    case Activation::tanh: return tanh(x);
  }
  return x;
}

// A bias for each column (null: none), or one for the whole row.
struct ColumnBias { const float* bias; };
struct RowBias { float bias; };
KERF_INLINE vf plus(vf x, ColumnBias b, int64_t j) { return b.bias ? add(x, load(b.bias + j)) : x; }
KERF_INLINE vf plus_n(vf x, ColumnBias b, int64_t j, int64_t n) { return b.bias ? add(x, load_n(b.bias + j, n)) : x; }
KERF_INLINE vf plus(vf x, RowBias b, int64_t) { return add(x, set1(b.bias)); }
KERF_INLINE vf plus_n(vf x, RowBias b, int64_t, int64_t) { return add(x, set1(b.bias)); }

template <class Out, class Bias>
static void finish_row(int64_t n, const float* sums, Out* out, Bias bias, Activation activation) {
  int64_t j = 0;
  for (; j + W <= n; j += W) store(out + j, activate(activation, plus(load(sums + j), bias, j)));
  if (j < n) store_n(out + j, activate(activation, plus_n(load_n(sums + j, n - j), bias, j, n - j)), n - j);
}

// sums[rows, cols] (sums_row apart) to C at (row, col).
template <class T>
static void finish(const MatmulProblem& p, const float* sums, int64_t sums_row, int64_t row, int64_t rows, int64_t col,
                   int64_t cols) {
  const ColumnBias bias{p.bias ? p.bias + col : nullptr};
  for (int64_t r = 0; r < rows; r++, sums += sums_row) {
    const int64_t at = (row + r) * p.c_row + col;
    if (p.c_type == DType::float32_) {
      finish_row(cols, sums, static_cast<float*>(p.c) + at, bias, p.activation);
    } else if constexpr (sizeof(typename T::In) == 2) {
      finish_row(cols, sums, static_cast<typename T::In*>(p.c) + at, bias, p.activation);
    }
  }
}

}  // namespace kerf::KERF_TARGET
