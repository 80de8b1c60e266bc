// What products of bytes do the same way, whatever their weights: tokens become int8 rows, sums are put right.
#pragma once
#include "../../core/byte_contracts.h"
#include "../byte_rows.cuh"
#include "../matmul_table.h"
#include "ops.h"

namespace kerf {
namespace cuda {
namespace ops {

struct Tokens {
  const uint8_t* rows;  // int8 [m][padded]
  const int32_t* sums;  // [m], or null
  int64_t padded;
  int32_t shift;        // added to their zero points: -128 where the bytes were uint8
};

Status lay_bytes(Gpu& gpu, const char* op, const ByteRows& rows);
// A as bytes; where the problem says that its scales are to be found, they are, and the problem then has them.
Status lay_tokens(Gpu& gpu, const char* op, QMatmulProblem& p, bool sums, Tokens* tokens);
// The product of A with weights that `o` names; weight_sum: [n], over K.
Status multiply_bytes(Gpu& gpu, const char* op, QMatmulProblem& p, const View& out, MatmulWeights weights, MatmulOperands& o,
                      const int32_t* weight_sum);

}  // namespace ops
}  // namespace cuda
}  // namespace kerf
