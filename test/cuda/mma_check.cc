// matmul_mma in the emulator. With KERF_QUICK one product only: what a broken kernel is tried on.
#include "emulator/emulator.h"
#include "matmul_cases.h"
#include "native/cuda/matmul_mma.cuh"

using namespace cases;

template <class T, int BM, int BN, int WM, int WN, int STAGES, class Out>
static void check(const char* kernel, const std::vector<Shape>& shapes, bool plain) {
  using C = MmaConfig<T, BM, BN, WM, WN, STAGES>;
  all<T, Out>(kernel, shapes, plain, [](Product<T, Out>& p) {
    const uint8_t *w = p.w.data(), *x = p.x.data();
    const int M = p.s.m, N = p.s.n, row_bytes = p.s.k * cu::kBytesOf<T>;
    const auto epilogue = p.epilogue();
    CU_LAUNCH((matmul_mma<C, Epilogue<Out>>), dim3((M + BM - 1) / BM, (N + BN - 1) / BN), dim3(C::kThreads),
              C::kSharedBytes, 0, w, x, M, N, row_bytes, epilogue);
  });
}

int main() {
  using namespace cu;
#ifdef KERF_QUICK
  check<f16, 128, 128, 64, 64, 3, f16>("f16 128x128", {{128, 128, 320}}, false);
#else
  // whole tiles, and 3 of K for 3 stages; less than a fragment; ragged everywhere
  const std::vector<Shape> halves = {{128, 128, 320}, {1, 1, 8}, {132, 131, 72}};
  const std::vector<Shape> bytes = {{128, 128, 640}, {3, 5, 16}, {137, 66, 208}};
  check<f16, 128, 128, 64, 64, 3, f16>("f16 128x128", halves, false);
  check<bf16, 128, 128, 64, 64, 3, bf16>("bf16 128x128", halves, false);
  check<s8, 128, 128, 64, 64, 3, float>("s8 128x128 exact", bytes, true);
  check<s8, 128, 128, 64, 64, 3, f16>("s8 128x128 scaled", bytes, false);
  check<f16, 128, 64, 64, 32, 3, f16>("f16 128x64", {{128, 64, 256}, {200, 70, 136}}, false);
  check<s8, 128, 64, 64, 32, 3, float>("s8 128x64 exact", {{130, 100, 272}}, true);
  check<f16, 128, 16, 32, 16, 4, f16>("f16 128x16", {{256, 16, 512}, {100, 1, 88}}, false);
  check<s8, 128, 16, 32, 16, 4, float>("s8 128x16 exact", {{129, 17, 1024}}, true);
#endif
}
