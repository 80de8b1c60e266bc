// 2:4 weights on the sparse tensor cores: float16 and bfloat16 by activations of the same format, int8 by bytes.
#pragma once
#include "../../core/sparse_contracts.h"
#include "bytes.h"

namespace kerf {
namespace cuda {
namespace ops {

// The forms that sppack() makes on a GPU; lib/ops/sparse-kernels.ts knows them too.
enum CudaSparseForm : i64 {
  kCsrForm,       // any matrix, on ordinary cores
  kPairUnits,     // 2:4, for mma.sp
  kPairRowsForm,  // 2:4, for wgmma.sp
};
inline bool is_pairs(i64 form) { return form == kPairUnits || form == kPairRowsForm; }

Status pack_pairs(Gpu& gpu, const View& packed, const CsrMatrix& w, DType dtype, i64 form);
Status multiply_pairs(Gpu& gpu, const View& out, const View& a, const View& packed, const SparseProblem& p, DType dtype, i64 form);
Status multiply_byte_pairs(Gpu& gpu, const View& out, const View& packed, QMatmulProblem& p, i64 form);

}  // namespace ops
}  // namespace cuda
}  // namespace kerf
