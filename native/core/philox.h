// Philox4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel Random Numbers: As Easy as 1, 2, 3, 2011): a counter in, four
// independent 32-bit words out. Element number i of a random tensor is word (offset + i) % 4 of block (offset + i) / 4
// under the key `seed`, so a result depends on neither threads nor target.
#pragma once
#include "elem.h"

namespace kerf {

struct Words {
  uint32_t w[4];
};

KERF_INLINE Words philox(uint64_t seed, uint64_t block) {
  uint32_t c0 = static_cast<uint32_t>(block), c1 = static_cast<uint32_t>(block >> 32), c2 = 0, c3 = 0;
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; round++) {
    uint64_t p0 = uint64_t{0xd2511f53u} * c0, p1 = uint64_t{0xcd9e8d57u} * c2;
    uint32_t n0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0, n2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c1 = static_cast<uint32_t>(p1);
    c3 = static_cast<uint32_t>(p0);
    c0 = n0;
    c2 = n2;
    k0 += 0x9e3779b9u;
    k1 += 0xbb67ae85u;
  }
  return {{c0, c1, c2, c3}};
}

// -2 log(u) for u in (0, 1]: the polynomial of cpu/simd_math.h's log, within an ulp.
KERF_INLINE float minus_two_log(float u) {
  int32_t bits = static_cast<int32_t>(float_to_bits(u));
  int32_t e = (bits - 0x3f3504f3) >> 23;
  float f = bits_to_float(static_cast<uint32_t>(bits - e * (1 << 23))) - 1.0f;
  float p = 0.067509003f;
  p = p * f - 0.116714239f;
  p = p * f + 0.118835725f;
  p = p * f - 0.12406034f;
  p = p * f + 0.142203271f;
  p = p * f - 0.166679963f;
  p = p * f + 0.20002073f;
  p = p * f - 0.250000089f;
  p = p * f + 0.333333135f;
  float f2 = f * f, exponent = static_cast<float>(e);
  float log = (f + (exponent * -2.12194440e-4f + f * f2 * p - 0.5f * f2)) + exponent * 0.693359375f;
  return -2.0f * log;
}

// Box-Muller: words (w0, w1) of an aligned pair become r cos(2 pi v) and r sin(2 pi v), r = sqrt(-2 log u),
// with u = (w0 / 2 + 1/2) / 2^31 in (0, 1] and v = w1 / 2^32.
KERF_INLINE void normal_pair(uint32_t w0, uint32_t w1, float* z) {
  float u = static_cast<float>(static_cast<int32_t>(w0 >> 1)) * 0x1p-31f + 0x1p-32f;
  float r = __builtin_sqrtf(minus_two_log(u));
  uint32_t quarter = (w1 + 0x20000000u) >> 30;                                    // nearest quarter of the circle
  float x = static_cast<float>(static_cast<int32_t>(w1 << 2)) * 0x1.921fb6p-32f;  // the rest, [-pi/4, pi/4)
  float x2 = x * x;
  float sine = x + x * x2 * (-0.166666672f + x2 * (0.0083333794f + x2 * (-0.000198530586f + x2 * 2.83239228e-06f)));
  float cosine = (1.0f - 0.5f * x2) +
                 x2 * x2 * (0.0416666679f + x2 * (-0.00138889789f + x2 * (2.48215129e-05f - x2 * 2.88277107e-07f)));
  float c = quarter & 1 ? sine : cosine, s = quarter & 1 ? cosine : sine;
  z[0] = r * bits_to_float(float_to_bits(c) ^ ((quarter + 1) & 2) << 30);
  z[1] = r * bits_to_float(float_to_bits(s) ^ (quarter & 2) << 30);
}

}  // namespace kerf
