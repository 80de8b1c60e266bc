// The gates of recurrent steps, a thread a hidden unit: what lies between a step's product and the next step's. What they compute
// stands in core/kernels.h. Everything inside is float32; h and c are rounded when they are stored.
#pragma once
#include "elementwise.cuh"

namespace kerf {
namespace cuda {

using Wide = Floats<Floating<DType::float32_>>;

// Hidden unit j of a row, in row-major [m, gates, n].
struct Unit {
  int64_t row, j, n;
  CU_FUNCTION Unit(uint32_t i, uint32_t units) : row(i / units), j(i % units), n(units) {}
  CU_FUNCTION int64_t gate(int number, int gates) const { return (row * gates + number) * n + j; }
};

// gates: null where no gradient follows.
template <class A>
__global__ void lstm_units(uint32_t count, uint32_t n, A h, A c, Wide gates, A input, Wide recurrent, A before) {
  for (uint32_t u = first_element(); u < count; u += element_step()) {
    const Unit unit(u, n);
    auto sum = [&](int gate) { return input.get(unit.gate(gate, 4)) + recurrent.get(unit.gate(gate, 4)); };
    const float i = Sigmoid()(sum(0)), f = Sigmoid()(sum(1)), g = tanhf(sum(2)), o = Sigmoid()(sum(3));
    const float cell = f * before.get(u) + i * g;
    c.put(u, cell);
    h.put(u, o * tanhf(cell));
    if (!gates.data) continue;
    gates.put(unit.gate(0, 4), i);
    gates.put(unit.gate(1, 4), f);
    gates.put(unit.gate(2, 4), g);
    gates.put(unit.gate(3, 4), o);
  }
}

template <class A>
__global__ void lstm_grad_units(uint32_t count, uint32_t n, A dgates, Wide dc, Wide dh, A grad_h, A grad_c, Wide gates, A c, A before) {
  for (uint32_t u = first_element(); u < count; u += element_step()) {
    const Unit unit(u, n);
    const float i = gates.get(unit.gate(0, 4)), f = gates.get(unit.gate(1, 4));
    const float g = gates.get(unit.gate(2, 4)), o = gates.get(unit.gate(3, 4));
    const float y = tanhf(c.get(u)), by_h = grad_h.get(u) + dh.get(u);
    const float by_c = grad_c.get(u) + dc.own(u) + TanhGrad()(by_h * o, y);
    dgates.put(unit.gate(0, 4), SigmoidGrad()(by_c * g, i));
    dgates.put(unit.gate(1, 4), SigmoidGrad()(by_c * before.get(u), f));
    dgates.put(unit.gate(2, 4), TanhGrad()(by_c * i, g));
    dgates.put(unit.gate(3, 4), SigmoidGrad()(by_h * y, o));
    dc.put(u, by_c * f);
  }
}

template <class A>
__global__ void gru_units(uint32_t count, uint32_t n, A h, Wide gates, A input, Wide recurrent, A before) {
  for (uint32_t u = first_element(); u < count; u += element_step()) {
    const Unit unit(u, n);
    auto x = [&](int gate) { return input.get(unit.gate(gate, 3)); };
    auto p = [&](int gate) { return recurrent.get(unit.gate(gate, 3)); };
    const float r = Sigmoid()(x(0) + p(0)), z = Sigmoid()(x(1) + p(1)), product = p(2), fresh = tanhf(x(2) + r * product);
    h.put(u, fresh + z * (before.get(u) - fresh));
    if (!gates.data) continue;
    gates.put(unit.gate(0, 4), r);
    gates.put(unit.gate(1, 4), z);
    gates.put(unit.gate(2, 4), fresh);
    gates.put(unit.gate(3, 4), product);
  }
}

template <class A>
__global__ void gru_grad_units(uint32_t count, uint32_t n, A dinput, A drecurrent, Wide direct, Wide dh, A grad, Wide gates, A before) {
  for (uint32_t u = first_element(); u < count; u += element_step()) {
    const Unit unit(u, n);
    const float r = gates.get(unit.gate(0, 4)), z = gates.get(unit.gate(1, 4));
    const float fresh = gates.get(unit.gate(2, 4)), product = gates.get(unit.gate(3, 4));
    const float by_h = grad.get(u) + (dh.get(u) + direct.own(u));
    const float dn = TanhGrad()(by_h - by_h * z, fresh);
    const float dz = SigmoidGrad()(by_h * (before.get(u) - fresh), z), dr = SigmoidGrad()(dn * product, r);
    dinput.put(unit.gate(0, 3), dr);
    dinput.put(unit.gate(1, 3), dz);
    dinput.put(unit.gate(2, 3), dn);
    drecurrent.put(unit.gate(0, 3), dr);
    drecurrent.put(unit.gate(1, 3), dz);
    drecurrent.put(unit.gate(2, 3), dn * r);
    direct.put(u, by_h * z);
  }
}

}  // namespace cuda
}  // namespace kerf
