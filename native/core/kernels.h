// The table of kernels: a target is a row, an op is a column, a dtype is a cell. A null cell means "not supported"
// and the driver says so. POD only: target translation units include this file.
//
// generic/install.cc fills the whole row with portable C++; every other target's install() lays better cells over it.
#pragma once
#include <cstdint>
#include "affine.h"
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
  const char* name;  // "matmul_f32_14x32@avx512"
  int64_t (*packed_bytes)(int64_t k, int64_t n);
  void (*pack)(void* packed, const void* b, int64_t k, int64_t n, int64_t b_row, int64_t b_col);
  bool (*run)(const MatmulProblem& problem);  // uses the pool itself; false when scratch memory is exhausted
};

// ---- convolution, channels first. One group has `channels` input channels; input [images, groups * channels, in_h, in_w],
// output [images, groups * out_channels, out_h, out_w], both contiguous. Output pixel (oy, ox) meets, at tap (r, s), pixel
// (oy * stride_h + r * dilation_h - pad_h, ox * stride_w + s * dilation_w - pad_w) of the input with up_h - 1 rows and up_w - 1
// columns of zeros put between its own (up = 1: none; more for a transposed convolution); zero outside. Pads may be negative.
struct ConvShape {
  int64_t images, groups, channels, out_channels;
  int64_t in_h, in_w, kernel_h, kernel_w, out_h, out_w;
  int64_t stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, up_h, up_w;
};

struct ConvProblem {
  ConvShape shape;
  const void* x;
  const void* weight;  // [groups * out_channels, channels, kernel_h, kernel_w], contiguous
  const float* bias;   // [groups * out_channels] or null
  void* out;
  DType out_type;      // the inputs' dtype, or float32
  Activation activation;
};

// dweight = the sums over images and output pixels of grad * the input that the tap met.
struct ConvGradProblem {
  ConvShape shape;
  const void* x;
  const void* grad;  // as the output
  float* dweight;    // as the weight
};

struct ConvCell {
  const char* name;  // "conv2d_f32_14x32@avx512"
  bool (*run)(const ConvProblem& problem);  // false when scratch memory is exhausted
  bool (*weight_grad)(const ConvGradProblem& problem);
};

// ---- int8 matmul: exact int32 sums of (A(i, p) - za) (B(p, j) - zb), and what becomes of them.
enum class Quantize : int32_t {
  none,        // A is int8 or uint8 already
  to_uint8,    // A is float: uint8 or int8 by the given scale and zero point, while it is packed
  to_int8,
  per_tensor,  // A is float: uint8 by the range of the whole matrix or of each row (DynamicQuantizeLinear)
  per_row,
};

struct QMatmulProblem {
  int64_t m, n, k;
  const void* a;
  DType a_type;
  int64_t a_row, a_col;
  bool reads_beyond = false;  // up to 64 bytes behind A may be read
  Quantize quantize;
  // One value, or one a row (a_step = 1). With per_tensor and per_row the cell finds them.
  const float* a_scale;
  const int32_t* a_zero;  // null: 0
  int64_t a_step;
  const float* a_multiplier;  // [k], float A is multiplied by it first; or null
  const void* packed;         // what pack() of the same cell wrote: int8 in any case
  const float* b_scale;       // one value, or one a column (b_scale_step = 1); null for an int32 result
  int64_t b_scale_step;
  const int32_t* b_zero;      // of the packed int8 values; null: 0
  int64_t b_zero_step;
  void* c;
  int64_t c_row;
  DType c_type;            // int32; a float dtype; int8 or uint8
  const float* c_scale;    // of an int8 or uint8 result
  const int32_t* c_zero;   // null: 0
  const float* bias;       // [n] or null
  Activation activation;
};

struct QMatmulCell {
  const char* name;
  int64_t (*packed_bytes)(int64_t k, int64_t n);
  void (*pack)(void* packed, const void* b, DType type, int64_t k, int64_t n, int64_t b_row, int64_t b_col);
  bool (*run)(const QMatmulProblem& problem);
};

// Convolution of bytes; groups is 1, up and pads as in QMatmulProblem and ConvShape (up 1, pads not negative).
struct QConvProblem {
  ConvShape shape;
  const void* x;  // float, int8 or uint8 [images, channels, in_h, in_w], contiguous
  DType x_type;
  Quantize quantize;  // not per_row
  const float* x_scale;  // one value; null for an int32 result, and with per_tensor
  const int32_t* x_zero;
  const void* packed;  // of the weights as a [kernel_h * kernel_w * channels, out_channels] matrix
  const float* w_scale;
  int64_t w_scale_step;
  const int32_t* w_zero;
  int64_t w_zero_step;
  void* out;  // [images, out_channels, out_h, out_w], contiguous
  DType out_type;  // int32 or a float dtype
  const float* bias;
  Activation activation;
};

