// Puts weights in the order of packed_weights.h: where each byte comes from, and on the host all of it; plain C++. Sizes: M features, K inputs; a unit is 16
// features by 128 bytes of an activation row, what lies beyond M and K is padded with weights that count as zero.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "../core/elem.h"

// For functions that call what they are given: a function of the host there, one of the device in a kernel.
#ifdef __CUDACC__
#define KERF_CALLS_EITHER _Pragma("nv_exec_check_disable")
#else
#define KERF_CALLS_EITHER
#endif

namespace kerf {
namespace cuda {

constexpr int64_t rounded_up(int64_t count, int64_t to) { return (count + to - 1) / to * to; }

// Units of weights for activations of `activation_bytes` an element.
constexpr int64_t steps_of(int64_t K, int activation_bytes) { return (K * activation_bytes + 127) / 128; }
KERF_INLINE constexpr int64_t code_unit_bytes(int bits) { return bits == 8 ? 1024 : 512; }
constexpr int64_t kept_metadata_words(int bytes) { return bytes == 2 ? 1 : 2; }
constexpr int64_t kept_unit_bytes(int bytes) { return 1024 + 128 * kept_metadata_words(bytes); }

constexpr int64_t packed_codes_bytes(int64_t M, int64_t K, int bits) {
  return rounded_up(M, 16) / 16 * steps_of(K, 2) * code_unit_bytes(bits);
}
constexpr int64_t packed_kept_bytes(int64_t M, int64_t K, int bytes) {
  return rounded_up(M, 16) / 16 * steps_of(K, bytes) * kept_unit_bytes(bytes);
}

// Number i of the eight codes that a lane brings to a product of 16 of K: two in each of four registers.
KERF_CALLS_EITHER
template <class Code>
KERF_INLINE int lane_code(int lane, int product, int i, Code code) {
  return code(lane / 4 + i / 2 % 2 * 8, product * 16 + lane % 4 * 2 + i / 4 * 8 + i % 2);
}

// Byte `at` of a unit of codes: code(row, k) answers the unsigned code of one of its 16 features and of its 64 of K.
KERF_CALLS_EITHER
template <class Code>
KERF_INLINE uint8_t codes_byte(int bits, int at, Code code) {
  const int half = bits == 8 ? 512 : 256, lane_bytes = half / 32, product_bytes = lane_bytes / 2;
  const int lane = at % half / lane_bytes, product = at / half * 2 + at % lane_bytes / product_bytes;
  if (bits == 8) return static_cast<uint8_t>(lane_code(lane, product, at % 8, code));
  const int first = at % 4 * 2, second = first + 1;  // nibbles i and i + 4 of a word are register i's
  return static_cast<uint8_t>(lane_code(lane, product, first % 4 * 2 + first / 4, code) |
                              lane_code(lane, product, second % 4 * 2 + second / 4, code) << 4);
}

// The code number k of row m as wpack takes them, [M][K] bytes or [M][ceil(K / 2)] with two a byte, the lower half first; two's
// complement if is_signed. Packed they are unsigned.
KERF_INLINE int code_of(uint8_t byte, int64_t k, int bits, bool is_signed) {
  const int raw = bits == 8 ? byte : byte >> (k % 2 * 4) & 15;
  return is_signed ? raw ^ (bits == 8 ? 128 : 8) : raw;
}

inline void pack_codes(uint8_t* to, const uint8_t* codes, int64_t M, int64_t K, int bits, bool is_signed) {
  const int64_t steps = steps_of(K, 2), unit_bytes = code_unit_bytes(bits), pitch = bits == 8 ? K : (K + 1) / 2;
  for (int64_t block = 0; block * 16 < M; block++)
    for (int64_t step = 0; step < steps; step++, to += unit_bytes)
      for (int at = 0; at < unit_bytes; at++)
        to[at] = codes_byte(bits, at, [&](int row, int of_step) {
          const int64_t m = block * 16 + row, k = step * 64 + of_step;
          if (m >= M || k >= K) return bits == 8 ? 128 : 8;
          return code_of(codes[m * pitch + (bits == 8 ? k : k / 2)], k, bits, is_signed);
        });
}

// From [M][groups] to [groups][M rounded up to 16]. zero_to: unsigned codes; null if zero is.
inline void pack_terms(float* scale_to, uint8_t* zero_to, const float* scale, const int32_t* zero, int64_t M,
                       int64_t groups, int bits, bool is_signed) {
  const int64_t pitch = rounded_up(M, 16);
  const int middle = is_signed ? bits == 8 ? 128 : 8 : 0;
  for (int64_t group = 0; group < groups; group++)
    for (int64_t m = 0; m < pitch; m++) {
      scale_to[group * pitch + m] = m < M ? scale[m * groups + group] : 0.0f;
      if (zero_to) zero_to[group * pitch + m] = static_cast<uint8_t>(m < M ? zero[m * groups + group] + middle : 0);
    }
}

// The metadata of a '2:4' SparseTensor: [M][ceil(K / 8)], four bits for each four of K, the lower half first.
struct Metadata {
  const uint8_t* bytes;
  int64_t M, K;
  // `count` fours from k on, four bits each; beyond the matrix the first two places.
  uint32_t fours(int64_t m, int64_t k, int count) const {
    uint32_t bits = 0;
    for (int i = 0; i < count; i++, k += 4) {
      const uint32_t four = m < M && k < K ? bytes[m * ((K + 7) / 8) + k / 8] >> (k % 8) & 15u : 4u;
      bits |= four << (4 * i);
    }
    return bits;
  }
};

// Word number `word` of the metadata of a unit, as the lanes of mma.sp and wgmma.sp bring it: fours(row, k, count) answers `count`
// fours, four bits each, from k on of one of the unit's 16 rows. 16-bit types: a word of all four lanes of a quad serves two products
// of 32, chosen by the selector. 8-bit types: a word for each of two products of 64.
KERF_CALLS_EITHER
template <class Fours>
KERF_INLINE uint32_t metadata_word(int word, int bytes, Fours fours) {
  const int lane = word % 32, row = lane / 4, quad = lane % 4;
  if (bytes == 2) return fours(row, quad * 16, 4) | fours(row + 8, quad * 16, 4) << 16;
  return fours(row + quad % 2 * 8, word / 32 * 64 + quad / 2 * 32, 8);
}

// Byte `at` of the 1024 of a unit's kept values: which of its 16 rows, and which byte of the 64 of a row.
struct KeptPlace { int row, byte; };
KERF_INLINE KeptPlace kept_place(int at) {  // byte at % 4 of register at / 4 % 4 of lane at / 16 % 32 of product at / 512
  const int reg = at / 4 % 4, lane = at / 16 % 32;
  return {lane / 4 + reg % 2 * 8, at / 512 * 32 + reg / 2 * 16 + lane % 4 * 4 + at % 4};
}

inline void pack_metadata_unit(uint32_t* to, const Metadata& metadata, int64_t block, int64_t step, int bytes) {
  for (int word = 0; word < 32 * kept_metadata_words(bytes); word++)
    to[word] = metadata_word(word, bytes, [&](int row, int k, int count) {
      return metadata.fours(block * 16 + row, step * (128 / bytes) + k, count);
    });
}

// [ceil(M / 16)][steps][words], what matmul_wgmma_sparse reads beside the values.
inline void pack_metadata(uint32_t* to, const Metadata& metadata, int bytes) {
  for (int64_t block = 0; block * 16 < metadata.M; block++)
    for (int64_t step = 0; step < steps_of(metadata.K, bytes); step++, to += 32 * kept_metadata_words(bytes))
      pack_metadata_unit(to, metadata, block, step, bytes);
}

// values: [M][K / 2] of `bytes` each.
inline void pack_kept(uint8_t* to, const uint8_t* values, const Metadata& metadata, int bytes) {
  const int64_t row_bytes = metadata.K / 2 * bytes;
  for (int64_t block = 0; block * 16 < metadata.M; block++)
    for (int64_t step = 0; step < steps_of(metadata.K, bytes); step++, to += kept_unit_bytes(bytes)) {
      for (int i = 0; i < 1024; i++) {
        const KeptPlace place = kept_place(i);
        const int64_t m = block * 16 + place.row, at = step * 64 + place.byte;
        to[i] = m < metadata.M && at < row_bytes ? values[m * row_bytes + at] : 0;
      }
      uint32_t words[64];
      pack_metadata_unit(words, metadata, block, step, bytes);
      memcpy(to + 1024, words, static_cast<size_t>(128 * kept_metadata_words(bytes)));
    }
}

}  // namespace cuda
}  // namespace kerf
