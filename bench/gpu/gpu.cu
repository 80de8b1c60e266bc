// The program behind `npm run gpu`, for a GPU (nvcc) and for the emulator (g++ -x c++): prints one JSON object a line.
//   conformance              every register that the cu:: functions leave
//   check                    every compiled product against float64
//   time FEATURES TOKENS K   every product that takes the shape, in microseconds; on a GPU only
#include <algorithm>

#include "products.h"
#include "conformance.h"

using namespace products;

static int check_all() {
  int failed = 0;
  for (const Entry& entry : all())
    for (Shape shape : {Shape{256, entry.BN > 64 ? 128 : entry.BN, 512}, Shape{137, entry.BN + 3, 352}}) {
#ifndef __CUDACC__
      cu::emu::prepare({1, true, false});
#endif
      const double worst = entry.check(shape, entry);
      const bool right = worst <= 1;
      failed += !right;
      printf("{\"check\":\"%s\",\"m\":%d,\"n\":%d,\"k\":%d,\"worst\":%.4g,\"right\":%s}\n", entry.name.c_str(), shape.m,
             shape.n, shape.k, std::isfinite(worst) ? worst : 1e300, right ? "true" : "false");
#ifndef __CUDACC__
      for (const auto& [what, count] : cu::emu::machine.reports) {
        printf("{\"report\":\"%s\",\"check\":\"%s\"}\n", what.c_str(), entry.name.c_str());
        failed++;
      }
#endif
    }
  return failed ? 1 : 0;
}

#ifdef __CUDACC__
// Bytes that are small numbers in every format and, as metadata, places in order.
__global__ void fill_with(uint32_t* words, size_t count, uint32_t seed, uint32_t pattern) {
  for (size_t i = blockIdx.x * size_t(blockDim.x) + threadIdx.x; i < count; i += size_t(gridDim.x) * blockDim.x) {
    uint32_t x = static_cast<uint32_t>(i) * 2654435761u ^ seed;
    x = (x ^ x >> 15) * 2246822519u;
    words[i] = pattern ? pattern : (x & 0x83ff83ff) | 0x38003800;  // +-0.5 to 1 as float16, small as all others
  }
}

struct Memory {
  uint8_t* data = nullptr;
  size_t bytes;
  Memory(size_t size, uint32_t pattern) : bytes((size + 255) / 256 * 256) {
    target::require(cudaMalloc(&data, bytes), "cudaMalloc");
    fill_with<<<1024, 256>>>(reinterpret_cast<uint32_t*>(data), bytes / 4, 12345, pattern);
  }
  ~Memory() { cudaFree(data); }
};