struct QConvCell {
  const char* name;
  bool (*run)(const QConvProblem& problem);
};

// ---- weight-only matmul: C[m, n] = activation(A W^T + bias), W [n, k] of 4 or 8 bits a weight, (code - zero) * scale with a
// scale (and zero point) for every `group` neighbours along k.
struct WeightFormat {
  int64_t bits;    // 4 or 8
  int64_t group;   // 1 to k
  bool is_signed;  // codes are two's complement
  bool zeros;      // there are zero points; otherwise 0
};

struct WMatmulProblem {
  int64_t m, n, k;
  const void* a;
  DType a_type;  // a float dtype
  int64_t a_row, a_col;
  const void* packed;
  WeightFormat format;
  void* c;
  int64_t c_row;
  DType c_type;  // a_type, or float32
  const float* bias;
  Activation activation;
};

struct WMatmulCell {
  const char* name;
  int64_t (*packed_bytes)(int64_t k, int64_t n, const WeightFormat& format);
  // codes: [n, k] bytes, or [n, ceil(k / 2)] with two a byte; scale and zero: [n, ceil(k / group)]; all contiguous.
  void (*pack)(void* packed, const uint8_t* codes, const float* scale, const int32_t* zero, int64_t k, int64_t n,
               const WeightFormat& format);
  bool (*run)(const WMatmulProblem& problem);
};

// ---- sparse matmul: C[m, n] = activation(A W^T + bias), W [n, k] in CSR.
struct CsrMatrix {
  int64_t n, k, count;
  const int32_t* pointers;  // [n + 1], from 0 to count
  const int32_t* columns;   // [count], growing within each row
  const void* values;       // of the cell's dtype
};

struct SparseProblem {
  int64_t m, n, k, count;
  const void* a;
  DType a_type;       // a float dtype
  int64_t a_row;      // A's columns are contiguous
  const void* packed;
  void* c;
  int64_t c_row;
  DType c_type;       // a_type, or float32
  const float* bias;  // [n] or null
  Activation activation;
};

struct SparseBytesProblem : QMatmulProblem {
  int64_t count;
};

// Its shape's groups are 1; weight is what the cell of kFormBlocks packed of W [out_channels, channels * kernel_h * kernel_w].
struct SparseConvProblem : ConvProblem {
  int64_t count;
};

struct SparseConvCell {
  const char* name;
  bool (*run)(const SparseConvProblem& problem);  // as SparseCell's
};

// The forms that W is packed in: which one pays depends on where its non-zeros are and on how many rows A has. Panels take any
// W and any number of rows, and every row of the table has them; the others it may leave null.
enum SparseForm : int { kFormPanels, kFormTables, kFormPairs, kFormBlocks, kForms };
enum SparseByteForm : int { kByteFormPanels, kByteFormTables, kByteForms };

template <class Problem>
struct SparseCell {
  const char* name;
  int64_t rows;  // of A that it is meant for, at most
  int64_t (*measure)(const CsrMatrix& w);  // what its size depends on (non-zeros, steps, blocks): `count` below; -1: not W's form
  int64_t (*packed_bytes)(int64_t n, int64_t k, int64_t count);
  bool (*pack)(void* packed, const CsrMatrix& w, int64_t count);  // false when w is not CSR, or does not measure so
  bool (*run)(const Problem& problem);  // false when scratch memory is exhausted or packed is not what pack() wrote
};

// ---- quantization: n elements, scale and zero point broadcast (stride 0) or strided; zero null is 0.
struct QuantizeRun {
  const void* a;
  int64_t stride_a;
  const float* scale;
  int64_t stride_scale;
  const int32_t* zero;
  int64_t stride_zero;
  float low, high;  // what quantized values are clipped to
};
// clip(rint(a / scale) + zero, low, high); NaN becomes the lowest value. `out` is contiguous int8 or uint8.
using QuantizeCell = void (*)(int64_t n, void* out, const QuantizeRun& run);
// (a - zero) * scale; `out` is contiguous and of the cell's float dtype.
using DequantizeCell = void (*)(int64_t n, void* out, DType a_type, const QuantizeRun& run);
// The quantized value as a float again, in the dtype of a.
using FakeQuantizeCell = void (*)(int64_t n, void* out, const QuantizeRun& run);
// The gradient where a is not clipped, else 0.
using FakeQuantizeGradCell = void (*)(int64_t n, void* out, const void* grad, int64_t stride_grad, const QuantizeRun& run);
// Widens the range by n contiguous elements.
using RangeCell = void (*)(int64_t n, const void* a, Range* range);

