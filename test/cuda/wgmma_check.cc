// matmul_wgmma in the emulator. With KERF_QUICK one product only: what a broken kernel is tried on.
#include "emulator/emulator.h"
#include "matmul_cases.h"
#include "native/cuda/sm90/matmul_wgmma_sparse.cuh"
#include "packed_cases.h"

using namespace cases;

template <class T, int BN, int TOKENS, class Out>
static void check(const char* kernel, const std::vector<Shape>& shapes, bool plain, unsigned blocks) {
  using C = WgmmaConfig<T, BN, 4, TOKENS>;
  all<T, Out>(kernel, shapes, plain, [=](Product<T, Out>& p) {
    const int M = p.s.m, N = p.s.n, row_bytes = p.s.k * cu::kBytesOf<T>;
    const cu::TensorMap w{p.w.data(), M, row_bytes, row_bytes, C::BM, cu::kBytesOf<T>};
    const cu::TensorMap x{p.x.data(), N, row_bytes, row_bytes, C::BN, cu::kBytesOf<T>};
    const auto epilogue = p.epilogue();
    CU_LAUNCH((matmul_wgmma<C, Epilogue<Out>>), dim3(blocks), dim3(C::kThreads), C::kSharedBytes, 0, w, x, M, N,
              row_bytes, epilogue);
  });
}

template <class T, class Out>
static void check_sparse(const char* kernel, const std::vector<Shape>& shapes, bool plain, unsigned blocks) {
  using C = WgmmaSparseConfig<T, 3>;
  all<T, Out>(kernel, shapes, plain, [=](Product<T, Out>& p) {
    constexpr int kBytes = cu::kBytesOf<T>;
    const int M = p.s.m, N = p.s.n, row_bytes = p.s.k * kBytes, kept_bytes = row_bytes / 2;
    const Kept<T> kept(p);
    const int64_t words = rounded_up(M, 16) / 16 * steps_of(p.s.k, kBytes) * 32 * kept_metadata_words(kBytes);
    const Buffer<uint32_t> packed{size_t(words)};
    pack_metadata(packed.data(), kept.metadata, kBytes);
    const uint32_t* metadata = packed.data();
    const cu::TensorMap w{kept.values.data(), M, kept_bytes, kept_bytes, C::BM, kBytes};
    const cu::TensorMap x{p.x.data(), N, row_bytes, row_bytes, C::BN, kBytes};
    const auto epilogue = p.epilogue();
    CU_LAUNCH((matmul_wgmma_sparse<C, Epilogue<Out>>), dim3(blocks), dim3(C::kThreads), C::kSharedBytes, 0, w, x,
              metadata, M, N, row_bytes, epilogue);
  });
}

int main() {
  using namespace cu;
#if defined(KERF_QUICK) && KERF_QUICK == 2
  check_sparse<s8, float>("s8 wgmma.sp exact", {{136, 128, 1120}}, true, 1);
#elif defined(KERF_QUICK)
  check<f16, 128, 128, f16>("f16 wgmma", {{256, 256, 384}}, false, 2);
#else
  // 2 blocks for 2 x 2 tiles, more steps of K than stages; less than a fragment; ragged everywhere
  check<f16, 128, 128, f16>("f16 wgmma", {{256, 256, 384}, {1, 1, 8}, {132, 131, 72}}, false, 2);
  check<bf16, 128, 128, bf16>("bf16 wgmma", {{140, 64, 328}}, false, 1);
  check<s8, 128, 128, float>("s8 wgmma exact", {{256, 128, 1024}, {137, 66, 208}}, true, 3);
  check<f16, 256, 32, f16>("f16 wgmma 256", {{128, 256, 320}, {140, 270, 72}}, false, 1);
  check<s8, 256, 32, float>("s8 wgmma 256 exact", {{131, 260, 208}}, true, 2);
  // kept rows are multiples of 16 bytes too
  check_sparse<f16, f16>("f16 wgmma.sp", {{128, 128, 640}, {1, 1, 16}, {140, 131, 80}}, false, 2);
  check_sparse<bf16, bf16>("bf16 wgmma.sp", {{136, 64, 208}}, false, 1);
  check_sparse<s8, float>("s8 wgmma.sp exact", {{256, 128, 1280}, {137, 66, 160}}, true, 2);
#endif
}
