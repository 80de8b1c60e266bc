// matmul_simt in the emulator. With KERF_QUICK one product only: what a broken kernel is tried on.
#include "emulator/emulator.h"
#include "matmul_cases.h"
#include "native/cuda/matmul_simt.cuh"

using namespace cases;

int main() {
  std::vector<Shape> shapes = {{128, 128, 64}, {1, 1, 4}, {133, 130, 36}};
#ifdef KERF_QUICK
  shapes.resize(1);
#endif
  all<float, float>("f32 128x128", shapes, false, [](Product<float, float>& p) {
    const float *w = reinterpret_cast<const float*>(p.w.data()), *x = reinterpret_cast<const float*>(p.x.data());
    const int M = p.s.m, N = p.s.n, K = p.s.k;
    const auto epilogue = p.epilogue();
    CU_LAUNCH((matmul_simt<Epilogue<float>>), dim3((M + 127) / 128, (N + 127) / 128), dim3(kSimtThreads),
              kSimtSharedBytes, 0, w, x, M, N, K, epilogue);
  });
}
