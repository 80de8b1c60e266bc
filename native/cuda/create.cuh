// Kernels that make values, and copies: from any dtype to any, any strides.
#pragma once
#include "../core/element.h"
#include "../core/philox.h"
#include "elements.cuh"

namespace kerf {
namespace cuda {

// The same dtype: elements of the unsigned type T.
template <class T>
__global__ void move(uint32_t n, Layout<2> layout, T* out, const T* a) {
  for (uint32_t i = first_element(); i < n; i += element_step()) {
    int64_t at[2];
    locate(layout, i, at);
    cu::store_global(out + at[0], cu::load_own(a + at[1]));
  }
}

__global__ void convert(uint32_t n, Layout<2> layout, Anything out, Anything a) {
  for (uint32_t i = first_element(); i < n; i += element_step()) {
    int64_t at[2];
    locate(layout, i, at);
    if (a.floating())
      out.put(at[0], a.get_float(at[1]));
    else
      out.put(at[0], a.get_integer(at[1]));
  }
}

template <class T>
__global__ void fill_with(uint32_t n, CU_GRID_CONSTANT Layout<1> layout, T* out, T value) {
  for (uint32_t i = first_element(); i < n; i += element_step()) {
    int64_t at[1];
    locate(layout, i, at);
    cu::store_global(out + at[0], value);
  }
}

// Element number i is start + i * step: `exact` in int64, else in float64.
struct Range {
  double start, step;
  bool exact;
};

__global__ void count_up(uint32_t n, CU_GRID_CONSTANT Layout<1> layout, Anything out, Range range) {
  for (uint32_t i = first_element(); i < n; i += element_step()) {
    int64_t at[1];
    locate(layout, i, at);
    if (range.exact) {
      const auto first = static_cast<uint64_t>(static_cast<int64_t>(range.start));
      out.put(at[0], static_cast<int64_t>(first + i * static_cast<uint64_t>(static_cast<int64_t>(range.step))));
      continue;
    }
    const Element e = make_element(out.dtype, range.start + static_cast<double>(i) * range.step);
    if (!out.floating())
      out.put(at[0], integer_of(out.dtype, e));
    else
      out.put_float(at[0], out.dtype == DType::float32_ ? e.f32 : out.dtype == DType::float16_ ? to_float(e.h) : to_float(e.b));
  }
}

CU_FUNCTION uint32_t random_word(uint64_t seed, uint64_t number) {
  const Words words = philox(seed, number / 4);
  const uint64_t which = number % 4;  // no array indexed at run time: that would be local memory
  return which == 0 ? words.w[0] : which == 1 ? words.w[1] : which == 2 ? words.w[2] : words.w[3];
}

struct Uniform {
  uint64_t seed, offset;
  int bits;
  float base, span, last;
  CU_FUNCTION float operator()(uint32_t i) const {
    const float unit = 1.0f / static_cast<float>(1 << bits);
    const uint32_t word = random_word(seed, offset + i) >> (32 - bits);
    const float v = base + static_cast<float>(static_cast<int32_t>(word)) * unit * span;
    return v > last ? last : v;
  }
};

struct UniformInteger {
  uint64_t seed, offset;
  int64_t first;
  uint64_t span;
  CU_FUNCTION int64_t operator()(uint32_t i) const {
    return first + static_cast<int64_t>(random_word(seed, offset + i) * span >> 32);
  }
};

struct Normal {
  uint64_t seed, offset;
  float mean, scale;
  CU_FUNCTION float operator()(uint32_t i) const {
    const uint64_t number = offset + i, first = number - number % 2;
    float z[2];
    normal_pair(random_word(seed, first), random_word(seed, first + 1), z);
    return mean + scale * (number % 2 ? z[1] : z[0]);
  }
};

template <class Make>
__global__ void generate(uint32_t n, CU_GRID_CONSTANT Layout<1> layout, Anything out, Make make) {
  for (uint32_t i = first_element(); i < n; i += element_step()) {
    int64_t at[1];
    locate(layout, i, at);
    out.put(at[0], make(i));
  }
}

// out, mask, a
__global__ void drop(uint32_t n, Layout<3> layout, Anything out, uint8_t* mask, Anything a, uint64_t seed, uint64_t offset,
                     uint32_t threshold, float scale) {
  for (uint32_t i = first_element(); i < n; i += element_step()) {
    int64_t at[3];
    locate(layout, i, at);
    const bool keep = random_word(seed, offset + i) >> 8 >= threshold;
    out.put_float(at[0], keep ? a.get_float(at[2]) * scale : 0.0f);
    cu::store_global(mask + at[1], static_cast<uint8_t>(keep));
  }
}

// One triangle of the last two axes, [height, width], of the unsigned type T; the rest 0.
struct Triangle {
  uint32_t height, width;
  int64_t k;
  bool upper;
};

template <class T>
__global__ void triangle(uint32_t n, Layout<2> layout, T* out, const T* a, Triangle kept) {
  for (uint32_t i = first_element(); i < n; i += element_step()) {
    int64_t at[2];
    locate(layout, i, at);
    const int64_t off = static_cast<int64_t>(i % kept.width) - static_cast<int64_t>(i / kept.width % kept.height);
    const bool keep = kept.upper ? off >= kept.k : off <= kept.k;
    cu::store_global(out + at[0], keep ? cu::load_own(a + at[1]) : T(0));
  }
}

// out and index along all of out's axes, the last one of `classes`, where index has step 0.
__global__ void one_hot(uint32_t n, Layout<2> layout, Anything out, const long long* index, uint32_t classes, Fault fault) {
  for (uint32_t i = first_element(); i < n; i += element_step()) {
    int64_t at[2];
    locate(layout, i, at);
    const int64_t value = cu::load_global(index + at[1]);
    if (value < 0 || value >= classes) cu::atomic_min(fault.word, fault.launch << 32 | i / classes);
    out.put(at[0], static_cast<int64_t>(i % classes == value));
  }
}

}  // namespace cuda
}  // namespace kerf
