// Weights that a host has packed (pack.h) in the order in which the lanes of a warp bring them to the tensor cores. A
// unit is 16 features by 128 bytes of an activation row; each kind says how a lane takes its part of one from shared
// memory and what one product consumes. 16 bytes of every lane lie side by side: no bank conflicts, no swizzle.
#pragma once
#include "cu.h"

namespace kerf {
namespace cuda {

// Plain data. units: [ceil(M / 16)][steps of K][kUnitBytes]. For codes: scale and zero [ceil(K / group)][M rounded up
// to 16], 16-byte aligned; zero are unsigned codes, null where all are the middle (8 or 128); group is a multiple of
// 64.
struct PackedWeights {
  const uint8_t* units;
  const float* scale;
  const uint8_t* zero;
  int group;
};

// How codes become 16-bit numbers less their zero point, exactly. A code u in the low bits of a number whose unit in
// the last place is 1 makes that number base + u; subtracting base + zero leaves u - zero, a whole number of at most 8
// bits and a sign, which both formats hold.
template <class T> struct Magic;
template <> struct Magic<cu::f16> {
  static constexpr uint32_t kOnes = 0x3c003c00, kBase = 0x64006400;  // 1024 + u
  using Zero = uint32_t;                                             // -(base + zero), twice
  CU_FUNCTION static Zero zero(int code) {
    return cu::pack2(cu::f16{}, -1024.0f - static_cast<float>(code), -1024.0f - static_cast<float>(code));
  }
  CU_FUNCTION static uint32_t less(uint32_t pair, Zero zero) { return cu::fma2(cu::f16{}, pair, kOnes, zero); }
  // Bytes 2i and 2i + 1 of `bytes`.
  template <int i>
  CU_FUNCTION static uint32_t pair(uint32_t bytes, Zero zero) {
    return less(cu::permute_bytes(bytes, kBase, i == 0 ? 0x5150 : 0x5352), zero);
  }
};
// bfloat16 has 7 bits below its first: enough for 128 + u of 4 bits; 8 bits go through float32, 2^23 + u.
template <> struct Magic<cu::bf16> {
  static constexpr uint32_t kOnes = 0x3f803f80, kBase = 0x43004300;
  using Zero = int;
  CU_FUNCTION static Zero zero(int code) { return code; }
  CU_FUNCTION static uint32_t less(uint32_t pair, Zero zero) {
    const float z = -128.0f - static_cast<float>(zero);
    return cu::fma2(cu::bf16{}, pair, kOnes, cu::pack2(cu::bf16{}, z, z));
  }
  template <int i>
  CU_FUNCTION static uint32_t pair(uint32_t bytes, Zero zero) {
    const float base = 8388608.0f + static_cast<float>(zero);
    const uint32_t low = cu::permute_bytes(bytes, 0x4b000000, 0x7440 + 2 * i);
    const uint32_t high = cu::permute_bytes(bytes, 0x4b000000, 0x7441 + 2 * i);
    return cu::pack2(cu::bf16{}, cu::float_of_bits(low) - base, cu::float_of_bits(high) - base);
  }
};

// A lane's A operands of two neighbouring products (64 bytes of K), for each kind: `half` is 0 or 1.
// Codes of 8 bits: a lane's 16 bytes are two products of 4 registers of 2 codes.
template <class T_>
struct Codes8 {
  using T = T_;
  static constexpr bool kScaled = true, kSparse = false;
  static constexpr int kUnitBytes = 1024, kMiddle = 128;

  uint32_t a[2][4];
  CU_FUNCTION void take(const uint8_t* unit, int lane, int half, typename Magic<T>::Zero zero0,
                        typename Magic<T>::Zero zero8) {
    const uint4 w = cu::load_shared(reinterpret_cast<const uint4*>(unit + half * 512 + lane * 16));
    convert(a[0], w.x, w.y, zero0, zero8);
    convert(a[1], w.z, w.w, zero0, zero8);
  }

 private:
  // Registers 0 and 2 are of row lane / 4, registers 1 and 3 of the row 8 below.
  CU_FUNCTION static void convert(uint32_t (&to)[4], uint32_t low, uint32_t high, typename Magic<T>::Zero zero0,
                                  typename Magic<T>::Zero zero8) {
    to[0] = Magic<T>::template pair<0>(low, zero0);
    to[1] = Magic<T>::template pair<1>(low, zero8);
    to[2] = Magic<T>::template pair<0>(high, zero0);
    to[3] = Magic<T>::template pair<1>(high, zero8);
  }
};

// Codes of 4 bits: a word is one product; register i has nibbles i and i + 4, so that one mask takes both.
template <class T_>
struct Codes4 {
  using T = T_;
  static constexpr bool kScaled = true, kSparse = false;
  static constexpr int kUnitBytes = 512, kMiddle = 8;

  uint32_t a[2][4];
  CU_FUNCTION void take(const uint8_t* unit, int lane, int half, typename Magic<T>::Zero zero0,
                        typename Magic<T>::Zero zero8) {
    const uint2 w = cu::load_shared(reinterpret_cast<const uint2*>(unit + half * 256 + lane * 8));
    convert(a[0], w.x, zero0, zero8);
    convert(a[1], w.y, zero0, zero8);
  }

 private:
  CU_FUNCTION static void convert(uint32_t (&to)[4], uint32_t word, typename Magic<T>::Zero zero0,
                                  typename Magic<T>::Zero zero8) {
#pragma unroll
    for (int i = 0; i < 4; i++)
      to[i] = Magic<T>::less((word >> (4 * i) & 0x000f000f) | Magic<T>::kBase, i % 2 ? zero8 : zero0);
  }
};

// 2:4: one product takes 64 bytes of K, of which 32 are kept: 16 bytes a lane, and then the metadata. A word of it
// serves 16-bit types for both halves (two lanes of a quad each); 8-bit types have a word for each.
template <class T_>
struct Kept2of4 {
  using T = T_;
  static constexpr bool kScaled = false, kSparse = true;
  static constexpr int kMetadataWords = cu::kBytesOf<T> == 2 ? 1 : 2, kUnitBytes = 1024 + 128 * kMetadataWords;

  uint32_t a[4], metadata;
  CU_FUNCTION void take(const uint8_t* unit, int lane, int half) {
    const uint4 w = cu::load_shared(reinterpret_cast<const uint4*>(unit + half * 512 + lane * 16));
    a[0] = w.x, a[1] = w.y, a[2] = w.z, a[3] = w.w;
    const int word = kMetadataWords == 2 ? half * 32 + lane : lane;
    metadata = cu::load_shared(reinterpret_cast<const uint32_t*>(unit + 1024) + word);
  }
};

}  // namespace cuda
}  // namespace kerf
