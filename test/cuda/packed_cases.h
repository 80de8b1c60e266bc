// Random weights of codes and 2:4 sparse ones, packed, with the dense numbers that they stand for.
#pragma once
#include "matmul_cases.h"
#include "native/cuda/pack.h"
#include "native/cuda/matmul_packed.cuh"

namespace cases {

struct CodeFormat {
  int bits;
  int64_t group;  // of K
  bool is_signed, zeros;
};

// Weights of codes; the product's w_values become those that they stand for.
struct PackedCodes {
  Buffer<uint8_t> units;
  Buffer<float> scale;
  Buffer<uint8_t> zero;
  CodeFormat format;

  template <class P>
  PackedCodes(P& product, CodeFormat f)
      : units(size_t(packed_codes_bytes(product.s.m, product.s.k, f.bits))), scale(padded(product.s, f)),
        zero(padded(product.s, f)), format(f) {
    const int M = product.s.m, K = product.s.k;
    const int64_t groups = (K + f.group - 1) / f.group;
    const size_t pitch = size_t(f.bits == 8 ? K : (K + 1) / 2);
    std::mt19937 random(11);
    std::vector<uint8_t> codes(size_t(M) * pitch);
    for (uint8_t& byte : codes) byte = static_cast<uint8_t>(random());
    std::vector<float> scales(size_t(M * groups));
    std::vector<int32_t> zeros(size_t(M * groups));
    const int levels = 1 << f.bits, lowest = f.is_signed ? -levels / 2 : 0;
    for (float& s : scales) s = 0.001f * static_cast<float>(1 + random() % 97);
    for (int32_t& z : zeros) z = lowest + static_cast<int>(random() % unsigned(levels));
    for (int m = 0; m < M; m++)
      for (int k = 0; k < K; k++) {
        int code = f.bits == 8 ? codes[m * pitch + k] : codes[m * pitch + k / 2] >> (k % 2 * 4) & 15;
        if (f.is_signed && code >= levels / 2) code -= levels;
        const size_t group = size_t(m * groups + k / f.group);
        const int from = f.zeros ? zeros[group] : f.is_signed ? 0 : levels / 2;
        product.w_values[size_t(m) * K + k] = double(code - from) * double(scales[group]);
      }
    pack_codes(units.data(), codes.data(), M, K, f.bits, f.is_signed);
    pack_terms(scale.data(), f.zeros ? zero.data() : nullptr, scales.data(), zeros.data(), M, groups, f.bits,
               f.is_signed);
  }

  PackedWeights weights() const {
    return {units.data(), scale.data(), format.zeros ? zero.data() : nullptr, static_cast<int>(format.group)};
  }

 private:
  static size_t padded(Shape s, CodeFormat f) {
    return size_t((s.k + f.group - 1) / f.group * rounded_up(s.m, 16));
  }
};

// 2:4 weights made of the product's: of each four the two with the largest magnitudes stay, the others become 0.
template <class T>
struct Kept {
  Buffer<uint8_t> values;
  std::vector<uint8_t> bytes;
  Metadata metadata;

  template <class P>
  explicit Kept(P& product)
      : values(size_t(product.s.m) * (product.s.k / 2) * bytes_of<T>()),
        bytes(size_t(product.s.m) * ((product.s.k + 7) / 8)), metadata{bytes.data(), product.s.m, product.s.k} {
    const int M = product.s.m, K = product.s.k;
    for (int m = 0; m < M; m++)
      for (int k = 0; k < K; k += 4) {
        double* four = &product.w_values[size_t(m) * K + k];
        int first = 0, second = 1;
        for (int i = 0; i < 4; i++)
          for (int j = i + 1; j < 4; j++)
            if (std::fabs(four[i]) + std::fabs(four[j]) > std::fabs(four[first]) + std::fabs(four[second]))
              first = i, second = j;
        for (int i = 0; i < 4; i++)
          if (i != first && i != second) four[i] = 0;
        const size_t at = size_t(m) * (K / 2) + k / 2;
        program::store<T>(values.data(), at, four[first]);
        program::store<T>(values.data(), at + 1, four[second]);
        bytes[size_t(m) * ((K + 7) / 8) + k / 8] |= static_cast<uint8_t>((first | second << 2) << (k % 8));
      }
  }
};

// Scratch of split-K: sums poisoned, counters 0; `clean` says whether they are 0 again.
struct Scratch {
  Buffer<uint8_t> parts;
  Buffer<unsigned> arrived;
  size_t tiles;
  Scratch(int M, int N, int BM, int BN, int split)
      : parts(size_t(rounded_up(M, BM) * rounded_up(N, BN) * split * 4)),
        arrived(size_t(rounded_up(M, BM) / BM * rounded_up(N, BN) / BN)), tiles(arrived.size()) {
    for (size_t i = 0; i < tiles; i++) arrived[i] = 0;
  }
  Split split() const { return {parts.data(), arrived.data()}; }
  void check() const {
    for (size_t i = 0; i < tiles; i++)
      if (arrived[i] != 0) target::report("split-K: a counter is not 0 after the launch");
  }
};

}  // namespace cases