// ---- reductions. A row cell folds a contiguous run of n elements into one state, a columns cell folds `rows` runs of
// `columns` contiguous elements, `row` elements apart, into one state a column. States carry over from call to call.
// Floats add to float64 totals, integers and bool to int64 ones.
using SumCell = void (*)(int64_t n, const void* a, void* total);
using SumColumnsCell = void (*)(int64_t rows, int64_t columns, const void* a, int64_t row, void* totals);
// `best` has the cell's dtype; NaN wins.
using ExtremeCell = void (*)(int64_t n, const void* a, void* best);
using ExtremeColumnsCell = void (*)(int64_t rows, int64_t columns, const void* a, int64_t row, void* best);
// The same, with the position: element i of this call has number first + i (its row number in a columns cell). An index
// below 0 says that nothing has been seen yet. The first of equal values wins, NaN beats everything.
using ArgCell = void (*)(int64_t n, const void* a, int64_t first, void* best, int64_t* index);
using ArgColumnsCell = void (*)(int64_t rows, int64_t columns, const void* a, int64_t row, int64_t first, void* best,
                                int64_t* index);
// Adds sum(a - shift) and sum((a - shift)^2).
using MomentsCell = void (*)(int64_t n, const void* a, float shift, double* sum, double* squares);
using MomentsColumnsCell = void (*)(int64_t rows, int64_t columns, const void* a, int64_t row, const float* shift,
                                    double* sum, double* squares);
// Running sums down `n` steps of `columns` lines at once; strides in elements. Integers write int64.
using CumsumCell = void (*)(int64_t n, int64_t columns, void* out, int64_t out_step, int64_t out_column, const void* a,
                            int64_t a_step, int64_t a_column);

// ---- rows: one contiguous row of n elements of the cell's dtype; statistics in float32, long sums in float64.
using RowCell = void (*)(int64_t n, void* out, const void* a);                      // softmax, logSoftmax
using RowGradCell = void (*)(int64_t n, void* out, const void* grad, const void* y);  // their gradients

// weight and bias are float32 [n] or null; rmsNorm has no mean (null) and no bias.
using NormCell = void (*)(int64_t n, void* out, float* mean, float* rstd, const void* a, const float* weight,
                          const float* bias, double eps);
using NormGradCell = void (*)(int64_t n, void* da, const void* grad, const void* a, float mean, float rstd,
                              const float* weight);
// Adds sum(grad * (a - mean) * rstd) and, unless dbias is null, sum(grad), a column; mean null is 0.
using NormColumnsCell = void (*)(int64_t rows, int64_t columns, const void* grad, int64_t grad_row, const void* a,
                                 int64_t a_row, const float* mean, const float* rstd, double* dweight, double* dbias);

struct LogSum {
  float max;      // of the row
  float log_sum;  // log(sum(exp(a - max)))
  double sum;     // sum(a - max)
};
using LogSumCell = void (*)(int64_t n, const void* a, LogSum* result);
// out = scale * (exp(a - logsum) - smooth - (i == label ? confidence : 0))
using CrossEntropyGradCell = void (*)(int64_t n, void* out, const void* a, float logsum, float scale, float smooth,
                                      int64_t label, float confidence);

// ---- batch norm: one run of a channel, or (across) one of channels that lie side by side.
struct ChannelMap {
  const float *center, *scale, *shift;
};
// (a - center) * scale + shift
using ChannelMapCell = void (*)(int64_t n, void* out, const void* a, const ChannelMap& by);
struct ChannelGrad {
  const float *center, *scale, *mean_grad, *slope;
};
// scale * (grad - mean_grad - (a - center) * slope)
using ChannelGradCell = void (*)(int64_t n, void* da, const void* grad, const void* a, const ChannelGrad& by);
// Adds sum(grad) and sum(grad * (a - center)): of a run, or a column.
using ChannelDotsCell = void (*)(int64_t n, const void* grad, const void* a, float center, double* sum, double* dot);
using ChannelDotsColumnsCell = void (*)(int64_t rows, int64_t columns, const void* grad, const void* a, int64_t row,
                                        const float* center, double* sums, double* dots);

