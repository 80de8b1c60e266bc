// matmul_packed and matmul_mma_split in the emulator. With KERF_QUICK one product only: what a broken kernel is tried
// on.
#include "emulator/emulator.h"
#include "packed_cases.h"

using namespace cases;

template <class C, class P>
static void launch(P& p, const PackedWeights& weights, int split) {
  using Out = typename P::Output;
  const uint8_t* x = p.x.data();
  const int M = p.s.m, N = p.s.n, row_bytes = p.s.k * cu::kBytesOf<typename C::T>;
  const auto epilogue = p.epilogue();
  const Scratch scratch(M, N, C::BM, C::BN, split);
  const Split parts = scratch.split();
  CU_LAUNCH((matmul_packed<C, Epilogue<Out>>), dim3((M + C::BM - 1) / C::BM, (N + C::BN - 1) / C::BN, split),
            dim3(C::kThreads), C::kSharedBytes, 0, weights, x, M, N, row_bytes, parts, epilogue);
  scratch.check();
}

template <class T, int BM, int BN, int WM, int WN, int STAGES, class Out>
static void check_split(const char* kernel, const std::vector<Shape>& shapes, bool plain, int split) {
  using C = MmaConfig<T, BM, BN, WM, WN, STAGES>;
  all<T, Out>(kernel, shapes, plain, [=](Product<T, Out>& p) {
    const uint8_t *w = p.w.data(), *x = p.x.data();
    const int M = p.s.m, N = p.s.n, row_bytes = p.s.k * cu::kBytesOf<T>;
    const auto epilogue = p.epilogue();
    const Scratch scratch(M, N, BM, BN, split);
    const Split parts = scratch.split();
    CU_LAUNCH((matmul_mma_split<C, Epilogue<Out>>), dim3((M + BM - 1) / BM, (N + BN - 1) / BN, split),
              dim3(C::kThreads), C::kSharedBytes, 0, w, x, M, N, row_bytes, parts, epilogue);
    scratch.check();
  });
}

template <template <class> class Codes, class T, int BN, int WM, int WN, class Out>
static void check_codes(const char* kernel, const std::vector<Shape>& shapes, CodeFormat format, int split) {
  using C = PackedConfig<Codes<T>, 128, BN, WM, WN, 4>;
  all<T, Out>(kernel, shapes, false, [=](Product<T, Out>& p) {
    CodeFormat f = format;
    if (f.group == 0) f.group = rounded_up(p.s.k, 64);  // one for each feature
    const PackedCodes packed(p, f);
    launch<C>(p, packed.weights(), split);
  });
}

template <class T, int BN, int WM, int WN, int STAGES, class Out>
static void check_kept(const char* kernel, const std::vector<Shape>& shapes, bool plain, int split) {
  using C = PackedConfig<Kept2of4<T>, 128, BN, WM, WN, STAGES>;
  all<T, Out>(kernel, shapes, plain, [=](Product<T, Out>& p) {
    const Kept<T> kept(p);
    const Buffer<uint8_t> units(size_t(packed_kept_bytes(p.s.m, p.s.k, bytes_of<T>())));
    pack_kept(units.data(), kept.values.data(), kept.metadata, bytes_of<T>());
    launch<C>(p, {units.data(), nullptr, nullptr, 0}, split);
  });
}

int main() {
  using namespace cu;
#if defined(KERF_QUICK) && KERF_QUICK == 2
  check_kept<f16, 64, 64, 32, 3, f16>("2:4 f16 128x64", {{72, 64, 512}}, false, 1);
#elif defined(KERF_QUICK)
  // a part ends in the first stage, which the sums overwrite
  check_codes<Codes8, f16, 16, 32, 16, f16>("w8 f16 128x16", {{128, 16, 640}}, {8, 64, true, true}, 2);
#else
  // whole tiles; less than a fragment, and fewer steps of K than parts; ragged everywhere
  const std::vector<Shape> few = {{128, 8, 512}, {1, 1, 8}, {136, 11, 328}}, some = {{256, 32, 256}, {137, 35, 200}};
  const std::vector<Shape> halves = {{128, 16, 256}, {140, 9, 328}};
  check_split<f16, 128, 8, 32, 8, 4, f16>("f16 128x8 split", few, false, 3);
  check_split<bf16, 128, 16, 32, 16, 4, bf16>("bf16 128x16 split", {{128, 16, 512}, {136, 19, 200}}, false, 2);
  check_split<f16, 128, 32, 32, 32, 3, f16>("f16 128x32 split", some, false, 2);
  check_split<s8, 128, 64, 64, 32, 3, float>("s8 128x64 split exact", {{128, 64, 512}, {129, 70, 400}}, true, 2);
  check_split<s8, 128, 8, 32, 8, 4, float>("s8 128x8 split exact", {{133, 3, 1040}}, true, 4);

  check_codes<Codes8, f16, 8, 32, 8, f16>("w8 f16 128x8", few, {8, 0, true, false}, 3);
  check_codes<Codes8, bf16, 16, 32, 16, bf16>("w8 bf16 128x16", halves, {8, 128, false, true}, 1);
  check_codes<Codes8, f16, 32, 32, 32, float>("w8 f16 128x32", some, {8, 64, true, true}, 2);
  check_codes<Codes4, f16, 8, 32, 8, f16>("w4 f16 128x8", few, {4, 128, true, false}, 4);
  check_codes<Codes4, bf16, 16, 32, 16, bf16>("w4 bf16 128x16", halves, {4, 64, false, true}, 2);
  check_codes<Codes4, f16, 64, 64, 32, f16>("w4 f16 128x64", {{128, 64, 128}, {200, 70, 136}}, {4, 64, true, true}, 1);

  check_kept<f16, 8, 32, 8, 4, f16>("2:4 f16 128x8", few, false, 2);
  check_kept<bf16, 64, 64, 32, 3, bf16>("2:4 bf16 128x64", {{128, 64, 256}, {200, 70, 136}}, false, 1);
  check_kept<f16, 128, 64, 64, 3, f16>("2:4 f16 128x128", {{128, 128, 256}}, false, 1);
  check_kept<s8, 128, 64, 64, 3, float>("2:4 s8 128x128 exact", {{128, 128, 512}, {3, 5, 16}, {137, 66, 208}}, true, 1);
  check_kept<s8, 16, 32, 16, 4, float>("2:4 s8 128x16 exact", {{129, 17, 1040}}, true, 3);
#endif
}
