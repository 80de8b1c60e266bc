// Resizing one contiguous plane by the tables that say which two lines each output line lies between. Rows are mixed first,
// over whole vectors of columns, then columns are picked.
#pragma once
#include "plane_sum.h"

namespace kerf::KERF_TARGET {

template <class T>
void resize(const ResizeAxis& rows, const ResizeAxis& columns, void* out, const void* a, float* spare) {
  const T* x = static_cast<const T*>(a);
  T* y = static_cast<T*>(out);
  for (int64_t o = 0; o < rows.out; o++, y += columns.out) {
    const T* low = x + rows.low[o] * columns.in;
    if (!rows.weight) {
      if (o > 0 && rows.low[o] == rows.low[o - 1])
        memcpy(y, y - columns.out, static_cast<size_t>(columns.out) * sizeof(T));
      else
        for (int64_t i = 0; i < columns.out; i++) y[i] = low[columns.low[i]];
      continue;
    }
    const T* high = x + rows.high[o] * columns.in;
    vf w = set1(rows.weight[o]), rest = set1(1 - rows.weight[o]);
    for_vectors(columns.in, [&](int64_t i, auto lanes) {
      put(spare + i, fma(get(high + i, lanes), w, mul(get(low + i, lanes), rest)), lanes);
    });
    for (int64_t i = 0; i < columns.out; i++) {
      float u = columns.weight[i];
      put_one(y + i, spare[columns.high[i]] * u + spare[columns.low[i]] * (1 - u));
    }
  }
}

// The transpose: every output's gradient goes to the elements it was made of, by their weights.
template <class T>
void resize_grad(const ResizeAxis& rows, const ResizeAxis& columns, void* da, const void* grad, float* spare) {
  const T* g = static_cast<const T*>(grad);
  float* line = spare;
  PlaneSum<T> sum(da, spare + columns.in, rows.in * columns.in);
  for (int64_t o = 0; o < rows.out; o++, g += columns.out) {
    for (int64_t i = 0; i < columns.in; i++) line[i] = 0;
    for (int64_t i = 0; i < columns.out; i++) {
      float v = one(g[i]);
      if (!rows.weight) {
        line[columns.low[i]] += v;
        continue;
      }
      line[columns.low[i]] += v * (1 - columns.weight[i]);
      line[columns.high[i]] += v * columns.weight[i];
    }
    auto give = [&](int64_t row, float weight) {
      float* to = sum.at + row * columns.in;
      vf w = set1(weight);
      for_vectors(columns.in, [&](int64_t i, auto lanes) {
        put(to + i, fma(get(line + i, lanes), w, get(to + i, lanes)), lanes);
      });
    };
    give(rows.low[o], rows.weight ? 1 - rows.weight[o] : 1);
    if (rows.weight) give(rows.high[o], rows.weight[o]);
  }
  sum.round();
}

template <class T>
void install_resize(Kernels& row, DType dtype) {
  int d = static_cast<int>(dtype);
  row.resize[d] = resize<T>;
  row.resize_grad[d] = resize_grad<T>;
}

}  // namespace kerf::KERF_TARGET
