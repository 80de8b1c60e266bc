// Loops over a run of n elements in vectors of W lanes, the remainder included, and sums along it. A body sees a run as
// vectors: it is called with the position and with how much of the vector is there (All or Some), and reads and writes
// through get() and put().
//
// Include it after a target's simd.h.
#pragma once
#include "../core/target.h"

namespace kerf::KERF_TARGET {

struct All {};
struct Some {
  int64_t n;
};  // 0 < n < W lanes

template <class T>
KERF_INLINE vf get(const T* p, All) {
  return load(p);
}
template <class T>
KERF_INLINE vf get(const T* p, Some lanes) {
  return load_n(p, lanes.n);
}
template <class T>
KERF_INLINE void put(T* p, vf x, All) {
  store(p, x);
}
template <class T>
KERF_INLINE void put(T* p, vf x, Some lanes) {
  store_n(p, x, lanes.n);
}

// x in the lanes that are there, `other` beyond them.
KERF_INLINE vf keep(vf x, vf, All) { return x; }
KERF_INLINE vf keep(vf x, vf other, Some lanes) {
  alignas(64) static const float kNumbers[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  return select(lt(load(kNumbers), set1(static_cast<float>(lanes.n))), x, other);
}

KERF_INLINE float one(float x) { return x; }
KERF_INLINE float one(f16 x) { return kerf::to_float(x); }
KERF_INLINE float one(bf16 x) { return kerf::to_float(x); }
KERF_INLINE void put_one(float* p, float x) { *p = x; }
KERF_INLINE void put_one(f16* p, float x) { *p = kerf::to_f16(x); }
KERF_INLINE void put_one(bf16* p, float x) { *p = kerf::to_bf16(x); }

// Four independent chains hide an addition's latency (4 cycles, two a cycle, and loads to wait for).
constexpr int kChains = 4;

// A lane adds at most 32 values a chain before float64 takes over: the error of a sum of any length stays below
// (32 + log2(4 W)) / 2 ulp of the sum of magnitudes, whatever the target.
constexpr int64_t kFold = 32 * kChains * W;

template <class Body>
KERF_INLINE void for_vectors(int64_t n, Body body) {
  int64_t i = 0;
  for (; i + W <= n; i += W) body(i, All{});
  if (i < n) body(i, Some{n - i});
}

// The same with the number of the chain that this vector belongs to.
template <class Body>
KERF_INLINE void for_chains(int64_t n, Body body) {
  int64_t i = 0;
  for (; i + kChains * W <= n; i += kChains * W) {
    body(i, 0, All{});
    body(i + W, 1, All{});
    body(i + 2 * W, 2, All{});
    body(i + 3 * W, 3, All{});
  }
  for (; i + W <= n; i += W) body(i, 0, All{});
  if (i < n) body(i, 1, Some{n - i});
}

KERF_INLINE float reduce_add(const vf (&s)[kChains]) { return reduce_add(add(add(s[0], s[1]), add(s[2], s[3]))); }

// The sum of term(i, lanes) over the run. Lanes that are not there do not count.
template <class Term>
KERF_INLINE double sum_of(int64_t n, Term term) {
  double total = 0;
  for (int64_t start = 0; start < n; start += kFold) {
    vf s[kChains] = {set1(0.0f), set1(0.0f), set1(0.0f), set1(0.0f)};
    for_chains(n - start < kFold ? n - start : kFold, [&](int64_t i, int chain, auto lanes) {
      s[chain] = add(s[chain], keep(term(start + i, lanes), set1(0.0f), lanes));
    });
    total += static_cast<double>(reduce_add(s));
  }
  return total;
}

// Two sums in one pass: term(i, lanes) answers Two{x, y}.
struct Two {
  vf x, y;
};
struct Sums {
  double x, y;
};
template <class Term>
KERF_INLINE Sums sums_of(int64_t n, Term term) {
  Sums total = {0, 0};
  for (int64_t start = 0; start < n; start += kFold) {
    vf s[kChains] = {set1(0.0f), set1(0.0f), set1(0.0f), set1(0.0f)};
    vf t[kChains] = {set1(0.0f), set1(0.0f), set1(0.0f), set1(0.0f)};
    for_chains(n - start < kFold ? n - start : kFold, [&](int64_t i, int chain, auto lanes) {
      Two two = term(start + i, lanes);
      s[chain] = add(s[chain], keep(two.x, set1(0.0f), lanes));
      t[chain] = add(t[chain], keep(two.y, set1(0.0f), lanes));
    });
    total.x += static_cast<double>(reduce_add(s));
    total.y += static_cast<double>(reduce_add(t));
  }
  return total;
}

// ---- columns: rows of contiguous columns, folded downwards

constexpr int kBlock = 4;      // vectors of columns held in registers
constexpr int64_t kRows = 64;  // rows added in float32 before float64 takes over

template <int n>
struct Vectors {
  static constexpr int count = n;
};

// Calls body(first column, lanes, vectors): wide blocks first, then single vectors, then the remainder.
template <class Body>
KERF_INLINE void for_column_blocks(int64_t columns, Body body) {
  int64_t c = 0;
  for (; c + kBlock * W <= columns; c += kBlock * W) body(c, All{}, Vectors<kBlock>{});
  for (; c + W <= columns; c += W) body(c, All{}, Vectors<1>{});
  if (c < columns) body(c, Some{columns - c}, Vectors<1>{});
}

KERF_INLINE int64_t lane_count(All) { return W; }
KERF_INLINE int64_t lane_count(Some lanes) { return lanes.n; }

template <class Lanes>
KERF_INLINE void add_to(double* totals, vf x, Lanes lanes) {
  alignas(64) float values[W];
  store(values, x);
  for (int64_t i = 0; i < lane_count(lanes); i++) totals[i] += static_cast<double>(values[i]);
}

}  // namespace kerf::KERF_TARGET
