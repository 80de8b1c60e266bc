// The gates of LSTM and GRU steps and their gradients. The loop over time, and its products, are TypeScript's.
#include "../recurrent.cuh"

#include "../../core/image_contracts.h"
#include "launch.h"

namespace kerf {
namespace cuda {
namespace ops {
namespace {

// Calls launch(type, units in all, units of a row, grid, block).
template <class Launch>
Status for_units(Gpu& gpu, const char* op, DType dtype, int64_t m, int64_t n, Launch&& launch) {
  if (m == 0) return Status{};
  if (!fits(4 * m * n)) return too_many(op, 4 * m * n);
  return with_floats(op, dtype, [&](auto type) {
    launch(type, static_cast<uint32_t>(m * n), static_cast<uint32_t>(n), blocks_for(m * n), threads_for(m * n));
    return gpu.launched(op);
  });
}

Wide wide(const View& v) { return {v.data}; }
Wide wide(const OptView& v) { return {present(v) ? v.data : nullptr}; }

}  // namespace

Status lstmGates(Gpu& gpu, View h, View c, OptView gates, View input, View recurrent, View cBefore) {
  REQUIRE(is_lstm_step(h, c, gates, input, recurrent, cBefore));
  const int64_t m = h.shape[0], n = h.shape[1];
  return for_units(gpu, "lstmGates", h.dtype, m, n, [&](auto type, uint32_t units, uint32_t row, dim3 grid, dim3 block) {
    using T = decltype(type);
    const T to_h{h.data}, to_c{c.data}, x{input.data}, before{cBefore.data};
    const Wide kept = wide(gates), sums = wide(recurrent);
    CU_LAUNCH((lstm_units<T>), grid, block, 0, gpu.stream(), units, row, to_h, to_c, kept, x, sums, before);
  });
}

Status lstmGatesGrad(Gpu& gpu, View dgates, View dc, View dh, View gradH, View gradC, View gates, View c, View cBefore) {
  REQUIRE(is_lstm_back(dgates, dc, dh, gradH, gradC, gates, c, cBefore));
  const int64_t m = c.shape[0], n = c.shape[1];
  return for_units(gpu, "lstmGatesGrad", c.dtype, m, n, [&](auto type, uint32_t units, uint32_t row, dim3 grid, dim3 block) {
    using T = decltype(type);
    const T to{dgates.data}, by_h{gradH.data}, by_c{gradC.data}, cell{c.data}, before{cBefore.data};
    const Wide carried = wide(dc), later = wide(dh), kept = wide(gates);
    CU_LAUNCH((lstm_grad_units<T>), grid, block, 0, gpu.stream(), units, row, to, carried, later, by_h, by_c, kept, cell, before);
  });
}

Status gruGates(Gpu& gpu, View h, OptView gates, View input, View recurrent, View hBefore) {
  REQUIRE(is_gru_step(h, gates, input, recurrent, hBefore));
  const int64_t m = h.shape[0], n = h.shape[1];
  return for_units(gpu, "gruGates", h.dtype, m, n, [&](auto type, uint32_t units, uint32_t row, dim3 grid, dim3 block) {
    using T = decltype(type);
    const T to{h.data}, x{input.data}, before{hBefore.data};
    const Wide kept = wide(gates), sums = wide(recurrent);
    CU_LAUNCH((gru_units<T>), grid, block, 0, gpu.stream(), units, row, to, kept, x, sums, before);
  });
}

Status gruGatesGrad(Gpu& gpu, View dinput, View drecurrent, View direct, View dh, View grad, View gates, View hBefore) {
  REQUIRE(is_gru_back(dinput, drecurrent, direct, dh, grad, gates, hBefore));
  const int64_t m = hBefore.shape[0], n = hBefore.shape[1];
  const DType dtype = hBefore.dtype;
  return for_units(gpu, "gruGatesGrad", dtype, m, n, [&](auto type, uint32_t units, uint32_t row, dim3 grid, dim3 block) {
    using T = decltype(type);
    const T to_input{dinput.data}, to_recurrent{drecurrent.data}, by{grad.data}, before{hBefore.data};
    const Wide passed = wide(direct), later = wide(dh), kept = wide(gates);
    CU_LAUNCH((gru_grad_units<T>), grid, block, 0, gpu.stream(), units, row, to_input, to_recurrent, passed, later, by, kept, before);
  });
}

}  // namespace ops
}  // namespace cuda
}  // namespace kerf
