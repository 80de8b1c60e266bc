// Products with sparse weights: no work for their zeros, which meet nothing. Every format is packed as CSR. Lanes are tokens or output
// pixels, a warp walks the non-zeros of one row of W together, so that what it reads of W comes once for 32 sums; of few tokens lanes
// are the non-zeros. Sums are float32, in the order of the columns, of few tokens in the order of the lanes.
#pragma once
#include "any_epilogue.h"
#include "elements.cuh"
#include "finish.h"
#include "operands.cuh"

namespace kerf {
namespace cuda {

// Packed W, [n, k]: int32 pointers [n + 1], int32 columns [count], values [count], each from a multiple of 16 bytes on. What
// sppack() found wrong fails the stream only later, and bytes can be changed: so all that is read here is brought into range.
template <class Value>
struct SparseRows {
  uint32_t n, k, count;
  const int32_t* pointers;
  const int32_t* columns;
  const Value* values;

  static int64_t padded(int64_t bytes) { return (bytes + 15) / 16 * 16; }
  static int64_t columns_at(int64_t n) { return padded((n + 1) * 4); }
  static int64_t values_at(int64_t n, int64_t count) { return columns_at(n) + padded(count * 4); }
  static int64_t bytes(int64_t n, int64_t count) { return values_at(n, count) + padded(count * static_cast<int64_t>(sizeof(Value))); }

  // Without columns there is nothing to read, whatever the pointers say.
  SparseRows(const void* packed, int64_t rows, int64_t all_columns, int64_t non_zeros)
      : n(static_cast<uint32_t>(rows)), k(static_cast<uint32_t>(all_columns)), count(static_cast<uint32_t>(k > 0 ? non_zeros : 0)) {
    const auto* const at = static_cast<const uint8_t*>(packed);
    pointers = reinterpret_cast<const int32_t*>(at);
    columns = reinterpret_cast<const int32_t*>(at + columns_at(rows));
    values = reinterpret_cast<const Value*>(at + values_at(rows, non_zeros));
  }

  // take(column, value) of a row's non-zeros: of number `first`, and of those `step` apart from there.
  template <class Take>
  CU_FUNCTION void each(uint32_t row, uint32_t first, uint32_t step, Take take) const {
    const uint32_t end = place(row + 1);
#pragma unroll 4
    for (uint32_t i = place(row) + first; i < end; i += step) {
      const auto column = static_cast<uint32_t>(cu::load_global(columns + i));
      take(column < k ? column : k - 1, cu::load_global(values + i));
    }
  }

 private:
  CU_FUNCTION uint32_t place(uint32_t pointer) const {
    const auto at = static_cast<uint32_t>(cu::load_global(pointers + pointer));
    return at < count ? at : count;
  }
};

// A warp a pointer: each has to begin a row within the matrix whose columns grow. The first that does not is reported.
template <class Index>
__global__ void check_csr(uint32_t n, int64_t k, int64_t count, const Index* pointers, const Index* columns, Fault fault) {
  const int64_t lane = threadIdx.x % 32;
  for (uint32_t row = first_element() / 32; row <= n; row += element_step() / 32) {
    const int64_t begin = cu::load_global(pointers + row), end = row < n ? cu::load_global(pointers + row + 1) : count;
    bool sound = begin >= 0 && begin <= end && end <= count && (row > 0 || begin == 0) && (row < n || begin == count);
    for (int64_t i = begin + lane; sound && i < end; i += 32) {
      const Index column = cu::load_global(columns + i), before = i > begin ? cu::load_global(columns + i - 1) : -1;
      sound = column > before && column < k;
    }
    if (!sound) cu::atomic_min(fault.word, fault.launch << 32 | row);
  }
}

constexpr int kSparseTile = 32, kSparseThreads = 256;
constexpr int kSparseRows = kSparseTile * 32 / kSparseThreads;  // of a warp, one after the other: warps share no 16 bytes
constexpr int kSparsePitch = kSparseTile + 1;                   // no bank conflicts, by rows or by columns
constexpr int kSparseSharedBytes = kSparseTile * kSparsePitch * 4;

// The sum of a row's products for one token.
struct FloatSum {
  float sum = 0.0f;
  CU_FUNCTION void add(float w, float x) { sum += w * x; }
  CU_FUNCTION void join(int mask) { sum += cu::shuffle_xor(sum, mask); }
};
// Of bytes with the sum of the weights, which a token's zero point is multiplied by.
struct ByteSum {
  int32_t sum = 0, weights = 0;
  CU_FUNCTION void add(int32_t w, int32_t x) { sum += w * x, weights += w; }
  CU_FUNCTION void join(int mask) { sum += cu::shuffle_xor(sum, mask), weights += cu::shuffle_xor(weights, mask); }
};

// What becomes of sums. exact(): four bytes of them, put(): where they go.
struct FinishFloats : Finish {
  using Sum = FloatSum;
  CU_FUNCTION float exact(const FloatSum& s, uint32_t) const { return s.sum; }
  template <class Out>
  CU_FUNCTION void put(const Out& out, int64_t at, float sum, uint32_t, uint32_t feature) const { out.put(at, Finish::operator()(sum, feature)); }
};
struct FinishBytes {
  using Sum = ByteSum;
  const float* weight_scale;  // one a feature, or one; null where out is int32, as is token_scale
  const float* token_scale;   // one a token, or one
  const float* bias;
  const int32_t* token_zero;  // as token_scale; null: 0
  bool one_weight_scale, one_token;
  int32_t shift;  // added to every token's zero point
  Activation activation;