// ---- pooling: one contiguous plane; what an axis of it looks like.
struct PoolAxis {
  int64_t in, out;
  // Window o begins at input o * stride - pad and has an element every `dilation` inputs; stride is 1 when out is.
  int64_t kernel, stride, pad, dilation;
  // Averages only: window o is the inputs [begin[o], end[o]) and counts count[o]. Where it is not regular (adaptive), kernel
  // and the others say nothing.
  bool regular;
  const int64_t *begin, *end;
  const float* count;
};
// From the first input of the first window to the last of the last one, padding included.
KERF_INLINE int64_t span(const PoolAxis& a) { return (a.out - 1) * a.stride + (a.kernel - 1) * a.dilation + 1; }
// Output rows that a maximum is taken of at once: as many as fit some 16 KiB where windows share no column.
KERF_INLINE int64_t rows_together(const PoolAxis& rows, const PoolAxis& columns) {
  if (columns.stride == 1 || (columns.kernel - 1) * columns.dilation >= columns.stride) return 1;
  const int64_t fitting = 4096 / (columns.out * columns.stride);
  return fitting < 1 ? 1 : fitting < rows.out ? fitting : rows.out;
}
// spare: the floats that the driver's row_floats() says.
using MaxPoolCell = void (*)(const PoolAxis& rows, const PoolAxis& columns, void* out, int32_t* taps, const void* a,
                             float* spare);
using MaxPoolGradCell = void (*)(const PoolAxis& rows, const PoolAxis& columns, void* da, const void* grad,
                                 const int32_t* taps, const int64_t* offsets, float* spare);
using AvgPoolCell = void (*)(const PoolAxis& rows, const PoolAxis& columns, void* out, const void* a, float* spare);
using AvgPoolGradCell = void (*)(const PoolAxis& rows, const PoolAxis& columns, void* da, const void* grad, float* spare);

enum class Resize : int32_t { nearest, linear, corners };
// ---- resize: one contiguous plane. Line o is input low[o] or, with weights, low[o] * (1 - weight[o]) + high[o] * weight[o].
struct ResizeAxis {
  int64_t in, out;
  const int64_t *low, *high;
  const float* weight;  // null: the nearest line
};
// spare: a row of the input and, for the gradient, a plane of it.
using ResizeCell = void (*)(const ResizeAxis& rows, const ResizeAxis& columns, void* out, const void* a, float* spare);
// ---- recurrent steps: one row of n hidden units. `input` and `recurrent` are the two products whose sums the gates are made of,
// [gates, n] each; pointers without a type are of the cell's dtype.
// LSTM: i, f, o = sigmoid, g = tanh of the sums, in the order i f g o; c = f c_before + i g; h = o tanh(c).
struct LstmStep {
  const void* input;
  const float* recurrent;
  const void* c_before;
  void* h;
  void* c;
  float* gates;  // [4, n]: i f g o; or null
};
struct LstmStepGrad {
  const float* gates;
  const void* c;
  const void* c_before;
  const void* grad_h;  // of this step's h and c as results
  const void* grad_c;
  const float* dh;  // and as what the next step was made from
  float* dc;        // in: the same of c; out: of c_before
  void* dgates;     // [4, n], before their activations
};
// GRU: r, z = sigmoid of the sums, n = tanh(input + r recurrent), in the order r z n; h = n + z (h_before - n).
struct GruStep {
  const void* input;
  const float* recurrent;
  const void* h_before;
  void* h;
  float* gates;  // [4, n]: r z n, and n's part of `recurrent`; or null
};
struct GruStepGrad {
  const float* gates;
  const void* h_before;
  const void* grad;
  const float* dh;   // by way of the next step's product
  float* direct;     // in: by way of its z; out: what h_before gets by way of this z
  void* dinput;      // [3, n]
  void* drecurrent;  // [3, n]
};
using LstmCell = void (*)(int64_t n, const LstmStep& step);
using LstmGradCell = void (*)(int64_t n, const LstmStepGrad& step);
using GruCell = void (*)(int64_t n, const GruStep& step);
using GruGradCell = void (*)(int64_t n, const GruStepGrad& step);

// ---- indexing: one run of n elements. Element i reads a[i * step + index[i * stride_index] * axis] (gather) or adds
// a[i * stride_a] to out[i * step + index * axis] (scatterAdd). Answers n, or the first i whose index lies outside
// [-size, size): nothing after it has been done.
using GatherCell = int64_t (*)(int64_t n, void* out, int64_t stride_out, const void* a, int64_t step, int64_t axis,
                               int64_t size, const int64_t* index, int64_t stride_index);
// out is float32 when the cell's dtype is a 16-bit float, so that a sum is rounded once.
using ScatterAddCell = int64_t (*)(int64_t n, void* out, int64_t step, int64_t axis, int64_t size, const int64_t* index,
                                   int64_t stride_index, const void* a, int64_t stride_a);

