// Every cu:: function that computes or lays data out, run by one warp or warpgroup on whole numbers that every format
// holds, all registers dumped: on a GPU and in the emulator the dumps must be equal, bit by bit.
#pragma once
#include <random>
#include <vector>

#include "native/cuda/packed_weights.h"
#include "test/cuda/target.h"

namespace conformance {

constexpr int kWords = 1 << 13;  // of input and of output

CU_FUNCTION uint32_t bits_of(float value) {
  uint32_t bits;
  memcpy(&bits, &value, 4);
  return bits;
}
CU_FUNCTION uint32_t bits_of(int value) { return static_cast<uint32_t>(value); }

// The input by copies of 16 bytes, of which every fifth is declared invalid.
CU_FUNCTION void fetch(const uint32_t* in, int words, bool all) {
  for (int i = threadIdx.x; i * 4 < words; i += blockDim.x)
    cu::copy_async16(cu::shared_memory() + i * 16, in + i * 4, all || i % 5 != 4);
  cu::copy_commit();
  cu::copy_wait<0>();
  cu::sync_threads();
}

__global__ void numbers(const uint32_t* in, uint32_t* out) {
  const int lane = threadIdx.x;
  const uint32_t a = cu::load_global(in + lane), b = cu::load_global(in + 32 + lane);
  const uint32_t c = cu::load_global(in + 64 + lane);
  const float x = static_cast<float>(static_cast<int>(a % 4001) - 2000) * 0.37f;
  const float y = static_cast<float>(static_cast<int>(b % 4001) - 2000) * 1.1f;
  auto put = [&](int i, uint32_t value) { cu::store_global(out + i * 32 + lane, value); };
  put(0, cu::shuffle_xor(a, 5));
  put(1, cu::shuffle(b, static_cast<int>(a % 32)));
  put(2, cu::ballot(c & 1));
  put(3, cu::permute_bytes(a, b, c & 0x7777));
  put(4, cu::pack2(cu::f16{}, x, y));
  put(5, cu::pack2(cu::bf16{}, x, y));
  put(6, bits_of(cu::float_of_bits(a)));
  using F = kerf::cuda::Magic<cu::f16>;
  using B = kerf::cuda::Magic<cu::bf16>;
  const int zero = static_cast<int>(c % 256);
  put(7, F::pair<0>(a, F::zero(zero)));
  put(8, F::pair<1>(a, F::zero(zero)));
  put(9, B::pair<0>(a, B::zero(zero)));
  put(10, B::pair<1>(a, B::zero(zero)));
  put(11, F::less((a & 0x000f000f) | F::kBase, F::zero(zero % 16)));
  put(12, B::less((a & 0x000f000f) | B::kBase, B::zero(zero % 16)));
}

__global__ void copies(const uint32_t* in, uint32_t* out) {
  fetch(in, 1024, false);
  const int lane = threadIdx.x;
  uint32_t r[4];
  cu::load_matrix_x4(r, cu::shared_memory() + (lane * 7 % 32) * 48);
  for (int i = 0; i < 4; i++) cu::store_global(out + i * 32 + lane, r[i]);
  cu::load_matrix_x4_transposed(r, cu::shared_memory() + (lane * 7 % 32) * 48);
  for (int i = 0; i < 4; i++) cu::store_global(out + 1152 + i * 32 + lane, r[i]);
  for (int i = 0; i < 32; i++)
    cu::store_global(out + 128 + i * 32 + lane,
                     cu::load_shared(reinterpret_cast<const uint32_t*>(cu::shared_memory()) + i * 32 + lane));
}

// A at word 0 (16 rows of 32 bytes), B at word 128 (8 rows of 64 bytes), metadata at word 256.
template <class T, int selector>
__global__ void products(const uint32_t* in, uint32_t* out) {
  fetch(in, 512, true);
  const int lane = threadIdx.x;
  uint32_t a[4], b[4];
  cu::load_matrix_x4(a, cu::shared_memory() + lane % 16 * 32 + lane / 16 * 16);
  cu::load_matrix_x4(b, cu::shared_memory() + 512 + lane % 8 * 64 + lane / 8 * 16);
  typename cu::Sum_of<T>::type d[4] = {}, s[4] = {};
  cu::mma(T{}, d, a, b[0], b[1]);
  cu::mma_sparse<selector>(T{}, s, a, b, cu::load_global(in + 256 + lane));
  for (int i = 0; i < 4; i++) {
    cu::store_global(out + i * 32 + lane, a[i]);
    cu::store_global(out + (4 + i) * 32 + lane, b[i]);
    cu::store_global(out + (8 + i) * 32 + lane, bits_of(d[i]));
    cu::store_global(out + (12 + i) * 32 + lane, bits_of(s[i]));
  }
}

#ifdef KERF_HOPPER
// A warpgroup: boxes of 64 and 2 * count rows by TMA (8 rows of each beyond the tensor), products 32 bytes deep at each
// of the four places of a row.
template <class T, int count, int selector>
__global__ void warpgroup(CU_GRID_CONSTANT cu::TensorMap a_map, CU_GRID_CONSTANT cu::TensorMap b_map,
                          const uint32_t* in, uint32_t* out) {
  uint8_t* const a = cu::shared_memory();
  uint8_t* const b = a + 64 * 128;
  uint64_t* const barrier = reinterpret_cast<uint64_t*>(b + 2 * count * 128);
  if (threadIdx.x == 0) {
    cu::mbarrier_init(barrier, 1);
    cu::mbarrier_fence_init();
    cu::mbarrier_arrive_expect(barrier, (64 + 2 * count) * 128);
    cu::tma_load(a, &a_map, 0, 0, barrier);
    cu::tma_load(b, &b_map, 0, 0, barrier);
  }
  cu::sync_threads();
  cu::mbarrier_wait(barrier, 0);
  typename cu::Sum_of<T>::type d[count];
  cu::wgmma_fence();
  if constexpr (selector >= 0) {
    for (int i = 0; i < 2; i++)
      cu::wgmma_sparse<selector>(T{}, d, cu::tile_descriptor(a + i * 32), cu::tile_descriptor(b + i * 64),
                                 cu::load_global(in + 256 + threadIdx.x % 32), i > 0);
  } else {
    for (int i = 0; i < 4; i++)
      cu::wgmma(T{}, d, cu::tile_descriptor(a + i * 32), cu::tile_descriptor(b + i * 32), i > 0);
  }
  cu::wgmma_commit();
  cu::wgmma_wait<0>();
  for (int i = 0; i < count; i++) cu::store_global(out + i * 128 + threadIdx.x, bits_of(d[i]));
}
#endif

// Whole numbers from -8 to 8 in the format, as many as fill the words.
template <class T>
void fill(uint32_t* words, int count, unsigned seed) {
  std::mt19937 random(seed);
  for (int i = 0; i < count * 4 / cu::kBytesOf<T>; i++)
    program::store<T>(reinterpret_cast<uint8_t*>(words), static_cast<size_t>(i), static_cast<int>(random() % 17) - 8);
}

// Pairs of places in order, for 32 lanes.
inline void fill_metadata(uint32_t* words, unsigned seed) {
  static const uint32_t pairs[6] = {4, 8, 12, 9, 13, 14};
  std::mt19937 random(seed);
  for (int lane = 0; lane < 32; lane++) {
    words[lane] = 0;
    for (int i = 0; i < 8; i++) words[lane] |= pairs[random() % 6] << (4 * i);
  }
}

class Dump {
 public:
  Dump() : in_(kWords), out_(2 * kWords) {}

