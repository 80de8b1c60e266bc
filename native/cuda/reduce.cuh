// Reductions over any axes. A Fold says what: State start, add(state, value, position), merge(state, state), finish.
//
// Where the innermost reduced axis is dense, a block reduces one output at a time; else neighbouring threads take neighbouring
// outputs and walk the reduced axes alone, so that what a warp reads lies together.
#pragma once
#include "block.cuh"

namespace kerf {
namespace cuda {

// Totals of floats are float64, of integers int64: rounded once, whatever the order.
struct SumFloats {
  using State = double;
  double scale;  // 1, or 1 / n for a mean
  CU_FUNCTION State start() const { return 0; }
  template <class A> CU_FUNCTION State add(State s, const A& a, int64_t at, uint32_t) const { return s + static_cast<double>(a.get(at)); }
  CU_FUNCTION State merge(State a, State b) const { return a + b; }
  template <class Out> CU_FUNCTION void finish(const Out& out, int64_t at, State s) const { out.put(at, static_cast<float>(s / scale)); }
};
struct SumIntegers {
  using State = int64_t;
  CU_FUNCTION State start() const { return 0; }
  template <class A> CU_FUNCTION State add(State s, const A& a, int64_t at, uint32_t) const {
    return merge(s, a.dtype == DType::bool_ ? a.get(at) != 0 : a.get(at));
  }
  CU_FUNCTION State merge(State a, State b) const {
    return static_cast<int64_t>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b));
  }
  template <class Out> CU_FUNCTION void finish(const Out& out, int64_t at, State s) const { out.put(at, s); }
};

// Mean and sum of squares about it, joined as Chan, Golub and LeVeque (1979) join them: large, close numbers do not cancel.
struct Spread {
  double n, mean, squares, unused;  // whole 16 bytes: shared memory is read in one piece
};
struct Variance {
  using State = Spread;
  double divisor;
  CU_FUNCTION State start() const { return {0, 0, 0, 0}; }
  template <class A> CU_FUNCTION State add(State s, const A& a, int64_t at, uint32_t) const {
    return merge(s, State{1, static_cast<double>(a.get(at)), 0, 0});
  }
  CU_FUNCTION State merge(State a, State b) const {
    if (a.n == 0) return b;
    if (b.n == 0) return a;
    const double n = a.n + b.n, off = b.mean - a.mean;
    return {n, a.mean + off * (b.n / n), a.squares + b.squares + off * off * (a.n * b.n / n), 0};
  }
  template <class Out> CU_FUNCTION void finish(const Out& out, int64_t at, State s) const {
    out.put(at, s.n == 0 ? NAN : static_cast<float>(s.squares / (divisor > 0 ? divisor : 0)));
  }
};

// The extreme and where it is: the first of equal ones, NaN beats everything.
template <class Value>
struct Best {
  Value value;
  uint32_t position;  // ~0: nothing yet
};
template <class Value, bool highest, bool position>
struct Extreme {
  using State = Best<Value>;
  CU_FUNCTION State start() const { return {Value{0}, ~0u}; }
  template <class A> CU_FUNCTION State add(State s, const A& a, int64_t at, uint32_t i) const { return merge(s, State{a.get(at), i}); }
  CU_FUNCTION State merge(State a, State b) const {
    if (b.position == ~0u) return a;
    if (a.position == ~0u) return b;
    const bool a_nan = a.value != a.value, b_nan = b.value != b.value;
    if (a_nan || b_nan) return a_nan && (!b_nan || a.position < b.position) ? a : b;
    if (a.value == b.value) return a.position < b.position ? a : b;
    return (a.value > b.value) == highest ? a : b;
  }
  template <class Out> CU_FUNCTION void finish(const Out& out, int64_t at, State s) const {
    if (position)
      out.put(at, static_cast<int64_t>(s.position));
    else
      out.put(at, s.value);
  }
};

// kept: out, a over the outputs; reduced: a alone. CU_GRID_CONSTANT: else nvcc copies them to local memory.
template <class Fold, class Out, class A>
__global__ void reduce_rows(uint32_t outputs, uint32_t n, CU_GRID_CONSTANT Layout<2> kept, CU_GRID_CONSTANT Layout<1> reduced,
                            Out out, A a, Fold how) {
  uint8_t* const slots = cu::shared_memory();
  for (uint32_t o = blockIdx.x; o < outputs; o += gridDim.x) {
    int64_t at[2];
    locate(kept, o, at);
    typename Fold::State state = how.start();
    for (uint32_t i = threadIdx.x; i < n; i += blockDim.x) {
      int64_t in[1];
      locate(reduced, i, in);
      state = how.add(state, a, at[1] + in[0], i);
    }
    state = fold(state, slots, [&](typename Fold::State x, typename Fold::State y) { return how.merge(x, y); });
    if (threadIdx.x == 0) how.finish(out, at[0], state);
  }
}

template <class Fold, class Out, class A>
__global__ void reduce_columns(uint32_t outputs, uint32_t n, CU_GRID_CONSTANT Layout<2> kept, CU_GRID_CONSTANT Layout<1> reduced,
                               Out out, A a, Fold how) {
  for (uint32_t o = first_element(); o < outputs; o += element_step()) {
    int64_t at[2];
    locate(kept, o, at);
    typename Fold::State state = how.start();
    for (uint32_t i = 0; i < n; i++) {
      int64_t in[1];
      locate(reduced, i, in);
      state = how.add(state, a, at[1] + in[0], i);
    }
    how.finish(out, at[0], state);
  }
}

// The sums of the first 1, 2, 3, ... elements of every line.
__global__ void running_sums(uint32_t lines, uint32_t length, Layout<2> layout, Anything out, int64_t step_out, Anything a,
                             int64_t step_a) {
  for (uint32_t line = first_element(); line < lines; line += element_step()) {
    int64_t at[2];
    locate(layout, line, at);
    double sum = 0;
    int64_t whole = 0;
    for (uint32_t i = 0; i < length; i++) {
      if (a.floating()) {
        sum += static_cast<double>(a.get_float(at[1] + i * step_a));
        out.put_float(at[0] + i * step_out, static_cast<float>(sum));
      } else {
        whole = static_cast<int64_t>(static_cast<uint64_t>(whole) + static_cast<uint64_t>(a.get_integer(at[1] + i * step_a)));
        out.put(at[0] + i * step_out, whole);
      }
    }
  }
}

}  // namespace cuda
}  // namespace kerf
