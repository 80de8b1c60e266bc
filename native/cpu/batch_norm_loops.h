// Batch norm on runs of one channel (the plane [H, W] of one image) or, where there are no planes, of all channels: the
// sums of its gradient, and what becomes of each element. The statistics are those of variance (reduce_loops.h).
#pragma once
#include "vectors.h"

namespace kerf::KERF_TARGET {

// The channel's value: the same along a plane, one after the other across channels.
template <bool Across, class Lanes>
KERF_INLINE vf of_channel(const float* p, int64_t i, Lanes lanes) {
  if constexpr (Across) return get(p + i, lanes);
  return set1(*p);
}

template <bool Across, class T>
void channel_map(int64_t n, void* out, const void* a, const ChannelMap& by) {
  const T* x = static_cast<const T*>(a);
  T* y = static_cast<T*>(out);
  for_vectors(n, [&](int64_t i, auto lanes) {
    vf centred = sub(get(x + i, lanes), of_channel<Across>(by.center, i, lanes));
    put(y + i, fma(centred, of_channel<Across>(by.scale, i, lanes), of_channel<Across>(by.shift, i, lanes)), lanes);
  });
}

template <bool Across, class T>
void channel_grad(int64_t n, void* da, const void* grad, const void* a, const ChannelGrad& by) {
  const T* g = static_cast<const T*>(grad);
  const T* x = static_cast<const T*>(a);
  T* d = static_cast<T*>(da);
  for_vectors(n, [&](int64_t i, auto lanes) {
    vf centred = sub(get(x + i, lanes), of_channel<Across>(by.center, i, lanes));
    vf rest = sub(get(g + i, lanes), of_channel<Across>(by.mean_grad, i, lanes));
    vf pulled = fnma(centred, of_channel<Across>(by.slope, i, lanes), rest);
    put(d + i, mul(of_channel<Across>(by.scale, i, lanes), pulled), lanes);
  });
}

template <class T>
void channel_dots(int64_t n, const void* grad, const void* a, float center, double* sum, double* dot) {
  const T* g = static_cast<const T*>(grad);
  const T* x = static_cast<const T*>(a);
  vf c = set1(center);
  Sums sums = sums_of(n, [&](int64_t i, auto lanes) {
    vf grads = get(g + i, lanes);
    return Two{grads, mul(grads, sub(get(x + i, lanes), c))};
  });
  *sum += sums.x;
  *dot += sums.y;
}

template <class T>
void channel_dots_columns(int64_t rows, int64_t columns, const void* grad, const void* a, int64_t row,
                          const float* center, double* sums, double* dots) {
  for (int64_t start = 0; start < rows; start += kRows) {
    int64_t end = rows - start < kRows ? rows : start + kRows;
    for_column_blocks(columns, [&](int64_t c, auto lanes, auto block) {
      constexpr int vectors = decltype(block)::count;
      vf sum[vectors], dot[vectors];
      for (int v = 0; v < vectors; v++) sum[v] = dot[v] = set1(0.0f);
      const T* g = static_cast<const T*>(grad) + start * row + c;
      const T* x = static_cast<const T*>(a) + start * row + c;
      for (int64_t r = start; r < end; r++, g += row, x += row) {
        for (int v = 0; v < vectors; v++) {
          vf grads = get(g + v * W, lanes);
          sum[v] = add(sum[v], grads);
          dot[v] = fma(grads, sub(get(x + v * W, lanes), get(center + c + v * W, lanes)), dot[v]);
        }
      }
      for (int v = 0; v < vectors; v++) {
        add_to(sums + c + v * W, sum[v], lanes);
        add_to(dots + c + v * W, dot[v], lanes);
      }
    });
  }
}

template <class T>
void install_batch_norm(Kernels& row, DType dtype) {
  int d = static_cast<int>(dtype);
  row.channel_map[d] = channel_map<false, T>;
  row.channel_map_across[d] = channel_map<true, T>;
  row.channel_grad[d] = channel_grad<false, T>;
  row.channel_grad_across[d] = channel_grad<true, T>;
  row.channel_dots[d] = channel_dots<T>;
  row.channel_dots_columns[d] = channel_dots_columns<T>;
}

}  // namespace kerf::KERF_TARGET
