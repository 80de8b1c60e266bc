// The gates of recurrent steps on one row of hidden units, one pass: what lies between a step's product and the next step's.
// Everything inside is float32; h and c are rounded when they are stored. Five functions a unit: arithmetic, not memory, bounds them.
#pragma once
#include "simd_math.h"
#include "vectors.h"

namespace kerf::KERF_TARGET {

// g y (1 - y) and g (1 - y^2): back through a sigmoid and a tanh with the result y
KERF_INLINE vf sigmoid_back(vf g, vf y) { return mul(g, fnma(y, y, y)); }
KERF_INLINE vf tanh_back(vf g, vf y) { return mul(g, fnma(y, y, set1(1.0f))); }

template <class T>
void lstm(int64_t n, const LstmStep& step) {
  const T* x = static_cast<const T*>(step.input);
  const float* r = step.recurrent;
  const T* before = static_cast<const T*>(step.c_before);
  T* h = static_cast<T*>(step.h);
  T* c = static_cast<T*>(step.c);
  float* gates = step.gates;
  for_vectors(n, [&](int64_t j, auto lanes) {
    vf i = sigmoid(add(get(x + j, lanes), get(r + j, lanes)));
    vf f = sigmoid(add(get(x + n + j, lanes), get(r + n + j, lanes)));
    vf g = tanh(add(get(x + 2 * n + j, lanes), get(r + 2 * n + j, lanes)));
    vf o = sigmoid(add(get(x + 3 * n + j, lanes), get(r + 3 * n + j, lanes)));
    vf cell = fma(f, get(before + j, lanes), mul(i, g));
    put(c + j, cell, lanes);
    put(h + j, mul(o, tanh(cell)), lanes);
    if (!gates) return;
    put(gates + j, i, lanes);
    put(gates + n + j, f, lanes);
    put(gates + 2 * n + j, g, lanes);
    put(gates + 3 * n + j, o, lanes);
  });
}

template <class T>
void lstm_grad(int64_t n, const LstmStepGrad& step) {
  const float* gates = step.gates;
  const T* c = static_cast<const T*>(step.c);
  const T* before = static_cast<const T*>(step.c_before);
  const T* grad_h = static_cast<const T*>(step.grad_h);
  const T* grad_c = static_cast<const T*>(step.grad_c);
  T* d = static_cast<T*>(step.dgates);
  for_vectors(n, [&](int64_t j, auto lanes) {
    vf i = get(gates + j, lanes), f = get(gates + n + j, lanes);
    vf g = get(gates + 2 * n + j, lanes), o = get(gates + 3 * n + j, lanes);
    vf y = tanh(get(c + j, lanes));
    vf dh = add(get(grad_h + j, lanes), get(step.dh + j, lanes));
    vf dc = add(add(get(grad_c + j, lanes), get(step.dc + j, lanes)), tanh_back(mul(dh, o), y));
    put(d + j, sigmoid_back(mul(dc, g), i), lanes);
    put(d + n + j, sigmoid_back(mul(dc, get(before + j, lanes)), f), lanes);
    put(d + 2 * n + j, tanh_back(mul(dc, i), g), lanes);
    put(d + 3 * n + j, sigmoid_back(mul(dh, y), o), lanes);
    put(step.dc + j, mul(dc, f), lanes);
  });
}

template <class T>
void gru(int64_t n, const GruStep& step) {
  const T* x = static_cast<const T*>(step.input);
  const float* p = step.recurrent;
  const T* before = static_cast<const T*>(step.h_before);
  T* h = static_cast<T*>(step.h);
  float* gates = step.gates;
  for_vectors(n, [&](int64_t j, auto lanes) {
    vf r = sigmoid(add(get(x + j, lanes), get(p + j, lanes)));
    vf z = sigmoid(add(get(x + n + j, lanes), get(p + n + j, lanes)));
    vf product = get(p + 2 * n + j, lanes);
    vf fresh = tanh(fma(r, product, get(x + 2 * n + j, lanes)));
    put(h + j, fma(z, sub(get(before + j, lanes), fresh), fresh), lanes);
    if (!gates) return;
    put(gates + j, r, lanes);
    put(gates + n + j, z, lanes);
    put(gates + 2 * n + j, fresh, lanes);
    put(gates + 3 * n + j, product, lanes);
  });
}

template <class T>
void gru_grad(int64_t n, const GruStepGrad& step) {
  const float* gates = step.gates;
  const T* before = static_cast<const T*>(step.h_before);
  const T* grad = static_cast<const T*>(step.grad);
  T* dx = static_cast<T*>(step.dinput);
  T* dp = static_cast<T*>(step.drecurrent);
  for_vectors(n, [&](int64_t j, auto lanes) {
    vf r = get(gates + j, lanes), z = get(gates + n + j, lanes);
    vf fresh = get(gates + 2 * n + j, lanes), product = get(gates + 3 * n + j, lanes);
    vf dh = add(get(grad + j, lanes), add(get(step.dh + j, lanes), get(step.direct + j, lanes)));
    vf dn = tanh_back(fnma(dh, z, dh), fresh);
    vf dz = sigmoid_back(mul(dh, sub(get(before + j, lanes), fresh)), z);
    vf dr = sigmoid_back(mul(dn, product), r);
    put(dx + j, dr, lanes);
    put(dx + n + j, dz, lanes);
    put(dx + 2 * n + j, dn, lanes);
    put(dp + j, dr, lanes);
    put(dp + n + j, dz, lanes);
    put(dp + 2 * n + j, mul(dn, r), lanes);
    put(step.direct + j, mul(dh, z), lanes);
  });
}

template <class T>
void install_recurrent_float(Kernels& row, DType dtype) {
  int d = static_cast<int>(dtype);
  row.lstm[d] = lstm<T>;
  row.lstm_grad[d] = lstm_grad<T>;
  row.gru[d] = gru<T>;
  row.gru_grad[d] = gru_grad<T>;
}

}  // namespace kerf::KERF_TARGET