  CU_FUNCTION int32_t exact(const ByteSum& s, uint32_t token) const {
    const int32_t zero = shift + (token_zero ? cu::load_global(token_zero + (one_token ? 0 : token)) : 0);
    return exact_sum(s.sum, zero, s.weights, 0, 0);
  }
  CU_FUNCTION void put(const Integers& out, int64_t at, int32_t sum, uint32_t, uint32_t) const { out.put(at, static_cast<int64_t>(sum)); }
  template <class F>
  CU_FUNCTION void put(const Floats<F>& out, int64_t at, int32_t sum, uint32_t token, uint32_t feature) const {
    const float of_token = cu::load_global(token_scale + (one_token ? 0 : token));
    const float scale = cu::multiply(of_token, cu::load_global(weight_scale + (one_weight_scale ? 0 : feature)));
    out.put(at, real_of(sum, scale, bias ? cu::load_global(bias + feature) : 0.0f, activation));
  }
};
// int8 as the kernels read their x.
struct SignedBytes {
  const void* data;
  CU_FUNCTION int32_t get(int64_t at) const { return cu::load_global(static_cast<const int8_t*>(data) + at); }
};

// out [token][feature], rows `out_row` apart, by tiles of 32 features and 32 tokens; x [k][tokens], so that the lanes' tokens lie
// together. The tile of sums is turned in shared memory, since features lie together in the output.
template <class Value, class Out, class X, class Finisher>
__global__ void spmatmul_tiles(uint32_t tiles, SparseRows<Value> w, uint32_t tokens, X x, Out out, int64_t out_row, Finisher finish) {
  using Exact = decltype(finish.exact({}, 0));
  Exact* const tile = reinterpret_cast<Exact*>(cu::shared_memory());
  const uint32_t lane = threadIdx.x % 32, first = threadIdx.x / 32 * kSparseRows;
  const uint32_t across = (w.n + kSparseTile - 1) / kSparseTile;
  for (uint32_t number = blockIdx.x; number < tiles; number += gridDim.x) {
    const uint32_t feature0 = number % across * kSparseTile, token0 = number / across * kSparseTile;
    const uint32_t token = token0 + lane < tokens ? token0 + lane : tokens - 1;
    for (uint32_t i = first; i < first + kSparseRows; i++) {
      typename Finisher::Sum sum;
      if (feature0 + i < w.n)
        w.each(feature0 + i, 0, 1, [&](uint32_t column, Value value) { sum.add(value, x.get(static_cast<int64_t>(column) * tokens + token)); });
      cu::store_shared(tile + i * kSparsePitch + lane, finish.exact(sum, token));
    }
    cu::sync_threads();
    const uint32_t feature = feature0 + lane;
    for (uint32_t i = first; i < first + kSparseRows; i++)
      if (token0 + i < tokens && feature < w.n)
        finish.put(out, (token0 + i) * out_row + feature, cu::load_shared(tile + lane * kSparsePitch + i), token0 + i, feature);
    cu::sync_threads();  // the tile is written again
  }
}

constexpr int kFewTokens = 8;

// The same for up to kFewTokens tokens, a warp a feature; x [token][k] as it is, rows `x_row` apart.
template <class Value, class Out, class X, class Finisher>
__global__ void spmatmul_few(SparseRows<Value> w, uint32_t tokens, X x, int64_t x_row, Out out, int64_t out_row, Finisher finish) {
  using Sum = typename Finisher::Sum;
  const uint32_t lane = threadIdx.x % 32;
  for (uint32_t feature = first_element() / 32; feature < w.n; feature += element_step() / 32) {
    Sum sums[kFewTokens] = {};
    w.each(feature, lane, 32, [&](uint32_t column, Value value) {
#pragma unroll
      for (uint32_t t = 0; t < kFewTokens; t++)
        if (t < tokens) sums[t].add(value, x.get(t * x_row + column));
    });
    Sum own;
#pragma unroll
    for (uint32_t t = 0; t < kFewTokens; t++) {
#pragma unroll
      for (int mask = 16; mask > 0; mask /= 2) sums[t].join(mask);
      if (lane == t) own = sums[t];
    }
    if (lane < tokens) finish.put(out, lane * out_row + feature, finish.exact(own, lane), lane, feature);
  }
}

// Images [image][channel][y][x] as a convolution's W meets them: its columns are (channel, tap), its lanes output pixels of all images.
struct SparseImages {
  uint32_t pixels, channels;
  int in_h, in_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w;
  Divisor by_area, by_width, by_taps, by_taps_w;

