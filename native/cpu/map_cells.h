// The list of elementwise cells: one line per op. Include the target's simd.h first.
#pragma once
#include "map_loops.h"
#include "simd_math.h"

namespace kerf::KERF_TARGET {

// ---- floating dtypes

template <class F>
void set(Kernels& row, Unary op, F) {
  UnaryCell* cells = row.unary[static_cast<int>(op)];
  cells[static_cast<int>(DType::float32_)] = unary<F, float>;
  cells[static_cast<int>(DType::float16_)] = unary<F, f16>;
  cells[static_cast<int>(DType::bfloat16_)] = unary<F, bf16>;
}

template <class F>
void set(Kernels& row, Binary op, F) {
  BinaryCell* cells = row.binary[static_cast<int>(op)];
  cells[static_cast<int>(DType::float32_)] = binary<F, float>;
  cells[static_cast<int>(DType::float16_)] = binary<F, f16>;
  cells[static_cast<int>(DType::bfloat16_)] = binary<F, bf16>;
}

template <class F>
void set(Kernels& row, Compare op, F) {
  BinaryCell* cells = row.compare[static_cast<int>(op)];
  cells[static_cast<int>(DType::float32_)] = compare<F, float>;
  cells[static_cast<int>(DType::float16_)] = compare<F, f16>;
  cells[static_cast<int>(DType::bfloat16_)] = compare<F, bf16>;
}

KERF_INLINE vf one_minus(vf x) { return sub(set1(1.0f), x); }

KERF_INLINE void install_float_cells(Kernels& row) {
  set(row, Unary::neg, [](vf x) { return neg(x); });
  set(row, Unary::abs, [](vf x) { return abs(x); });
  set(row, Unary::sign, [](vf x) {  // NaN and the zeros are their own signs
    return select(mask_or(eq(x, set1(0.0f)), is_nan(x)), x, copysign(set1(1.0f), x));
  });
  set(row, Unary::floor, [](vf x) { return floor(x); });
  set(row, Unary::ceil, [](vf x) { return ceil(x); });
  set(row, Unary::round, [](vf x) { return round(x); });
  set(row, Unary::exp, [](vf x) { return exp(x); });
  set(row, Unary::log, [](vf x) { return log(x); });
  set(row, Unary::log1p, [](vf x) { return log1p(x); });
  set(row, Unary::sqrt, [](vf x) { return sqrt(x); });
  set(row, Unary::rsqrt, [](vf x) { return div(set1(1.0f), sqrt(x)); });
  set(row, Unary::sin, [](vf x) { return sin(x); });
  set(row, Unary::cos, [](vf x) { return cos(x); });
  set(row, Unary::tanh, [](vf x) { return tanh(x); });
  set(row, Unary::sigmoid, [](vf x) { return sigmoid(x); });
  set(row, Unary::relu, [](vf x) { return max(set1(0.0f), x); });  // max gives NaN for NaN on its right
  set(row, Unary::gelu, [](vf x) { return gelu(x); });
  set(row, Unary::silu, [](vf x) { return silu(x); });
  set(row, Unary::erf, [](vf x) { return erf(x); });

  set(row, Binary::add, [](vf a, vf b) { return add(a, b); });
  set(row, Binary::sub, [](vf a, vf b) { return sub(a, b); });
  set(row, Binary::mul, [](vf a, vf b) { return mul(a, b); });
  set(row, Binary::div, [](vf a, vf b) { return div(a, b); });
  set(row, Binary::pow, [](vf a, vf b) { return pow(a, b); });
  set(row, Binary::maximum, [](vf a, vf b) { return select(is_nan(a), a, max(a, b)); });
  set(row, Binary::minimum, [](vf a, vf b) { return select(is_nan(a), a, min(a, b)); });
  set(row, Binary::reluGrad, [](vf g, vf y) { return select(gt(y, set1(0.0f)), g, set1(0.0f)); });
  set(row, Binary::geluGrad, [](vf g, vf x) { return mul(g, gelu_derivative(x)); });
  set(row, Binary::siluGrad, [](vf g, vf x) { return mul(g, silu_derivative(x)); });
  set(row, Binary::sigmoidGrad, [](vf g, vf y) { return mul(g, mul(y, one_minus(y))); });
  set(row, Binary::tanhGrad, [](vf g, vf y) { return mul(g, one_minus(mul(y, y))); });

  set(row, Compare::eq, [](vf a, vf b) { return eq(a, b); });
  set(row, Compare::ne, [](vf a, vf b) { return ne(a, b); });
  set(row, Compare::lt, [](vf a, vf b) { return lt(a, b); });
  set(row, Compare::le, [](vf a, vf b) { return le(a, b); });
  set(row, Compare::gt, [](vf a, vf b) { return gt(a, b); });
  set(row, Compare::ge, [](vf a, vf b) { return ge(a, b); });

  row.clamp[static_cast<int>(DType::float32_)] = clamp<float>;
  row.clamp[static_cast<int>(DType::float16_)] = clamp<f16>;
  row.clamp[static_cast<int>(DType::bfloat16_)] = clamp<bf16>;
}

// ---- integers wrap around; bool has and/or for mul/add and no negation

template <class T, class F>
void set_plain(Kernels& row, Unary op, DType dtype, F) {
  row.unary[static_cast<int>(op)][static_cast<int>(dtype)] = unary_plain<F, T>;
}
template <class T, class F>
void set_plain(Kernels& row, Binary op, DType dtype, F) {
  row.binary[static_cast<int>(op)][static_cast<int>(dtype)] = binary_plain<F, T, T>;
}
template <class T, class F>
void set_plain(Kernels& row, Compare op, DType dtype, F) {
  row.compare[static_cast<int>(op)][static_cast<int>(dtype)] = binary_plain<F, uint8_t, T>;
}

template <class T>
void install_ordered_cells(Kernels& row, DType d) {
  set_plain<T>(row, Binary::maximum, d, [](T a, T b) -> T { return a > b ? a : b; });
  set_plain<T>(row, Binary::minimum, d, [](T a, T b) -> T { return a < b ? a : b; });
  set_plain<T>(row, Compare::eq, d, [](T a, T b) -> uint8_t { return a == b; });
  set_plain<T>(row, Compare::ne, d, [](T a, T b) -> uint8_t { return a != b; });
  set_plain<T>(row, Compare::lt, d, [](T a, T b) -> uint8_t { return a < b; });
  set_plain<T>(row, Compare::le, d, [](T a, T b) -> uint8_t { return a <= b; });
  set_plain<T>(row, Compare::gt, d, [](T a, T b) -> uint8_t { return a > b; });
  set_plain<T>(row, Compare::ge, d, [](T a, T b) -> uint8_t { return a >= b; });
}

// Arithmetic in the unsigned type U of the same size: signed overflow would be undefined. U is 64 bits wide for the
// narrow types too, since those promote to a signed int.
template <class T>
void install_integer_cells(Kernels& row, DType d) {
  using U = uint64_t;
  install_ordered_cells<T>(row, d);
  set_plain<T>(row, Unary::neg, d, [](T a) -> T { return static_cast<T>(U{0} - static_cast<U>(a)); });
  set_plain<T>(row, Unary::abs, d, [](T a) -> T { return a < T{0} ? static_cast<T>(U{0} - static_cast<U>(a)) : a; });
  set_plain<T>(row, Unary::sign, d, [](T a) -> T { return static_cast<T>((a > T{0}) - (a < T{0})); });
  set_plain<T>(row, Unary::relu, d, [](T a) -> T { return a > T{0} ? a : T{0}; });
  set_plain<T>(row, Binary::add, d,
               [](T a, T b) -> T { return static_cast<T>(static_cast<U>(a) + static_cast<U>(b)); });
  set_plain<T>(row, Binary::sub, d,
               [](T a, T b) -> T { return static_cast<T>(static_cast<U>(a) - static_cast<U>(b)); });
  set_plain<T>(row, Binary::mul, d,
               [](T a, T b) -> T { return static_cast<T>(static_cast<U>(a) * static_cast<U>(b)); });
  row.clamp[static_cast<int>(d)] = clamp_plain<T>;
}

KERF_INLINE void install_plain_cells(Kernels& row) {
  install_integer_cells<int8_t>(row, DType::int8_);
  install_integer_cells<uint8_t>(row, DType::uint8_);
  install_integer_cells<int32_t>(row, DType::int32_);
  install_integer_cells<int64_t>(row, DType::int64_);
  install_ordered_cells<uint8_t>(row, DType::bool_);
  set_plain<uint8_t>(row, Binary::add, DType::bool_, [](uint8_t a, uint8_t b) -> uint8_t { return a | b; });
  set_plain<uint8_t>(row, Binary::mul, DType::bool_, [](uint8_t a, uint8_t b) -> uint8_t { return a & b; });

  for (int d = 0; d < kDTypes; d++) {
    int64_t bytes = element_bytes(static_cast<DType>(d));
    row.where[d] = bytes == 1   ? where<uint8_t>
                   : bytes == 2 ? where<uint16_t>
                   : bytes == 4 ? where<uint32_t>
                                : where<uint64_t>;
  }
}

}  // namespace kerf::KERF_TARGET
