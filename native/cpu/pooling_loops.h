// Pooling on one contiguous plane. A window is a rectangle, so its maximum or sum is that of its columns': the rows of an
// output row's windows are folded first, over whole vectors of columns, and then each window's columns. For a stride
// above 1 the folded row is dealt out to `stride` phases in between (columns 0, s, 2s, ... then 1, s + 1, ...), so that the
// second fold reads neighbours too.
//
// Padding is columns that never win (-infinity) or count (0) around the folded row, and rows that are left out. Where windows share
// no column, a phase has exactly the outputs' length, and the maximum takes several output rows as one: short rows would leave most
// lanes of a vector idle.
#pragma once
#include "plane_sum.h"

namespace kerf::KERF_TARGET {

// The folded row with its padding (or several, one after the other), as phases: element i * stride + r of the row is at [r][i].
struct Phases {
  int64_t stride, length;
  float* at;

  Phases(const PoolAxis& columns, float* memory, int64_t rows = 1)
      : stride(columns.stride), length(rows * ((kerf::span(columns) + columns.stride - 1) / columns.stride)), at(memory) {}
  int64_t size() const { return stride * length; }

  // From a row of size() elements.
  void deal(const float* row) const {
    if (stride == 2) {
      float *even = at, *odd = at + length;
      for (int64_t i = 0; i < length; i++) {
        even[i] = row[2 * i];
        odd[i] = row[2 * i + 1];
      }
      return;
    }
    for (int64_t r = 0; r < stride; r++)
      for (int64_t i = 0; i < length; i++) at[r * length + i] = row[i * stride + r];
  }

  // Back to a row of size() elements.
  void gather(float* row) const {
    if (stride == 2) {
      const float *even = at, *odd = at + length;
      for (int64_t i = 0; i < length; i++) {
        row[2 * i] = even[i];
        row[2 * i + 1] = odd[i];
      }
      return;
    }
    for (int64_t r = 0; r < stride; r++)
      for (int64_t i = 0; i < length; i++) row[i * stride + r] = at[r * length + i];
  }

  // Calls body(start of the neighbours that are tap k of the outputs) for every tap along the row.
  template <class Body>
  void taps(const PoolAxis& columns, Body body) const {
    int64_t turn = columns.dilation % stride, step = columns.dilation / stride;
    int64_t phase = 0, first = 0;
    for (int64_t k = 0; k < columns.kernel; k++) {
      body(k, phase * length + first);
      phase += turn;
      first += step;
      if (phase >= stride) {
        phase -= stride;
        first++;
      }
    }
  }
};

// Which of a window's rows lie in the plane: taps [first, end), the first of them at input row `at`.
struct Inside {
  int64_t first, end, at;