// The median of launches over rotating operands, together more than the level-2 cache holds.
static double microseconds(const Entry& entry, Shape s, int parts, const cudaDeviceProp& card) {
  const size_t row = size_t(s.k) * entry.bytes, m = size_t(rounded_up(s.m, 16));
  const size_t steps = size_t(steps_of(s.k, entry.bytes));
  const bool kept = entry.is(MatmulKind::kept);
  const size_t units = m / 16 * steps;
  const size_t w_bytes = entry.is(MatmulKind::codes8)         ? units * code_unit_bytes(8)
                         : entry.is(MatmulKind::codes4)       ? units * code_unit_bytes(4)
                         : kept                               ? units * kept_unit_bytes(entry.bytes)
                         : entry.is(MatmulKind::wgmma_sparse) ? size_t(s.m) * row / 2
                                                              : size_t(s.m) * row;
  const size_t x_bytes = size_t(s.n) * row;
  const int copies = static_cast<int>(std::min<size_t>(32, 4 * size_t(card.l2CacheSize) / (w_bytes + x_bytes) + 2));
  // metadata inside of units: all bytes are 0x44, which is places 0 and 1, and numbers all the same
  const Memory w(w_bytes * copies, kept ? 0x44444444 : 0), x(x_bytes * copies, 0);
  const Memory out(size_t(s.n) * s.m * entry.out_bytes, 0);
  const Memory scale(m * steps * 4, 0x3c000000), metadata(m / 16 * steps * 256, 0x44444444);
  const Memory parts_memory(size_t(rounded_up(s.m, entry.BM) * rounded_up(s.n, entry.BN)) * parts * 4, 0);
  const Memory arrived(size_t(rounded_up(s.m, entry.BM) / entry.BM * rounded_up(s.n, entry.BN) / entry.BN) * 4, 0);
  cudaMemset(arrived.data, 0, arrived.bytes);
  cudaEvent_t start, end;
  cudaEventCreate(&start), cudaEventCreate(&end);
  std::vector<float> times;
  for (int i = 0; i < 24; i++) {
    const int copy = i % copies;
    MatmulOperands o{w.data + w_bytes / 16 * 16 * copy, x.data + x_bytes / 16 * 16 * copy, out.data,
               {w.data + w_bytes / 16 * 16 * copy, reinterpret_cast<const float*>(scale.data), nullptr, 128},
               reinterpret_cast<const uint32_t*>(metadata.data),
               {parts_memory.data, reinterpret_cast<unsigned*>(arrived.data)},
               nullptr, nullptr, nullptr, kerf::Activation::none, s.m, s.n, s.k, parts, card.multiProcessorCount, {}};
    cudaEventRecord(start);
    entry.launch(o);
    cudaEventRecord(end);
    target::require(cudaEventSynchronize(end), entry.name.c_str());
    float ms;
    cudaEventElapsedTime(&ms, start, end);
    if (i >= 4) times.push_back(ms);
  }
  cudaEventDestroy(start), cudaEventDestroy(end);
  std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
  return 1000.0 * times[times.size() / 2];
}

static int time_all(Shape s) {
  cudaDeviceProp card;
  target::require(cudaGetDeviceProperties(&card, 0), "cudaGetDeviceProperties");
  for (const Entry& entry : all()) {
    if (s.k * entry.bytes % (entry.is(MatmulKind::wgmma_sparse) ? 32 : 16)) continue;
    const bool few = s.n <= 64;
    if (few ? entry.BN > 64 : entry.splits && entry.BN < 64) continue;
    const int64_t tiles = rounded_up(s.m, entry.BM) / entry.BM * (rounded_up(s.n, entry.BN) / entry.BN);
    const int64_t most = std::max<int64_t>(1, steps_of(s.k, entry.bytes) / 4);
    const int filling = static_cast<int>(std::clamp<int64_t>(3 * card.multiProcessorCount / tiles, 1, most));
    for (int parts : entry.splits ? std::vector<int>{1, std::max(1, filling / 2), filling} : std::vector<int>{1}) {
      const double us = microseconds(entry, s, parts, card);
      printf("{\"time\":\"%s\",\"m\":%d,\"n\":%d,\"k\":%d,\"parts\":%d,\"us\":%.2f,\"tflops\":%.1f}\n",
             entry.name.c_str(), s.m, s.n, s.k, parts, us, 2e-6 * s.m * double(s.n) * s.k / us);
    }
  }
  return 0;
}

static void print_card() {
  cudaDeviceProp card;
  target::require(cudaGetDeviceProperties(&card, 0), "no GPU");
  printf("{\"card\":\"%s\",\"sm\":%d,\"multiprocessors\":%d}\n", card.name, card.major * 10 + card.minor,
         card.multiProcessorCount);
}
#else
static int time_all(Shape) {
  fprintf(stderr, "the emulator measures no time\n");
  return 2;
}
static void print_card() { printf("{\"card\":\"emulator\"}\n"); }
#endif

int main(int count, char** arguments) {
  const std::string what = count > 1 ? arguments[1] : "";
  if (what == "conformance") {
    print_card();
    conformance::Dump().all();
    return 0;
  }
  if (what == "check") {
    print_card();
    return check_all();
  }
  if (what == "time" && count == 5)
    return time_all({atoi(arguments[2]), atoi(arguments[3]), atoi(arguments[4])});
  fprintf(stderr, "conformance, check, or time FEATURES TOKENS K\n");
  return 2;
}
