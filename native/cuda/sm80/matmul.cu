// The products compiled for every GPU since sm_80: float32 on ordinary cores, 16-bit floats and int8 by mma.sync.
#include "../any_epilogue.h"
#include "../matmul_mma.cuh"
#include "../matmul_simt.cuh"

namespace kerf {
namespace cuda {

template __global__ void matmul_simt(const float*, const float*, int, int, int, Epilogue<float>);

#define KERF_MMA(T, BM, BN, WM, WN, STAGES, Out)                                            \
  template __global__ void matmul_mma<MmaConfig<T, BM, BN, WM, WN, STAGES>, Epilogue<Out>>( \
      const uint8_t*, const uint8_t*, int, int, int, Epilogue<Out>);
#include "../matmul.def"

}  // namespace cuda
}  // namespace kerf