  Inside(const PoolAxis& rows, int64_t o) {
    int64_t start = o * rows.stride - rows.pad;
    first = start < 0 ? (-start + rows.dilation - 1) / rows.dilation : 0;
    at = start + first * rows.dilation;
    end = at >= rows.in ? first : first + (rows.in - 1 - at) / rows.dilation + 1;
    if (end > rows.kernel) end = rows.kernel;
  }
};

KERF_INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

KERF_INLINE void put_i(int32_t* p, vi x, All) { store_i(p, x); }
KERF_INLINE void put_i(int32_t* p, vi x, Some lanes) {
  alignas(64) int32_t values[W];
  store_i(values, x);
  for (int64_t i = 0; i < lanes.n; i++) p[i] = values[i];
}

// The number of a tap that is not there: above any that is (2^24), and a float like those.
constexpr float kNowhere = 0x1p25f;

// v is larger than best, or is NaN and best is not.
KERF_INLINE vm beats(vf v, vf best) { return mask_and(mask_not(le(v, best)), eq(best, best)); }

// The maximum of every window, NaN where there is one. With Taps, also the number of the tap (down, then across) where it
// was found: the first of equal ones, -1 where the window has no element.
template <bool Taps, class T>
void max_pool(const PoolAxis& rows, const PoolAxis& columns, void* out, int32_t* taps, const void* a, float* spare) {
  const T* x = static_cast<const T*>(a);
  T* y = static_cast<T*>(out);
  const vf lowest = set1(-__builtin_inff());
  const int64_t together = rows_together(rows, columns);
  Phases value(columns, spare, together);
  const int64_t size = value.size(), row_size = size / together;
  Phases tap(columns, spare + size, together);
  bool strided = columns.stride > 1;
  float* best_row = strided ? spare + 2 * size : value.at;
  float* tap_row = strided ? spare + 3 * size : tap.at;
  for (int64_t i = 0; i < size; i++) {
    best_row[i] = -__builtin_inff();
    if (Taps) tap_row[i] = kNowhere;
  }
  int64_t wide = least(columns.in, row_size - columns.pad);
  int64_t row = rows.dilation * columns.in;
  const auto fold = [&](int64_t o, int64_t to) {
    Inside in(rows, o);
    const T* top = x + (in.end > in.first ? in.at : 0) * columns.in;
    for_vectors(wide, [&](int64_t i, auto lanes) {
      vf best = lowest, where = set1(kNowhere);
      const T* p = top + i;
      for (int64_t k = in.first; k < in.end; k++, p += row) {
        const vf v = get(p, lanes), number = set1(static_cast<float>(k * columns.kernel));
        const vm better = k == in.first ? eq(number, number) : beats(v, best);
        if (Taps) where = select(better, number, where);
        best = select(better, v, best);
      }
      put(best_row + to + columns.pad + i, best, lanes);
      if (Taps) put(tap_row + to + columns.pad + i, where, lanes);
    });
  };
  for (int64_t o = 0; o < rows.out; o += together) {
    const int64_t number = least(together, rows.out - o), outputs = number * columns.out;
    for (int64_t r = 0; r < number; r++) fold(o + r, r * row_size);
    if (strided) value.deal(best_row);
    if (strided && Taps) tap.deal(tap_row);
    for_vectors(outputs, [&](int64_t i, auto lanes) {
      vf best = lowest, where = set1(kNowhere);
      value.taps(columns, [&](int64_t k, int64_t start) {
        const vf v = get(value.at + start + i, lanes);
        vm better = beats(v, best);
        if constexpr (Taps) {
          const vf number = add(get(tap.at + start + i, lanes), set1(static_cast<float>(k)));
          const vm same = mask_not(mask_or(better, beats(best, v)));
          better = mask_or(better, mask_and(same, lt(number, where)));
          where = select(better, number, where);
        }
        best = select(better, v, best);
      });
      put(y + i, best, lanes);
      if constexpr (Taps) {
        put_i(taps + i, to_int(select(lt(where, set1(kNowhere)), where, set1(-1.0f))), lanes);
      }
    });
    y += outputs;
    if (Taps) taps += outputs;
  }
}

// Windows of two next to each other.
inline bool pairs(const PoolAxis& a) { return a.kernel == 2 && a.stride == 2 && a.pad == 0 && a.dilation == 1; }

// offsets: where each tap lies from the first one, in elements of the plane. Numbers that maxPool2d never wrote go nowhere.
template <class T>
void max_pool_grad(const PoolAxis& rows, const PoolAxis& columns, void* da, const void* grad, const int32_t* taps,
                   const int64_t* offsets, float* spare) {
  const T* g = static_cast<const T*>(grad);
  int64_t size = rows.in * columns.in, area = rows.kernel * columns.kernel;
  PlaneSum<T> sum(da, spare, size);
  if (pairs(rows) && pairs(columns)) {  // every element is in one window: nothing to look up, nothing to add
    for (int64_t o = 0; o < rows.out; o++, g += columns.out, taps += columns.out) {
      float* to = sum.at + 2 * o * columns.in;
      for (int64_t i = 0; i < columns.out; i++, to += 2)
        if (const auto tap = static_cast<uint32_t>(taps[i]); tap < 4) to[tap % 2 + tap / 2 * columns.in] = one(g[i]);
    }
    return sum.round();
  }
  for (int64_t o = 0; o < rows.out; o++) {
    int64_t start = (o * rows.stride - rows.pad) * columns.in - columns.pad;
    for (int64_t i = 0; i < columns.out; i++, start += columns.stride) {
      if (taps[i] < 0 || taps[i] >= area) continue;
      int64_t at = start + offsets[taps[i]];
      if (at >= 0 && at < size) sum.at[at] += one(g[i]);
    }
    g += columns.out;
    taps += columns.out;
  }
  sum.round();
}

// The sum of every window's elements over its count, which is that of its rows times that of its columns.
template <class T>
void avg_pool(const PoolAxis& rows, const PoolAxis& columns, void* out, const void* a, float* spare) {
  const T* x = static_cast<const T*>(a);
  T* y = static_cast<T*>(out);
  Phases phases(columns, spare);
  int64_t size = columns.regular ? phases.size() : columns.in;
  int64_t pad = columns.regular ? columns.pad : 0;
  float* sums = columns.regular && columns.stride > 1 ? spare + size : spare;
  for (int64_t i = 0; i < size; i++) sums[i] = 0;
  int64_t wide = least(columns.in, size - pad);
  for (int64_t o = 0; o < rows.out; o++) {
    const T* top = x + rows.begin[o] * columns.in;
    int64_t height = rows.end[o] - rows.begin[o];
    for_vectors(wide, [&](int64_t i, auto lanes) {
      vf sum = set1(0.0f);
      const T* p = top + i;
      for (int64_t k = 0; k < height; k++, p += columns.in) sum = add(sum, get(p, lanes));
      put(sums + pad + i, sum, lanes);
    });
    if (columns.regular) {
      if (columns.stride > 1) phases.deal(sums);
      vf count = set1(rows.count[o]);
      for_vectors(columns.out, [&](int64_t i, auto lanes) {
        vf sum = set1(0.0f);
        phases.taps(columns, [&](int64_t, int64_t start) { sum = add(sum, get(phases.at + start + i, lanes)); });
        put(y + i, div(sum, mul(count, get(columns.count + i, lanes))), lanes);
      });
    } else {
      for (int64_t i = 0; i < columns.out; i++) {
        float sum = 0;
        for (int64_t c = columns.begin[i]; c < columns.end[i]; c++) sum += sums[c];
        put_one(y + i, sum / (rows.count[o] * columns.count[i]));
      }
    }
    y += columns.out;
  }
}

// Every element gets the gradient over the count of each window that it is in: windows that share a row are added first,
// then those that share a column.
template <class T>
void avg_pool_grad(const PoolAxis& rows, const PoolAxis& columns, void* da, const void* grad, float* spare) {
  const T* g = static_cast<const T*>(grad);
  T* d = static_cast<T*>(da);
  Phases phases(columns, spare + columns.out);
  bool strided = columns.regular && columns.stride > 1;
  int64_t size = columns.regular ? phases.size() : columns.in;
  float *windows = spare, *line = strided ? phases.at + size : phases.at;
  // Columns behind the last window get nothing.
  int64_t pad = columns.regular ? columns.pad : 0, wide = least(columns.in, size - pad);
  int64_t first = 0, end = 0;
  bool known = false;
  for (int64_t r = 0; r < rows.in; r++, d += columns.in) {
    int64_t old_first = first, old_end = end;
    while (first < rows.out && rows.end[first] <= r) first++;
    if (end < first) end = first;
    while (end < rows.out && rows.begin[end] <= r) end++;
    if (!known || first != old_first || end != old_end) {
      for_vectors(columns.out, [&](int64_t i, auto lanes) {
        vf sum = set1(0.0f);
        for (int64_t o = first; o < end; o++)
          sum = add(sum, div(get(g + o * columns.out + i, lanes), mul(set1(rows.count[o]), get(columns.count + i, lanes))));
        put(windows + i, sum, lanes);
      });
      for (int64_t i = 0; i < size; i++) phases.at[i] = 0;
      if (columns.regular) {
        phases.taps(columns, [&](int64_t, int64_t start) {
          float* to = phases.at + start;
          for_vectors(columns.out, [&](int64_t i, auto lanes) {
            put(to + i, add(get(to + i, lanes), get(windows + i, lanes)), lanes);
          });
        });
        if (strided) phases.gather(line);
      } else {
        for (int64_t i = 0; i < columns.out; i++)
          for (int64_t c = columns.begin[i]; c < columns.end[i]; c++) line[c] += windows[i];
      }
      known = true;
    }
    for_vectors(wide, [&](int64_t i, auto lanes) { put(d + i, get(line + pad + i, lanes), lanes); });
    for (int64_t i = wide; i < columns.in; i++) put_one(d + i, 0);
  }
}

template <class T>
void install_pooling(Kernels& row, DType dtype) {
  int d = static_cast<int>(dtype);
  row.max_pool[d] = max_pool<false, T>;
  row.max_pool_taps[d] = max_pool<true, T>;
  row.max_pool_grad[d] = max_pool_grad<T>;
  row.avg_pool[d] = avg_pool<T>;
  row.avg_pool_grad[d] = avg_pool_grad<T>;
}

}  // namespace kerf::KERF_TARGET