// ---- optimizers: n contiguous elements, in place.
struct SgdStep {
  float lr, momentum, damp, weight_decay, grad_scale;  // damp = 1 - dampening
  bool nesterov, first_step;
};
using SgdCell = void (*)(int64_t n, void* param, const void* grad, float* momentum_buffer, const SgdStep& step);
struct AdamStep {
  float step_size;        // lr / biasCorrection1
  float mix1, mix2;       // 1 - beta1, 1 - beta2, subtracted in float64
  float beta2, eps;
  float root_correction;  // 1 / sqrt(biasCorrection2)
  float weight_decay;     // added to the gradient; 0 when decoupled
  float keep;             // 1 - lr * weightDecay when decoupled, else 1
  float grad_scale;
};
using AdamCell = void (*)(int64_t n, void* param, const void* grad, float* m, float* v, const AdamStep& step);

// ---- probes: what this machine can do at best, measured by `kerf bench` beside the kernels.
// `rounds` rounds of independent multiply-adds (or dot products) in registers; answers the operations done.
using PeakCell = double (*)(int64_t rounds);
// Reads `bytes` bytes, a multiple of 4 KiB; answers something that depends on all of them.
using ReadCell = float (*)(int64_t bytes, const void* data);

struct Kernels {
  const char* target;
  UnaryCell unary[static_cast<int>(Unary::size)][kDTypes];
  BinaryCell binary[static_cast<int>(Binary::size)][kDTypes];
  BinaryCell compare[static_cast<int>(Compare::size)][kDTypes];  // dtype of the inputs
  WhereCell where[kDTypes];
  ClampCell clamp[kDTypes];
  CopyCell copy[kDTypes][kDTypes];  // [from][to]
  MatmulCell matmul[kDTypes];
  ConvCell conv2d[kDTypes];
  QMatmulCell qmatmul;
  QConvCell qconv2d;
  WMatmulCell wmatmul;
  SparseCell<SparseProblem> spmatmul[kForms][3];  // dtype of W: float32, float16, bfloat16
  SparseCell<SparseBytesProblem> spqmatmul[kByteForms];
  SparseConvCell spconv2d[3];  // dtype of x: float32, float16, bfloat16
  QuantizeCell quantize[kDTypes];  // dtype of a
  DequantizeCell dequantize[kDTypes];  // dtype of out
  FakeQuantizeCell fake_quantize[kDTypes];
  FakeQuantizeGradCell fake_quantize_grad[kDTypes];
  RangeCell range[kDTypes];

  SumCell sum[kDTypes];
  SumColumnsCell sum_columns[kDTypes];
  ExtremeCell max[kDTypes], min[kDTypes];
  ExtremeColumnsCell max_columns[kDTypes], min_columns[kDTypes];
  ArgCell argmax[kDTypes], argmin[kDTypes];
  ArgColumnsCell argmax_columns[kDTypes], argmin_columns[kDTypes];
  MomentsCell moments[kDTypes];
  MomentsColumnsCell moments_columns[kDTypes];
  CumsumCell cumsum[kDTypes];
  RowCell softmax[kDTypes], log_softmax[kDTypes];
  RowGradCell softmax_grad[kDTypes], log_softmax_grad[kDTypes];
  NormCell layer_norm[kDTypes], rms_norm[kDTypes];
  NormGradCell layer_norm_grad[kDTypes], rms_norm_grad[kDTypes];
  NormColumnsCell norm_columns[kDTypes];
  ChannelMapCell channel_map[kDTypes], channel_map_across[kDTypes];
  ChannelGradCell channel_grad[kDTypes], channel_grad_across[kDTypes];
  ChannelDotsCell channel_dots[kDTypes];
  ChannelDotsColumnsCell channel_dots_columns[kDTypes];
  MaxPoolCell max_pool[kDTypes], max_pool_taps[kDTypes];
  MaxPoolGradCell max_pool_grad[kDTypes];
  AvgPoolCell avg_pool[kDTypes];
  AvgPoolGradCell avg_pool_grad[kDTypes];
  ResizeCell resize[kDTypes], resize_grad[kDTypes];
  LogSumCell log_sum[kDTypes];
  CrossEntropyGradCell cross_entropy_grad[kDTypes];
  LstmCell lstm[kDTypes];
  LstmGradCell lstm_grad[kDTypes];
  GruCell gru[kDTypes];
  GruGradCell gru_grad[kDTypes];
  GatherCell gather[kDTypes];
  ScatterAddCell scatter_add[kDTypes];
  SgdCell sgd[kDTypes];
  AdamCell adam[kDTypes];

  PeakCell fma_peak, bf16_dot_peak, int8_dot_peak;
  ReadCell read;
};

}  // namespace kerf
