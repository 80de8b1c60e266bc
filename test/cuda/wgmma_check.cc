// matmul_wgmma in the emulator. With KERF_QUICK one product only: what a broken kernel is tried on.
#include "emulator/emulator.h"
#include "matmul_cases.h"
#include "native/cuda/sm90/matmul_wgmma.cuh"

using namespace cases;

template <class T, class Out>
static void check(const char* kernel, const std::vector<Shape>& shapes, bool plain, unsigned blocks) {
  using C = WgmmaConfig<T, 4>;
  all<T, Out>(kernel, shapes, plain, [=](Product<T, Out>& p) {
    const int M = p.s.m, N = p.s.n, row_bytes = p.s.k * cu::kBytesOf<T>;
    const cu::TensorMap w{p.w.data(), M, row_bytes, row_bytes, C::BM, cu::kBytesOf<T>};
    const cu::TensorMap x{p.x.data(), N, row_bytes, row_bytes, C::BN, cu::kBytesOf<T>};
    const auto epilogue = p.epilogue();
    CU_LAUNCH((matmul_wgmma<C, Epilogue<Out>>), dim3(blocks), dim3(C::kThreads), C::kSharedBytes, 0, w, x, M, N,
              row_bytes, epilogue);
  });
}

int main() {
  using namespace cu;
#ifdef KERF_QUICK
  check<f16, f16>("f16 wgmma", {{256, 256, 384}}, false, 2);
#else
  // 2 blocks for 2 x 2 tiles, more steps of K than stages; less than a fragment; ragged everywhere
  check<f16, f16>("f16 wgmma", {{256, 256, 384}, {1, 1, 8}, {132, 131, 72}}, false, 2);
  check<bf16, bf16>("bf16 wgmma", {{140, 64, 328}}, false, 1);
  check<s8, float>("s8 wgmma exact", {{256, 128, 1024}, {137, 66, 208}}, true, 3);
#endif
}
