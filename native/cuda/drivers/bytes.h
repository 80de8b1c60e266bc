// What products of bytes do the same way, whatever their weights: tokens become int8 rows, sums are put right.
#pragma once
#include "../../core/byte_contracts.h"
#include "../matmul_table.h"
#include "ops.h"

namespace kerf {
namespace cuda {
namespace ops {

// What qpack() makes of a [k, columns] matrix.
struct PackedBytes {
  int64_t n, padded;  // rows of int8 and their bytes, K padded with zeros
  PackedBytes(int64_t k, int64_t columns) : n(columns), padded(((k > 0 ? k : 1) + 15) / 16 * 16) {}
  int64_t sums() const { return n * padded; }  // where the rows' sums begin, int32
  int64_t bytes() const { return sums() + 4 * n; }
};

// What zero points of bytes change by when the bytes become int8.
inline int32_t shift_of(Quantize quantize, DType type) {
  const bool is_signed = quantize == Quantize::none ? type == DType::int8_ : quantize == Quantize::to_int8;
  return is_signed ? 0 : -128;
}

struct Tokens {
  const uint8_t* rows;  // int8 [m][padded]
  const int32_t* sums;  // [m], or null
  int32_t shift;        // added to their zero points: -128 where the bytes were uint8
};

// A as bytes, rows of `padded`; where the problem says that its scales are to be found, they are, and the problem then has them.
Status lay_tokens(Gpu& gpu, const char* op, QMatmulProblem& p, int64_t padded, bool sums, Tokens* tokens);
// The product of A, rows of `padded`, with weights that `o` names; weight_sum: [n], over K.
Status multiply_bytes(Gpu& gpu, const char* op, QMatmulProblem& p, const View& out, MatmulWeights weights, MatmulOperands& o,
                      const int32_t* weight_sum, int64_t padded);

}  // namespace ops
}  // namespace cuda
}  // namespace kerf
