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
constexpr DType kFloat = DType::float32_;

}  // namespace

Status lstmGates(Stream& stream, View h, View c, OptView gates, View input, View recurrent, View cBefore) {
  REQUIRE(h.rank == 2 && h.shape[1] > 0);
  const int64_t m = h.shape[0], n = h.shape[1];
  REQUIRE(is_rows(h, m, n, h.dtype) && is_rows(c, m, n, h.dtype) && is_rows(cBefore, m, n, h.dtype));
  REQUIRE(is_rows(input, m, 4 * n, h.dtype) && is_rows(recurrent, m, 4 * n, kFloat));
  REQUIRE(!present(gates) || is_rows(gates, m, 4 * n, kFloat));
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
  REQUIRE(c.rank == 2 && c.shape[1] > 0);
  const int64_t m = c.shape[0], n = c.shape[1];
  REQUIRE(is_rows(c, m, n, c.dtype) && is_rows(cBefore, m, n, c.dtype));
  REQUIRE(is_rows(gradH, m, n, c.dtype) && is_rows(gradC, m, n, c.dtype));
  REQUIRE(is_rows(dc, m, n, kFloat) && is_rows(dh, m, n, kFloat));
  REQUIRE(is_rows(dgates, m, 4 * n, c.dtype) && is_rows(gates, m, 4 * n, kFloat));
  LstmGradCell cell = kernels().lstm_grad[static_cast<int>(c.dtype)];
  if (!cell) return no_kernel("lstmGatesGrad", c.dtype);
  return for_units(stream, kFunction + 15 * kMove, m, n, [=](int64_t row) {
    const int64_t at = row * n;
    cell(n, {floats(gates, 4 * at), element(c, at), element(cBefore, at), element(gradH, at), element(gradC, at),
             floats(dh, at), floats(dc, at), element(dgates, 4 * at)});
  });
}

Status gruGates(Stream& stream, View h, OptView gates, View input, View recurrent, View hBefore) {
  REQUIRE(h.rank == 2 && h.shape[1] > 0);
  const int64_t m = h.shape[0], n = h.shape[1];
  REQUIRE(is_rows(h, m, n, h.dtype) && is_rows(hBefore, m, n, h.dtype));
  REQUIRE(is_rows(input, m, 3 * n, h.dtype) && is_rows(recurrent, m, 3 * n, kFloat));
  REQUIRE(!present(gates) || is_rows(gates, m, 4 * n, kFloat));
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
  REQUIRE(hBefore.rank == 2 && hBefore.shape[1] > 0);
  const int64_t m = hBefore.shape[0], n = hBefore.shape[1];
  const DType dtype = hBefore.dtype;
  REQUIRE(is_rows(hBefore, m, n, dtype) && is_rows(grad, m, n, dtype));
  REQUIRE(is_rows(direct, m, n, kFloat) && is_rows(dh, m, n, kFloat));
  REQUIRE(is_rows(dinput, m, 3 * n, dtype) && is_rows(drecurrent, m, 3 * n, dtype));
  REQUIRE(is_rows(gates, m, 4 * n, kFloat));
  GruGradCell cell = kernels().gru_grad[static_cast<int>(dtype)];
  if (!cell) return no_kernel("gruGatesGrad", dtype);
  return for_units(stream, 16 * kMove, m, n, [=](int64_t row) {
    const int64_t at = row * n;
    cell(n, {floats(gates, 4 * at), element(hBefore, at), element(grad, at), floats(dh, at), floats(direct, at),
             element(dinput, 3 * at), element(drecurrent, 3 * at)});
  });
}

}  // namespace kerf::ops
