// Resizing contiguous [planes, h, w]. A table says which input lines each output line lies between; it never falls, so an
// input's gradient gathers from the outputs that two searches in it find.
#pragma once
#include "../core/kernels.h"
#include "elements.cuh"

namespace kerf {
namespace cuda {

// One line of output: input low * (1 - weight) + input high * weight.
struct ResizeTable {
  int in, out;
  int* low;
  float* weight;

  CU_FUNCTION int high(int low_line) const { return low_line + 1 < in ? low_line + 1 : in - 1; }
  // The first output whose low line is `line` or a later one.
  CU_FUNCTION int first(int line) const {
    int begin = 0, end = out;
    while (begin < end) {
      const int middle = begin + (end - begin) / 2;
      if (cu::load_global(low + middle) < line)
        begin = middle + 1;
      else
        end = middle;
    }
    return begin;
  }
};

// Output line o lies at o * num / den, or (linear) at (o + 0.5) * num / den - 0.5.
__global__ void resize_lines(ResizeTable to, Resize mode, double num, double den) {
  for (uint32_t o = first_element(); o < static_cast<uint32_t>(to.out); o += element_step()) {
    const double at = static_cast<double>(o), last = static_cast<double>(to.in - 1);
    double source = mode == Resize::linear ? (at + 0.5) * num / den - 0.5 : at * num / den;
    source = source > 0 ? source : 0;  // NaN too
    source = source < last ? source : last;
    const int low = static_cast<int>(source);
    cu::store_global(to.low + o, low);
    cu::store_global(to.weight + o, mode == Resize::nearest ? 0.0f : static_cast<float>(source - static_cast<double>(low)));
  }
}

template <bool nearest, class A>
__global__ void resize_planes(uint32_t n, ResizeTable h, ResizeTable w, A out, A a) {
  for (uint32_t i = first_element(); i < n; i += element_step()) {
    const uint32_t row = i / w.out;
    const int y = static_cast<int>(row % h.out), x = static_cast<int>(i % w.out);
    const int top = cu::load_global(h.low + y), left = cu::load_global(w.low + x);
    const int64_t plane = static_cast<int64_t>(row / h.out) * h.in;
    auto at = [&](int line, int column) { return a.get((plane + line) * w.in + column); };
    if (nearest) {
      out.put(i, at(top, left));
      continue;
    }
    const float down = cu::load_global(h.weight + y), right = cu::load_global(w.weight + x);
    auto mixed = [&](int column) { return at(top, column) * (1 - down) + at(h.high(top), column) * down; };
    out.put(i, mixed(left) * (1 - right) + mixed(w.high(left)) * right);
  }
}

template <bool nearest, class A>
__global__ void resize_grad_planes(uint32_t n, ResizeTable h, ResizeTable w, A da, A grad) {
  for (uint32_t i = first_element(); i < n; i += element_step()) {
    const uint32_t line = i / w.in;
    const int y = static_cast<int>(line % h.in), x = static_cast<int>(i % w.in);
    const int64_t plane = static_cast<int64_t>(line / h.in) * h.out;
    // How much of output o is made of input `at`.
    auto share = [](const ResizeTable& t, int o, int at) {
      if (nearest) return 1.0f;
      const int low = cu::load_global(t.low + o);
      const float weight = cu::load_global(t.weight + o);
      return (low == at ? 1 - weight : 0.0f) + (t.high(low) == at ? weight : 0.0f);
    };
    const int before = nearest ? 0 : 1, end_y = h.first(y + 1), end_x = w.first(x + 1);
    float sum = 0.0f;
    for (int oy = h.first(y - before); oy < end_y; oy++) {
      float row = 0.0f;
      for (int ox = w.first(x - before); ox < end_x; ox++) row += grad.get((plane + oy) * w.out + ox) * share(w, ox, x);
      sum += row * share(h, oy, y);
    }
    da.put(i, sum);
  }
}

}  // namespace cuda
}  // namespace kerf
