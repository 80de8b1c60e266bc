// Pooling on contiguous [planes, h, w]: a thread an output, and for the gradients a thread an input, which gathers from the
// windows that it is in, in their order.
#pragma once
#include "elements.cuh"

namespace kerf {
namespace cuda {

CU_FUNCTION int divide_up(int a, int b) { return (a + b - 1) / b; }  // of a >= 0

// An axis of a maximum's windows: window o begins at o * stride - pad and has an element every `dilation` inputs.
struct MaxAxis {
  int in, out, kernel, stride, pad, dilation;

  CU_FUNCTION int start(int o) const { return o * stride - pad; }
  // The taps of window o that lie inside are [first_tap, end_tap).
  CU_FUNCTION int first_tap(int o) const { return start(o) < 0 ? divide_up(-start(o), dilation) : 0; }
  CU_FUNCTION int end_tap(int o) const {
    const int end = start(o) < in ? divide_up(in - start(o), dilation) : 0;
    return end < kernel ? end : kernel;
  }
  // The windows that reach from before input i to behind it are [first_window, end_window).
  CU_FUNCTION int first_window(int i) const {
    const int before = i + pad - (kernel - 1) * dilation;
    return before > 0 ? divide_up(before, stride) : 0;
  }
  CU_FUNCTION int end_window(int i) const {
    const int last = (i + pad) / stride;
    return last < out ? last + 1 : out;
  }
  // Which tap of window o input i is; -1: it lies between them.
  CU_FUNCTION int tap(int o, int i) const {
    const int off = i - start(o);
    return off % dilation ? -1 : off / dilation;
  }
};

// A place on a plane, and which one.
struct Place {
  int y, x;
  uint32_t plane;
  CU_FUNCTION Place(uint32_t i, int h, int w)
      : y(static_cast<int>(i / w % h)), x(static_cast<int>(i % w)), plane(i / w / h) {}
};

// The maximum, NaN where there is one. taps, unless null: the first of equal ones, -1 where the window has no element.
template <class A>
__global__ void max_pool(uint32_t n, MaxAxis h, MaxAxis w, A out, int32_t* taps, A a) {
  for (uint32_t i = first_element(); i < n; i += element_step()) {
    const Place o(i, h.out, w.out);
    const int64_t plane = static_cast<int64_t>(o.plane) * h.in * w.in;
    float best = -INFINITY;
    int where = -1;
    for (int r = h.first_tap(o.y); r < h.end_tap(o.y); r++) {
      const int64_t row = plane + static_cast<int64_t>(h.start(o.y) + r * h.dilation) * w.in;
      for (int s = w.first_tap(o.x); s < w.end_tap(o.x); s++) {
        const float v = a.get(row + w.start(o.x) + s * w.dilation);
        if (where >= 0 && !(v > best) && !(v != v && best == best)) continue;
        best = v;
        where = r * w.kernel + s;
      }
    }
    out.put(i, best);
    if (taps) cu::store_global(taps + i, where);
  }
}

template <class A>
__global__ void max_pool_grad(uint32_t n, MaxAxis h, MaxAxis w, A da, A grad, const int32_t* taps) {
  for (uint32_t i = first_element(); i < n; i += element_step()) {
    const Place at(i, h.in, w.in);
    float sum = 0.0f;
    for (int y = h.first_window(at.y); y < h.end_window(at.y); y++) {
      const int r = h.tap(y, at.y);
      if (r < 0) continue;
      const int64_t row = (static_cast<int64_t>(at.plane) * h.out + y) * w.out;
      for (int x = w.first_window(at.x); x < w.end_window(at.x); x++) {
        const int s = w.tap(x, at.x);
        if (s >= 0 && cu::load_global(taps + row + x) == r * w.kernel + s) sum += grad.get(row + x);
      }
    }
    da.put(i, sum);
  }
}

// An axis of averages: window o is the inputs [begin, end), and counts as `count` of them.
struct RegularAxis {
  int in, out, kernel, stride, pad;
  bool pads;  // the padding counts, but not what lies beyond it

  CU_FUNCTION int begin(int o) const { return o * stride > pad ? o * stride - pad : 0; }
  CU_FUNCTION int end(int o) const { return o * stride - pad + kernel < in ? o * stride - pad + kernel : in; }
  CU_FUNCTION float count(int o) const {
    const int from = o * stride - pad, to = from + kernel < in + pad ? from + kernel : in + pad;
    return static_cast<float>(pads ? to - from : end(o) - begin(o));
  }
  CU_FUNCTION int first_window(int i) const { return i + pad >= kernel ? (i + pad - kernel) / stride + 1 : 0; }
  CU_FUNCTION int end_window(int i) const {
    const int last = (i + pad) / stride;
    return last < out ? last + 1 : out;
  }
};
struct AdaptiveAxis {
  int in, out;

  CU_FUNCTION int begin(int o) const { return static_cast<int>(static_cast<int64_t>(o) * in / out); }
  CU_FUNCTION int end(int o) const { return static_cast<int>((static_cast<int64_t>(o + 1) * in + out - 1) / out); }
  CU_FUNCTION float count(int o) const { return static_cast<float>(end(o) - begin(o)); }
  // end(o) > i where o + 1 > i * out / in; begin(o) <= i where o < (i + 1) * out / in
  CU_FUNCTION int first_window(int i) const { return static_cast<int>(static_cast<int64_t>(i) * out / in); }
  CU_FUNCTION int end_window(int i) const { return static_cast<int>((static_cast<int64_t>(i + 1) * out + in - 1) / in); }
};

template <class Axis, class A>
__global__ void avg_pool(uint32_t n, Axis h, Axis w, A out, A a) {
  for (uint32_t i = first_element(); i < n; i += element_step()) {
    const Place o(i, h.out, w.out);
    const int64_t plane = static_cast<int64_t>(o.plane) * h.in * w.in;
    float sum = 0.0f;
    for (int y = h.begin(o.y); y < h.end(o.y); y++)
      for (int x = w.begin(o.x); x < w.end(o.x); x++) sum += a.get(plane + static_cast<int64_t>(y) * w.in + x);
    out.put(i, sum / (h.count(o.y) * w.count(o.x)));
  }
}

template <class Axis, class A>
__global__ void avg_pool_grad(uint32_t n, Axis h, Axis w, A da, A grad) {
  for (uint32_t i = first_element(); i < n; i += element_step()) {
    const Place at(i, h.in, w.in);
    float sum = 0.0f;
    for (int y = h.first_window(at.y); y < h.end_window(at.y); y++) {
      const int64_t row = (static_cast<int64_t>(at.plane) * h.out + y) * w.out;
      for (int x = w.first_window(at.x); x < w.end_window(at.x); x++) sum += grad.get(row + x) / (h.count(y) * w.count(x));
    }
    da.put(i, sum);
  }
}

}  // namespace cuda
}  // namespace kerf
