// All compiled products by name: launched on operands that lie on the GPU, checked against float64, and timed.
#pragma once
#include <functional>

#include "test/cuda/packed_cases.h"
#ifdef KERF_HOPPER
#include "native/cuda/matmul_table.h"
#else
#include "native/cuda/matmul_config.h"
#include "native/cuda/matmul_simt.cuh"
#endif

namespace products {

using namespace kerf::cuda;
using cases::Product;
using cases::Shape;

// What a launch needs; pointers that a kind does not use are null.
struct Operands {
  uint8_t *w, *x, *out;
  PackedWeights packed;
  const uint32_t* metadata;
  Split split;
  const float *weight_scale, *token_scale, *bias;
  kerf::Activation activation;
  int M, N, K, parts, multiprocessors;

  template <class Out>
  Epilogue<Out> epilogue() const {
    return {weight_scale, token_scale, bias, activation, reinterpret_cast<typename Stored<Out>::Element*>(out)};
  }
};

enum class Weights { dense, codes8, codes4, kept, kept_by_tma };

struct Entry {
  std::string name;
  int bytes;  // of an element of X
  int out_bytes, BM, BN;
  bool splits;
  Weights weights;
  std::function<void(const Operands&)> launch;
  std::function<double(Shape, const Entry&)> check;  // the worst element, in units of its bound
};

template <class C>
dim3 grid_of(const Operands& o) {
  return dim3((o.M + C::BM - 1) / C::BM, (o.N + C::BN - 1) / C::BN, o.parts);
}

// Random numbers through the kernel, outputs poisoned.
template <class T, class Out>
double check(Shape shape, const Entry& entry) {
  constexpr int kBytes = cases::bytes_of<T>();
  Product<T, Out> p({shape, false, false, 0});
  const int parts = entry.splits ? 3 : 1;
  const cases::Scratch scratch(shape.m, shape.n, entry.BM, entry.BN, parts);
  Operands o{p.w.data(), p.x.data(), reinterpret_cast<uint8_t*>(p.out.data()), {}, nullptr, scratch.split(),
             p.weight_scale.data(), p.token_scale.data(), p.bias.data(), p.activation(), shape.m, shape.n, shape.k,
             parts, 3};
  auto run = [&] {
    entry.launch(o);
    target::wait();
    if (entry.splits && parts > 1) scratch.check();
    return p.worst();
  };
  if (entry.weights == Weights::dense) return run();
  if constexpr (kBytes == 2) {
    if (entry.weights == Weights::codes8 || entry.weights == Weights::codes4) {
      const cases::PackedCodes codes(p, {entry.weights == Weights::codes8 ? 8 : 4, 64, true, true});
      o.packed = codes.weights();
      return run();
    }
  }
  if constexpr (kBytes < 4) {
    const cases::Kept<T> kept(p);
    const target::Buffer<uint8_t> units(size_t(packed_kept_bytes(shape.m, shape.k, kBytes)));
    const target::Buffer<uint32_t> metadata(
        size_t(rounded_up(shape.m, 16) / 16 * steps_of(shape.k, kBytes) * 32 * kept_metadata_words(kBytes)));
    pack_kept(units.data(), kept.values.data(), kept.metadata, kBytes);
    pack_metadata(metadata.data(), kept.metadata, kBytes);
    o.packed = {units.data(), nullptr, nullptr, 0};
    o.metadata = metadata.data();
    o.w = kept.values.data();
    return run();
  }
  return INFINITY;
}

template <class C, class Out>
Entry entry_of(std::string kind, bool splits, Weights weights, std::function<void(const Operands&)> launch) {
  using T = typename C::T;
  const char* type = std::is_same_v<T, cu::f16> ? "f16" : std::is_same_v<T, cu::bf16> ? "bf16" : "i8";
  const char* out = std::is_same_v<Out, cu::f16> ? "f16" : std::is_same_v<Out, cu::bf16> ? "bf16" : "f32";
  std::string name = kind + "_" + type + "_" + out + "_" + std::to_string(C::BM) + "x" + std::to_string(C::BN);
  const int out_bytes = std::is_same_v<Out, float> ? 4 : 2;
  return {name, cu::kBytesOf<T>, out_bytes, C::BM, C::BN, splits, weights, std::move(launch), check<T, Out>};
}

template <class C, class Out>
Entry mma_entry() {
  return entry_of<C, Out>("mma", false, Weights::dense, [](const Operands& o) {
    const uint8_t *w = o.w, *x = o.x;
    target::enqueue(matmul_mma<C, Epilogue<Out>>, grid_of<C>(o), C::kThreads, C::kSharedBytes, w, x, o.M, o.N,
                    o.K * cu::kBytesOf<typename C::T>, o.epilogue<Out>());
  });
}
template <class C, class Out>
Entry split_entry() {
  return entry_of<C, Out>("split", true, Weights::dense, [](const Operands& o) {
    const uint8_t *w = o.w, *x = o.x;
    target::enqueue(matmul_mma_split<C, Epilogue<Out>>, grid_of<C>(o), C::kThreads, C::kSharedBytes, w, x, o.M, o.N,
                    o.K * cu::kBytesOf<typename C::T>, o.split, o.epilogue<Out>());
  });
}
template <class C, class Out>
Entry packed_entry(const char* kind, Weights weights) {
  return entry_of<C, Out>(kind, true, weights, [](const Operands& o) {
    const uint8_t* x = o.x;
    target::enqueue(matmul_packed<C, Epilogue<Out>>, grid_of<C>(o), C::kThreads, C::kSharedBytes, o.packed, x, o.M, o.N,
                    o.K * cu::kBytesOf<typename C::T>, o.split, o.epilogue<Out>());
  });
}
template <class C>
Entry codes_entry() {
  const bool four = C::Weights::kMiddle == 8;
  return packed_entry<C, typename C::T>(four ? "codes4" : "codes8", four ? Weights::codes4 : Weights::codes8);
}
#ifdef KERF_HOPPER
template <class C, class Out>
Entry wgmma_entry() {
  return entry_of<C, Out>("wgmma", false, Weights::dense, [](const Operands& o) {
    constexpr int kBytes = cu::kBytesOf<typename C::T>;
    const auto w = target::tensor_map(o.w, o.M, o.K * kBytes, C::BM, kBytes);
    const auto x = target::tensor_map(o.x, o.N, o.K * kBytes, C::BN, kBytes);
    target::enqueue(matmul_wgmma<C, Epilogue<Out>>, dim3(o.multiprocessors), C::kThreads, C::kSharedBytes, w, x, o.M,
                    o.N, o.K * kBytes, o.epilogue<Out>());
  });
}
template <class C, class Out>
Entry wgmma_sparse_entry() {
  return entry_of<C, Out>("wgmma_sparse", false, Weights::kept_by_tma, [](const Operands& o) {
    constexpr int kBytes = cu::kBytesOf<typename C::T>;
    const auto w = target::tensor_map(o.w, o.M, o.K / 2 * kBytes, C::BM, kBytes);
    const auto x = target::tensor_map(o.x, o.N, o.K * kBytes, C::BN, kBytes);
    target::enqueue(matmul_wgmma_sparse<C, Epilogue<Out>>, dim3(o.multiprocessors), C::kThreads, C::kSharedBytes, w, x,
                    o.metadata, o.M, o.N, o.K * kBytes, o.epilogue<Out>());
  });
}
#endif

inline Entry simt_entry() {
  auto launch = [](const Operands& o) {
    const float *w = reinterpret_cast<const float*>(o.w), *x = reinterpret_cast<const float*>(o.x);
    target::enqueue(matmul_simt<Epilogue<float>>, dim3((o.M + 127) / 128, (o.N + 127) / 128), kSimtThreads,
                    kSimtSharedBytes, w, x, o.M, o.N, o.K, o.epilogue<float>());
  };
  return {"simt_f32_f32_128x128", 4, 4, 128, 128, false, Weights::dense, launch, check<float, float>};
}

inline std::vector<Entry> all() {
  return {
      simt_entry(),
#define KERF_MMA(T, BM, BN, WM, WN, STAGES, Out) mma_entry<MmaConfig<T, BM, BN, WM, WN, STAGES>, Out>(),
#define KERF_SPLIT(T, BM, BN, WM, WN, STAGES, Out) split_entry<MmaConfig<T, BM, BN, WM, WN, STAGES>, Out>(),
#define KERF_CODES(Codes, T, BM, BN, WM, WN, STAGES) codes_entry<PackedConfig<Codes<T>, BM, BN, WM, WN, STAGES>>(),
#define KERF_KEPT(T, BM, BN, WM, WN, STAGES, Out) \
  packed_entry<PackedConfig<Kept2of4<T>, BM, BN, WM, WN, STAGES>, Out>("kept", Weights::kept),
#ifdef KERF_HOPPER
#define KERF_WGMMA(T, BN, STAGES, TOKENS, Out) wgmma_entry<WgmmaConfig<T, BN, STAGES, TOKENS>, Out>(),
#define KERF_WGMMA_SPARSE(T, STAGES, Out) wgmma_sparse_entry<WgmmaSparseConfig<T, STAGES>, Out>(),
#endif
#include "native/cuda/matmul.def"
  };
}

}  // namespace products
