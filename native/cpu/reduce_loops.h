// Reductions: sum, maximum and minimum, their positions, moments and running sums.
//
// Row cells fold one contiguous run, columns cells fold rows of contiguous columns. Float columns are taken kBlock
// vectors at a time so that the running values stay in registers, and at most kRows rows at a time, after which float64
// totals take over: the summation order depends on shapes only.
//
// Integers are plain loops that the compiler vectorises for the target.
#pragma once
#include "vectors.h"

namespace kerf::KERF_TARGET {

// ---- sums

template <class T>
void sum_float(int64_t n, const void* a, void* total) {
  const T* x = static_cast<const T*>(a);
  *static_cast<double*>(total) += sum_of(n, [&](int64_t i, auto lanes) { return get(x + i, lanes); });
}

template <class T>
void sum_columns_float(int64_t rows, int64_t columns, const void* a, int64_t row, void* totals) {
  double* out = static_cast<double*>(totals);
  for (int64_t start = 0; start < rows; start += kRows) {
    int64_t end = rows - start < kRows ? rows : start + kRows;
    for_column_blocks(columns, [&](int64_t c, auto lanes, auto block) {
      constexpr int vectors = decltype(block)::count;
      vf s[vectors];
      for (int v = 0; v < vectors; v++) s[v] = set1(0.0f);
      const T* x = static_cast<const T*>(a) + start * row + c;
      for (int64_t r = start; r < end; r++, x += row)
        for (int v = 0; v < vectors; v++) s[v] = add(s[v], get(x + v * W, lanes));
      for (int v = 0; v < vectors; v++) add_to(out + c + v * W, s[v], lanes);
    });
  }
}

// Narrow integers add up in 32 bits for as long as that cannot overflow: twice the lanes of 64-bit additions.
template <class T>
struct Partial {
  using type = int32_t;
  static constexpr int64_t limit = int64_t{1} << 23;
};
template <>
struct Partial<int32_t> {
  using type = int64_t;
  static constexpr int64_t limit = int64_t{1} << 62;
};
template <>
struct Partial<int64_t> {
  using type = uint64_t;
  static constexpr int64_t limit = int64_t{1} << 62;
};

template <class T>
void sum_int(int64_t n, const void* a, void* total) {
  using P = typename Partial<T>::type;
  const T* x = static_cast<const T*>(a);
  uint64_t t = static_cast<uint64_t>(*static_cast<int64_t*>(total));  // wraps around, as PyTorch's does
  for (int64_t start = 0; start < n; start += Partial<T>::limit) {
    int64_t end = n - start < Partial<T>::limit ? n : start + Partial<T>::limit;
    P s = 0;
    for (int64_t i = start; i < end; i++) s += static_cast<P>(x[i]);
    t += static_cast<uint64_t>(static_cast<int64_t>(s));
  }
  *static_cast<int64_t*>(total) = static_cast<int64_t>(t);
}

template <class T>
void sum_columns_int(int64_t rows, int64_t columns, const void* a, int64_t row, void* totals) {
  uint64_t* out = static_cast<uint64_t*>(totals);
  for (int64_t r = 0; r < rows; r++) {
    const T* x = static_cast<const T*>(a) + r * row;
    for (int64_t c = 0; c < columns; c++) out[c] += static_cast<uint64_t>(static_cast<int64_t>(x[c]));
  }
}

// ---- maximum and minimum. max(a, b) answers b where either is NaN, so a NaN in x survives in `best` only as long as
// nothing follows it: NaNs are collected in a mask beside it.

template <bool Max>
KERF_INLINE vf better(vf a, vf b) {
  return Max ? max(a, b) : min(a, b);
}
template <bool Max>
KERF_INLINE bool beats(float a, float b) {
  return Max ? a > b : a < b;
}

template <bool Max, class T>
KERF_INLINE float extreme_of(int64_t n, const T* x, float best) {
  vf s[kChains] = {set1(best), set1(best), set1(best), set1(best)};
  vm nan = is_nan(s[0]);
  for_chains(n, [&](int64_t i, int chain, auto lanes) {
    vf v = keep(get(x + i, lanes), set1(best), lanes);
    nan = mask_or(nan, is_nan(v));
    s[chain] = better<Max>(s[chain], v);
  });
  if (any(nan)) return __builtin_nanf("");
  vf all = better<Max>(better<Max>(s[0], s[1]), better<Max>(s[2], s[3]));
  return Max ? reduce_max(all) : reduce_min(all);
}

template <bool Max, class T>
void extreme_float(int64_t n, const void* a, void* best) {
  T* b = static_cast<T*>(best);
  put_one(b, extreme_of<Max>(n, static_cast<const T*>(a), one(*b)));
}

template <bool Max, class T>
void extreme_columns_float(int64_t rows, int64_t columns, const void* a, int64_t row, void* best) {
  for_column_blocks(columns, [&](int64_t c, auto lanes, auto block) {
    constexpr int vectors = decltype(block)::count;
    T* b = static_cast<T*>(best) + c;
    vf s[vectors];
    vm nan[vectors];
    for (int v = 0; v < vectors; v++) {
      s[v] = get(b + v * W, lanes);
      nan[v] = is_nan(s[v]);
    }
    const T* x = static_cast<const T*>(a) + c;
    for (int64_t r = 0; r < rows; r++, x += row)
      for (int v = 0; v < vectors; v++) {
        vf value = get(x + v * W, lanes);
        nan[v] = mask_or(nan[v], is_nan(value));
        s[v] = better<Max>(s[v], value);
      }
    for (int v = 0; v < vectors; v++) put(b + v * W, select(nan[v], set1(__builtin_nanf("")), s[v]), lanes);
  });
}

template <bool Max, class T>
void extreme_int(int64_t n, const void* a, void* best) {
  const T* x = static_cast<const T*>(a);
  T b = *static_cast<T*>(best);
  for (int64_t i = 0; i < n; i++) b = (Max ? x[i] > b : x[i] < b) ? x[i] : b;
  *static_cast<T*>(best) = b;
}

template <bool Max, class T>
void extreme_columns_int(int64_t rows, int64_t columns, const void* a, int64_t row, void* best) {
  T* b = static_cast<T*>(best);
  for (int64_t r = 0; r < rows; r++) {
    const T* x = static_cast<const T*>(a) + r * row;
    for (int64_t c = 0; c < columns; c++) b[c] = (Max ? x[c] > b[c] : x[c] < b[c]) ? x[c] : b[c];
  }
}

// ---- their positions: a chunk at a time, and only a chunk that beats what came before is searched.

constexpr int64_t kChunk = 1024;

KERF_INLINE bool is_nan_one(float x) { return x != x; }
KERF_INLINE bool is_nan_one(int64_t) { return false; }

template <bool Max, class V>  // V: float or int64_t
KERF_INLINE bool takes_over(V x, V best) {
  return (Max ? x > best : x < best) || (is_nan_one(x) && !is_nan_one(best));
}

template <bool Max, class T>
void arg_float(int64_t n, const void* a, int64_t first, void* best, int64_t* index) {
  const T* x = static_cast<const T*>(a);
  T* b = static_cast<T*>(best);
  for (int64_t start = 0; start < n; start += kChunk) {
    int64_t count = n - start < kChunk ? n - start : kChunk;
    float found = extreme_of<Max>(count, x + start, one(x[start]));
    if (*index >= 0 && !takes_over<Max>(found, one(*b))) continue;
    int64_t i = start;
    while (!(one(x[i]) == found || (is_nan_one(one(x[i])) && is_nan_one(found)))) i++;
    *b = x[i];
    *index = first + i;
  }
}

template <bool Max, class T>
void arg_int(int64_t n, const void* a, int64_t first, void* best, int64_t* index) {
  const T* x = static_cast<const T*>(a);
  T* b = static_cast<T*>(best);
  for (int64_t start = 0; start < n; start += kChunk) {
    int64_t count = n - start < kChunk ? n - start : kChunk;
    T found = x[start];
    extreme_int<Max, T>(count, x + start, &found);
    if (*index >= 0 && !takes_over<Max, int64_t>(found, *b)) continue;
    int64_t i = start;
    while (x[i] != found) i++;
    *b = found;
    *index = first + i;
  }
}

template <class T>
KERF_INLINE T comparable(T x) {
  return x;
}
KERF_INLINE float comparable(f16 x) { return kerf::to_float(x); }
KERF_INLINE float comparable(bf16 x) { return kerf::to_float(x); }

template <bool Max, class T>
void arg_columns(int64_t rows, int64_t columns, const void* a, int64_t row, int64_t first, void* best, int64_t* index) {
  T* b = static_cast<T*>(best);
  for (int64_t r = 0; r < rows; r++) {
    const T* x = static_cast<const T*>(a) + r * row;
    for (int64_t c = 0; c < columns; c++) {
      auto value = comparable(x[c]), held = comparable(b[c]);
      bool take = (index[c] < 0) | (Max ? value > held : value < held) | ((value != value) & (held == held));
      b[c] = take ? x[c] : b[c];
      index[c] = take ? first + r : index[c];
    }
  }
}

// ---- moments about a shift

template <class T>
void moments_float(int64_t n, const void* a, float shift, double* sum, double* squares) {
  const T* x = static_cast<const T*>(a);
  vf s = set1(shift);
  Sums total = sums_of(n, [&](int64_t i, auto lanes) {
    vf d = sub(get(x + i, lanes), s);
    return Two{d, mul(d, d)};
  });
  *sum += total.x;
  *squares += total.y;
}

template <class T>
void moments_columns_float(int64_t rows, int64_t columns, const void* a, int64_t row, const float* shift, double* sum,
                           double* squares) {
  for (int64_t start = 0; start < rows; start += kRows) {
    int64_t end = rows - start < kRows ? rows : start + kRows;
    for_column_blocks(columns, [&](int64_t c, auto lanes, auto block) {
      constexpr int vectors = decltype(block)::count;
      vf s[vectors], q[vectors], about[vectors];
      for (int v = 0; v < vectors; v++) {
        s[v] = q[v] = set1(0.0f);
        about[v] = get(shift + c + v * W, lanes);
      }
      const T* x = static_cast<const T*>(a) + start * row + c;
      for (int64_t r = start; r < end; r++, x += row)
        for (int v = 0; v < vectors; v++) {
          vf d = sub(get(x + v * W, lanes), about[v]);
          s[v] = add(s[v], d);
          q[v] = fma(d, d, q[v]);
        }
      for (int v = 0; v < vectors; v++) {
        add_to(sum + c + v * W, s[v], lanes);
        add_to(squares + c + v * W, q[v], lanes);
      }
    });
  }
}

// ---- running sums, in float64 or int64

template <class T>
struct Running {
  using sum = int64_t;
  using out = int64_t;
};
template <>
struct Running<float> {
  using sum = double;
  using out = float;
};
template <>
struct Running<f16> {
  using sum = double;
  using out = f16;
};
template <>
struct Running<bf16> {
  using sum = double;
  using out = bf16;
};

KERF_INLINE void put_sum(float* p, double x) { *p = static_cast<float>(x); }
KERF_INLINE void put_sum(f16* p, double x) { *p = kerf::to_f16(static_cast<float>(x)); }
KERF_INLINE void put_sum(bf16* p, double x) { *p = kerf::to_bf16(static_cast<float>(x)); }
KERF_INLINE void put_sum(int64_t* p, int64_t x) { *p = x; }
KERF_INLINE void add_one(double& s, float x) { s += static_cast<double>(x); }
KERF_INLINE void add_one(double& s, f16 x) { s += static_cast<double>(kerf::to_float(x)); }
KERF_INLINE void add_one(double& s, bf16 x) { s += static_cast<double>(kerf::to_float(x)); }
KERF_INLINE void add_one(int64_t& s, int64_t x) {
  s = static_cast<int64_t>(static_cast<uint64_t>(s) + static_cast<uint64_t>(x));
}

template <class T, int lines>
KERF_INLINE void cumsum_lines(int64_t n, typename Running<T>::out* y, int64_t out_step, int64_t out_column, const T* x,
                              int64_t a_step, int64_t a_column) {
  typename Running<T>::sum s[lines] = {};
  for (int64_t i = 0; i < n; i++, x += a_step, y += out_step)
    for (int j = 0; j < lines; j++) {
      add_one(s[j], x[j * a_column]);
      put_sum(y + j * out_column, s[j]);
    }
}

template <class T>
void cumsum(int64_t n, int64_t columns, void* out, int64_t out_step, int64_t out_column, const void* a, int64_t a_step,
            int64_t a_column) {
  int64_t c = 0;
  auto run = [&](auto block) {
    constexpr int lines = decltype(block)::count;
    for (; c + lines <= columns; c += lines)
      cumsum_lines<T, lines>(n, static_cast<typename Running<T>::out*>(out) + c * out_column, out_step, out_column,
                             static_cast<const T*>(a) + c * a_column, a_step, a_column);
  };
  run(Vectors<16>{});  // a cache line of float32 in each step
  run(Vectors<4>{});
  run(Vectors<1>{});
}

// ---- the row of the table

template <class T>
void install_reduce_float(Kernels& row, DType dtype) {
  int d = static_cast<int>(dtype);
  row.sum[d] = sum_float<T>;
  row.sum_columns[d] = sum_columns_float<T>;
  row.max[d] = extreme_float<true, T>;
  row.min[d] = extreme_float<false, T>;
  row.max_columns[d] = extreme_columns_float<true, T>;
  row.min_columns[d] = extreme_columns_float<false, T>;
  row.argmax[d] = arg_float<true, T>;
  row.argmin[d] = arg_float<false, T>;
  row.argmax_columns[d] = arg_columns<true, T>;
  row.argmin_columns[d] = arg_columns<false, T>;
  row.moments[d] = moments_float<T>;
  row.moments_columns[d] = moments_columns_float<T>;
  row.cumsum[d] = cumsum<T>;
}

template <class T>
void install_reduce_int(Kernels& row, DType dtype) {
  int d = static_cast<int>(dtype);
  row.sum[d] = sum_int<T>;
  row.sum_columns[d] = sum_columns_int<T>;
  row.max[d] = extreme_int<true, T>;
  row.min[d] = extreme_int<false, T>;
  row.max_columns[d] = extreme_columns_int<true, T>;
  row.min_columns[d] = extreme_columns_int<false, T>;
  row.argmax[d] = arg_int<true, T>;
  row.argmin[d] = arg_int<false, T>;
  row.argmax_columns[d] = arg_columns<true, T>;
  row.argmin_columns[d] = arg_columns<false, T>;
  row.cumsum[d] = cumsum<T>;
}

KERF_INLINE void install_reduce(Kernels& row) {
  install_reduce_float<float>(row, DType::float32_);
  install_reduce_float<f16>(row, DType::float16_);
  install_reduce_float<bf16>(row, DType::bfloat16_);
  install_reduce_int<int8_t>(row, DType::int8_);
  install_reduce_int<uint8_t>(row, DType::uint8_);
  install_reduce_int<int32_t>(row, DType::int32_);
  install_reduce_int<int64_t>(row, DType::int64_);
  install_reduce_int<uint8_t>(row, DType::bool_);
}

}  // namespace kerf::KERF_TARGET