  struct Pixel {
    uint32_t image, place;  // in the output's plane
    int y, x;               // of the input, where tap 0 is
  };
  CU_FUNCTION Pixel pixel(uint32_t number) const {
    const uint32_t image = by_area.divide(number), place = number - image * by_area.value;
    const uint32_t row = by_width.divide(place), column = place - row * by_width.value;
    return {image, place, static_cast<int>(row) * stride_h - pad_h, static_cast<int>(column) * stride_w - pad_w};
  }
  template <class X>
  CU_FUNCTION float get(const X& data, const Pixel& p, uint32_t column) const {
    const uint32_t channel = by_taps.divide(column), tap = column - channel * by_taps.value;
    const uint32_t row = by_taps_w.divide(tap);
    const int y = p.y + static_cast<int>(row) * dilation_h, x = p.x + static_cast<int>(tap - row * by_taps_w.value) * dilation_w;
    if (static_cast<unsigned>(y) >= static_cast<unsigned>(in_h) || static_cast<unsigned>(x) >= static_cast<unsigned>(in_w)) return 0.0f;
    return data.get((static_cast<int64_t>(p.image * channels + channel) * in_h + y) * in_w + x);
  }
};

// out [image][output][pixel], by tiles of 32 outputs and 32 pixels.
template <class Out, class X>
__global__ void spconv_tiles(uint32_t tiles, SparseRows<float> w, SparseImages images, X x, Out out, Finish finish) {
  const uint32_t lane = threadIdx.x % 32, first = threadIdx.x / 32 * kSparseRows;
  const uint32_t across = (w.n + kSparseTile - 1) / kSparseTile;
  for (uint32_t number = blockIdx.x; number < tiles; number += gridDim.x) {
    const uint32_t output0 = number % across * kSparseTile + first, own = number / across * kSparseTile + lane;
    const SparseImages::Pixel pixel = images.pixel(own < images.pixels ? own : images.pixels - 1);
    for (uint32_t output = output0; output < output0 + kSparseRows && output < w.n; output++) {
      float sum = 0.0f;
      w.each(output, 0, 1, [&](uint32_t column, float value) { sum += value * images.get(x, pixel, column); });
      if (own < images.pixels)
        out.put((static_cast<int64_t>(pixel.image) * w.n + output) * images.by_area.value + pixel.place, finish(sum, output));
    }
  }
}

}  // namespace cuda
}  // namespace kerf
