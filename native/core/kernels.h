// The table of kernels: a target is a row, an op is a column, a dtype is a cell. A null cell means "not supported"
// and the driver says so. POD only: target translation units include this file.
//
// generic/install.cc fills the whole row with portable C++; every other target's install() lays better cells over it.
#pragma once
#include <cstdint>
#include "view.h"

namespace kerf {

enum class Activation : int32_t { none, relu, gelu, silu, sigmoid, tanh };

// ---- elementwise: runs of n elements along the innermost axis. Strides are in elements; the drivers collapse axes
// so that `out` is contiguous and an input's stride is 1 (contiguous), 0 (broadcast) or, rarely, anything.
using UnaryCell = void (*)(int64_t n, void* out, const void* a, int64_t stride_a);
using BinaryCell = void (*)(int64_t n, void* out, const void* a, int64_t stride_a, const void* b, int64_t stride_b);
using WhereCell = void (*)(int64_t n, void* out, const uint8_t* condition, int64_t stride_c, const void* a, int64_t stride_a,
                           const void* b, int64_t stride_b);
using ClampCell = void (*)(int64_t n, void* out, const void* a, int64_t stride_a, double low, double high);
// Converts n elements; both strides are free here (this is the copy op).
using CopyCell = void (*)(int64_t n, void* out, int64_t stride_out, const void* a, int64_t stride_a);

enum class Unary : int32_t {
  neg, abs, sign, floor, ceil, round, exp, log, log1p, sqrt, rsqrt, sin, cos, tanh, sigmoid, relu, gelu, silu, erf, size
};
enum class Binary : int32_t {
  add, sub, mul, div, pow, maximum, minimum, reluGrad, geluGrad, siluGrad, sigmoidGrad, tanhGrad, size
};
enum class Compare : int32_t { eq, ne, lt, le, gt, ge, size };

// ---- matmul: one product C[m, n] = activation(A[m, k] B[k, n] + bias[n]), float32 accumulation.
struct MatmulProblem {
  int64_t m, n, k;
  const void* a;
  int64_t a_row, a_col;  // strides in elements: A(i, p) = a[i * a_row + p * a_col]
  const void* b;         // null when `packed` is given
  int64_t b_row, b_col;  // B(p, j) = b[p * b_row + j * b_col]
  const void* packed;    // what pack() of the same cell wrote
  void* c;
  int64_t c_row;         // C's columns are contiguous
  DType c_type;          // the inputs' dtype, or float32
  const float* bias;     // [n] or null
  Activation activation;
};

struct MatmulCell {
  const char* name;  // "matmul_f32_14x32": shown as name@target
  int64_t (*packed_bytes)(int64_t k, int64_t n);
  void (*pack)(void* packed, const void* b, int64_t k, int64_t n, int64_t b_row, int64_t b_col);
  void (*run)(const MatmulProblem& problem);  // uses the pool itself
};

// ---- rows: one contiguous row of n elements of the cell's dtype; statistics in float32.
using RowCell = void (*)(int64_t n, void* out, const void* a);                      // softmax, logSoftmax
using RowGradCell = void (*)(int64_t n, void* out, const void* grad, const void* y);  // their gradients

struct Kernels {
  const char* target;
  UnaryCell unary[static_cast<int>(Unary::size)][kDTypes];
  BinaryCell binary[static_cast<int>(Binary::size)][kDTypes];
  BinaryCell compare[static_cast<int>(Compare::size)][kDTypes];  // dtype of the inputs
  WhereCell where[kDTypes];
  ClampCell clamp[kDTypes];
  CopyCell copy[kDTypes][kDTypes];  // [from][to]
  MatmulCell matmul[kDTypes];
};

}  // namespace kerf
