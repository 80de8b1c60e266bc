// Reading and adding at indices along one axis.
#pragma once
#include "elements.cuh"

namespace kerf {
namespace cuda {

// How far a's (or out's) elements on the indexed axis lie apart, and how many there are. Negative indices count from the end.
struct IndexedAxis {
  int64_t step, size;
  Fault fault;
  // False: outside, which is reported with the number of the index.
  CU_FUNCTION bool place(int64_t index, uint32_t number, int64_t& offset) const {
    if (index < -size || index >= size) {
      cu::atomic_min(fault.word, fault.launch << 32 | number);
      return false;
    }
    offset = (index < 0 ? index + size : index) * step;
    return true;
  }
};

// out, a without the indexed axis, index (int64), number of the index; elements are moved as the unsigned type T.
template <class T>
__global__ void take(uint32_t n, Layout<4> layout, T* out, const T* a, const long long* index, IndexedAxis axis) {
  for (uint32_t i = first_element(); i < n; i += element_step()) {
    int64_t at[4];
    locate(layout, i, at);
    int64_t from;
    const bool inside = axis.place(cu::load_global(index + at[2]), static_cast<uint32_t>(at[3]), from);
    cu::store_global(out + at[0], inside ? cu::load_global(a + at[1] + from) : T(0));
  }
}

// One line along the index axis: how often, and the strides of a, index and its number there.
struct IndexLine {
  uint32_t length;
  int64_t a, index, number;
};

// out without the indexed axis, a, index, number. A thread adds along the index axis in order, so sums are the same every time;
// others have other places of out.
template <class Out, class A>
__global__ void add_at(uint32_t lines, Layout<4> layout, Out out, A a, const long long* index, IndexedAxis axis, IndexLine line) {
  for (uint32_t l = first_element(); l < lines; l += element_step()) {
    int64_t at[4];
    locate(layout, l, at);
    for (uint32_t i = 0; i < line.length; i++) {
      int64_t to;
      const auto number = static_cast<uint32_t>(at[3] + i * line.number);
      if (axis.place(cu::load_global(index + at[2] + i * line.index), number, to))
        out.put(at[0] + to, out.own(at[0] + to) + a.get(at[1] + i * line.a));
    }
  }
}

}  // namespace cuda
}  // namespace kerf
