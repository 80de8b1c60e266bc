// Convolutions of bytes: conv_mma on int8 images. Padding stands for 0, which is the zero point's byte and no zero that a copy could
// fill in: so images are laid with their border.
#pragma once
#include "any_epilogue.h"
#include "byte_source.cuh"
#include "conv.cuh"

namespace kerf {
namespace cuda {

// Planes [images * channels][h][w] with a border around each, as int8: uint8 ones 128 less.
struct ByteImages {
  ByteSource from;
  uint32_t planes, h, w, pad_h, pad_w;
  const float* scale;   // one
  const int32_t* zero;  // one; null: 0
  uint8_t* out;
  CU_ANYWHERE uint32_t laid_h() const { return h + 2 * pad_h; }
  CU_ANYWHERE uint32_t laid_w() const { return w + 2 * pad_w; }
};

__global__ void lay_byte_images(uint32_t n, ByteImages r) {
  const int32_t zero = r.zero ? cu::load_global(r.zero) : 0;
  const float scale = r.from.quantize == Quantize::none ? 1.0f : cu::load_global(r.scale);
  for (uint32_t i = first_element(); i < n; i += element_step()) {
    const uint32_t line = i / r.laid_w(), x = i % r.laid_w() - r.pad_w, plane = line / r.laid_h(), y = line % r.laid_h() - r.pad_h;
    const bool inside = y < r.h && x < r.w;  // numbers below 0 have wrapped
    const int64_t at = (static_cast<int64_t>(plane) * r.h + y) * r.w + x;
    cu::store_global(r.out + i, static_cast<uint8_t>(inside ? r.from.byte(at, 1.0f, scale, zero) : r.from.flipped(zero)));
  }
}

// The sum of the bytes that each output pixel's taps meet; what is outside of the image counts as zeros, as in the products.
__global__ void window_sums(uint32_t n, Patches patches, int32_t* sums) {
  for (uint32_t i = first_element(); i < n; i += element_step()) {
    const Patches::Corner corner = patches.corner(static_cast<int>(i));
    int32_t sum = 0;
    for (int chunk = 0; chunk < patches.chunks(); chunk++) {
      const Patches::Corner tap = patches.tap(chunk);
      if (!patches.inside(corner, tap)) continue;
      const uint4 four = cu::load_global(reinterpret_cast<const uint4*>(patches.at(corner, tap)));
      for (uint32_t word : {four.x, four.y, four.z, four.w})
        for (int b = 0; b < 4; b++) sum += static_cast<int8_t>(word >> (8 * b));
    }
    cu::store_global(sums + i, sum);
  }
}

// Rows of the tile are pixels, columns are channels of weights.
struct ByteImageEpilogue {
  using Terms = struct BytePixelTerms;
  const float* weight_scale;  // of the channels, or one; null for int32, as is x_scale
  const float* x_scale;       // one
  const float* bias;
  const int32_t* weight_sum;  // of the channels
  const int32_t* weight_zero;  // of the channels, or one; null: 0
  const int32_t* x_zero;      // one; null: 0
  const int32_t* window_sum;  // of the pixels; null where weight_zero is
  bool one_weight_scale, one_weight_zero;
  int32_t shift, k;  // as in ByteSums
  Activation activation;
  DType type;        // a float dtype or int32
  void* out;
  PixelPlaces places;

  CU_FUNCTION const ByteImageEpilogue& of_group(int, int) const { return *this; }  // there is but one
};

struct BytePixelTerms : PixelTerms {
  int32_t zero, rest[4];
  CU_FUNCTION BytePixelTerms(const ByteImageEpilogue& e, int m, int M) : PixelTerms(e, m, M) {
    zero = e.shift + (e.x_zero ? cu::load_global(e.x_zero) : 0);
#pragma unroll
    for (int i = 0; i < 4; i++)
      rest[i] = e.window_sum ? rest_of(cu::load_global(e.window_sum + (m + i < M ? m + i : M - 1)), e.k, zero) : 0;
  }
};

CU_FUNCTION void store_four(const ByteImageEpilogue& e, const BytePixelTerms& terms, const int (&sums)[4], int m, int n, int M) {
  if (m >= M) return;
  const float one = e.weight_scale ? cu::load_global(e.weight_scale + (e.one_weight_scale ? 0 : n)) : 1.0f;
  const float bias = e.bias ? cu::load_global(e.bias + n) : 0.0f, x_scale = e.x_scale ? cu::load_global(e.x_scale) : 1.0f;
  const int32_t sum = cu::load_global(e.weight_sum + n);
  const int32_t weight_zero = e.weight_zero ? cu::load_global(e.weight_zero + (e.one_weight_zero ? 0 : n)) : 0;
  int32_t exact[4];
#pragma unroll
  for (int i = 0; i < 4; i++) exact[i] = exact_sum(sums[i], terms.zero, sum, terms.rest[i], weight_zero);
  const size_t plane = static_cast<size_t>(n) * e.places.plane;
  const FourPlaces to{e.out, {plane + terms.at[0], plane + terms.at[1], plane + terms.at[2], plane + terms.at[3]}, M - m, e.places.whole};
  put_exact(to, e.type, exact, {one, one, one, one}, x_scale, {bias, bias, bias, bias}, e.activation);
}

}  // namespace cuda
}  // namespace kerf