  void all() {
    std::mt19937 random(1);
    for (int i = 0; i < kWords; i++) in_[i] = static_cast<uint32_t>(random());
    run("numbers", 13 * 32, numbers);
    run("copies", 40 * 32, copies);
    of_type<cu::f16>("f16");
    of_type<cu::bf16>("bf16");
    of_type<cu::s8>("s8");
  }

 private:
  target::Buffer<uint32_t> in_, out_;

  void run(const char* what, int words, void (*kernel)(const uint32_t*, uint32_t*)) {
    target::enqueue(kernel, dim3(1), 32, 8192, static_cast<const uint32_t*>(in_.data()), out_.data());
    print(what, words);
  }

  void print(const std::string& what, int words) {
    target::wait();
    printf("{\"conformance\":\"%s\",\"words\":[", what.c_str());
    for (int i = 0; i < words; i++) printf("%s%u", i ? "," : "", out_[i]);
    printf("]}\n");
  }

  template <class T>
  void of_type(const std::string& type) {
    fill<T>(in_.data(), 256, 2);
    fill_metadata(in_.data() + 256, 3);
    run(("mma " + type).c_str(), 16 * 32, products<T, 0>);
    if constexpr (cu::kBytesOf<T> == 2) run(("mma, selector 1, " + type).c_str(), 16 * 32, products<T, 1>);
#ifdef KERF_HOPPER
    of_warpgroup<T, 64, -1>("wgmma 128 " + type);
    of_warpgroup<T, 128, -1>("wgmma 256 " + type);
    of_warpgroup<T, 64, 0>("wgmma.sp " + type);
    if constexpr (cu::kBytesOf<T> == 2) of_warpgroup<T, 64, 1>("wgmma.sp, selector 1, " + type);
#endif
  }

#ifdef KERF_HOPPER
  template <class T, int count, int selector>
  void of_warpgroup(const std::string& what) {
    constexpr int kBytes = cu::kBytesOf<T>, kRows = 2 * count - 8;
    target::Buffer<uint32_t> a(56 * 32), b(kRows * 32);
    fill<T>(a.data(), 56 * 32, 4);
    fill<T>(b.data(), kRows * 32, 5);
    const auto a_map = target::tensor_map(reinterpret_cast<uint8_t*>(a.data()), 56, 128, 64, kBytes);
    const auto b_map = target::tensor_map(reinterpret_cast<uint8_t*>(b.data()), kRows, 128, 2 * count, kBytes);
    target::enqueue(warpgroup<T, count, selector>, dim3(1), 128, (64 + 2 * count) * 128 + 16, a_map, b_map,
                    static_cast<const uint32_t*>(in_.data()), out_.data());
    print(what, count * 128);
  }
#endif
};

}  // namespace conformance
