// Reads a '2:4' SparseTensor or codes from stdin, packs them, and multiplies them by the identity: prints the dense
// matrix that the tensor cores see, one row a line. Input: kind (f16, s8, codes8 or codes4), rows, columns, then the
// numbers.
#include <iostream>

#include "packed_cases.h"

using namespace cases;

static std::vector<uint8_t> bytes_from_stdin(size_t count) {
  std::vector<uint8_t> bytes(count);
  for (uint8_t& byte : bytes) {
    int value;
    std::cin >> value;
    byte = static_cast<uint8_t>(value);
  }
  return bytes;
}

// out [columns][rows] of float32: the identity of `columns` tokens through the kernel.
template <class Weights>
static void print_dense(const PackedWeights& weights, int M, int K) {
  using T = typename Weights::T;
  using C = PackedConfig<Weights, 128, 16, 32, 16, 2>;
  Buffer<uint8_t> x(size_t(K) * K * cu::kBytesOf<T>);
  for (int i = 0; i < K * K; i++) program::store<T>(x.data(), size_t(i), i / K == i % K ? 1 : 0);
  const Buffer<float> out(size_t(M) * K);
  const Epilogue<float> epilogue{nullptr, nullptr, nullptr, kerf::Activation::none, out.data()};
  cu::emu::prepare({0, true, false});
  const uint8_t* tokens = x.data();
  target::enqueue(matmul_packed<C, Epilogue<float>>, dim3((M + 127) / 128, (K + 15) / 16), C::kThreads, C::kSharedBytes,
                  weights, tokens, M, K, K * cu::kBytesOf<T>, Split{nullptr, nullptr}, epilogue);
  for (auto& [what, count] : cu::emu::machine.reports) printf("report %s\n", what.c_str());
  for (int m = 0; m < M; m++)
    for (int k = 0; k < K; k++)
      printf("%.9g%c", static_cast<double>(out[size_t(k) * M + m]), k == K - 1 ? '\n' : ' ');
}

template <class T>
static void kept(int M, int K) {
  constexpr int kBytes = cu::kBytesOf<T>;
  const auto values = bytes_from_stdin(size_t(M) * (K / 2) * kBytes);
  const auto places = bytes_from_stdin(size_t(M) * ((K + 7) / 8));
  const Buffer<uint8_t> units(size_t(packed_kept_bytes(M, K, kBytes)));
  pack_kept(units.data(), values.data(), {places.data(), M, K}, kBytes);
  print_dense<Kept2of4<T>>({units.data(), nullptr, nullptr, 0}, M, K);
}

// Signed codes in groups of 64, with scales 1 and zero points 0 to 6 by group.
template <template <class> class Codes>
static void codes(int M, int K, int bits) {
  const auto bytes = bytes_from_stdin(size_t(M) * size_t(bits == 8 ? K : (K + 1) / 2));
  const int64_t groups = (K + 63) / 64;
  std::vector<float> scales(size_t(M * groups), 1.0f);
  std::vector<int32_t> zeros(size_t(M * groups));
  for (size_t i = 0; i < zeros.size(); i++) zeros[i] = static_cast<int32_t>(i % size_t(groups) % 7);
  const Buffer<uint8_t> units(size_t(packed_codes_bytes(M, K, bits)));
  const Buffer<float> scale(size_t(groups * rounded_up(M, 16)));
  const Buffer<uint8_t> zero(size_t(groups * rounded_up(M, 16)));
  pack_codes(units.data(), bytes.data(), M, K, bits, true);
  pack_terms(scale.data(), zero.data(), scales.data(), zeros.data(), M, groups, bits, true);
  print_dense<Codes<cu::f16>>({units.data(), scale.data(), zero.data(), 64}, M, K);
}

int main() {
  std::string kind;
  int M, K;
  std::cin >> kind >> M >> K;
  if (kind == "f16") kept<cu::f16>(M, K);
  if (kind == "s8") kept<cu::s8>(M, K);
  if (kind == "codes8") codes<Codes8>(M, K, 8);
  if (kind == "codes4") codes<Codes4>(M, K, 4);
}
