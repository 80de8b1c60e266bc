// The gates of recurrent steps: one cell call a row. The loop over time, and its products, are TypeScript's
// (lib/ops/recurrent.ts).
#include "../core/image_contracts.h"
#include "axes.h"
#include "ops.h"
#include "scalar.h"

namespace kerf::ops {
namespace {

// A function of a vector's lane and of a lane that is only moved (ns a unit, one core).
constexpr double kFunction = 0.3, kMove = 0.1;

template <class Body>
Status for_units(Stream& stream, double unit_ns, int64_t m, int64_t n, Body body) {
  if (m == 0) return Status{};
  double ns = unit_ns * static_cast<double>(m * n) + 50;
  return stream.run(ns, [ns, m, n, body] {
    int64_t per_task = ceil_div(8192, n);
    run_tasks(ns, ceil_div(m, per_task), [&](int64_t task) {
      int64_t end = (task + 1) * per_task < m ? (task + 1) * per_task : m;
      for (int64_t row = task * per_task; row < end; row++) body(row);
    });
  });
}

float* floats(const View& v, int64_t at) { return static_cast<float*>(v.data) + at; }
}  // namespace

Status lstmGates(Stream& stream, View h, View c, OptView gates, View input, View recurrent, View cBefore) {
  REQUIRE(is_lstm_step(h, c, gates, input, recurrent, cBefore));
  const int64_t m = h.shape[0], n = h.shape[1];
  LstmCell cell = kernels().lstm[static_cast<int>(h.dtype)];
  if (!cell) return no_kernel("lstmGates", h.dtype);
  return for_units(stream, 5 * kFunction + 10 * kMove, m, n, [=](int64_t row) {
    const int64_t at = row * n;
    cell(n, {element(input, 4 * at), floats(recurrent, 4 * at), element(cBefore, at), element(h, at), element(c, at),
             present(gates) ? floats(gates, 4 * at) : nullptr});
  });
}

Status lstmGatesGrad(Stream& stream, View dgates, View dc, View dh, View gradH, View gradC, View gates, View c,
                     View cBefore) {
  REQUIRE(is_lstm_back(dgates, dc, dh, gradH, gradC, gates, c, cBefore));
  const int64_t m = c.shape[0], n = c.shape[1];
  LstmGradCell cell = kernels().lstm_grad[static_cast<int>(c.dtype)];
  if (!cell) return no_kernel("lstmGatesGrad", c.dtype);
  return for_units(stream, kFunction + 15 * kMove, m, n, [=](int64_t row) {
    const int64_t at = row * n;
    cell(n, {floats(gates, 4 * at), element(c, at), element(cBefore, at), element(gradH, at), element(gradC, at),
             floats(dh, at), floats(dc, at), element(dgates, 4 * at)});
  });
}

Status gruGates(Stream& stream, View h, OptView gates, View input, View recurrent, View hBefore) {
  REQUIRE(is_gru_step(h, gates, input, recurrent, hBefore));
  const int64_t m = h.shape[0], n = h.shape[1];
  GruCell cell = kernels().gru[static_cast<int>(h.dtype)];
  if (!cell) return no_kernel("gruGates", h.dtype);
  return for_units(stream, 3 * kFunction + 10 * kMove, m, n, [=](int64_t row) {
    const int64_t at = row * n;
    cell(n, {element(input, 3 * at), floats(recurrent, 3 * at), element(hBefore, at), element(h, at),
             present(gates) ? floats(gates, 4 * at) : nullptr});
  });
}

Status gruGatesGrad(Stream& stream, View dinput, View drecurrent, View direct, View dh, View grad, View gates,
                    View hBefore) {
  REQUIRE(is_gru_back(dinput, drecurrent, direct, dh, grad, gates, hBefore));
  const int64_t m = hBefore.shape[0], n = hBefore.shape[1];
  const DType dtype = hBefore.dtype;
  GruGradCell cell = kernels().gru_grad[static_cast<int>(dtype)];
  if (!cell) return no_kernel("gruGatesGrad", dtype);
  return for_units(stream, 16 * kMove, m, n, [=](int64_t row) {
    const int64_t at = row * n;
    cell(n, {floats(gates, 4 * at), element(hBefore, at), element(grad, at), floats(dh, at), floats(direct, at),
             element(dinput, 3 * at), element(drecurrent, 3 * at)});
  });
}

}  // namespace kerf::ops
