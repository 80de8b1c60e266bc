// All compiled products by name: launched on operands that lie on the GPU, checked against float64, and timed.
#pragma once
#include <functional>

#include "test/cuda/packed_cases.h"
#include "native/cuda/matmul_table.h"

namespace products {

using namespace kerf::cuda;
using cases::Product;
using cases::Shape;

// Where the products are launched.
struct Here {
  template <auto kernel, class... Arguments>
  void enqueue(dim3 grid, int threads, int shared_bytes, const Arguments&... arguments) {
    target::enqueue(kernel, grid, threads, shared_bytes, arguments...);
  }
  cu::TensorMap tensor_map(const uint8_t* base, int rows, int row_bytes, int box_rows, int element_bytes) {
    return target::tensor_map(base, rows, row_bytes, box_rows, element_bytes);
  }
};

struct Entry {
  MatmulConfig config;
  std::string name;
  int bytes;  // of an element of X
  int out_bytes, BM, BN;
  bool splits;
  std::function<void(const MatmulOperands&)> launch;
  std::function<double(Shape, const Entry&)> check;  // the worst element, in units of its bound

  bool is(MatmulKind kind) const { return config.kind == kind; }
};

// Random numbers through the kernel, outputs poisoned.
template <class T, class Out>
double check(Shape shape, const Entry& entry) {
  constexpr int kBytes = cases::bytes_of<T>();
  Product<T, Out> p({shape, false, false, 0});
  const int parts = entry.splits ? 3 : 1;
  const cases::Scratch scratch(shape.m, shape.n, entry.BM, entry.BN, parts);
  MatmulOperands o{p.w.data(), p.x.data(), p.out.data(), {}, nullptr, scratch.split(), p.weight_scale.data(),
                   p.token_scale.data(), p.bias.data(), p.activation(), shape.m, shape.n, shape.k, parts, 3, {}};
  auto run = [&] {
    entry.launch(o);
    target::wait();
    if (entry.splits && parts > 1) scratch.check();
    return p.worst();
  };
  if (entry.is(MatmulKind::simt) || entry.is(MatmulKind::mma) || entry.is(MatmulKind::split) || entry.is(MatmulKind::wgmma))
    return run();
  if constexpr (kBytes == 2) {
    if (entry.is(MatmulKind::codes8) || entry.is(MatmulKind::codes4)) {
      const cases::PackedCodes codes(p, {entry.is(MatmulKind::codes8) ? 8 : 4, 64, true, true});
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

inline std::vector<Entry> all() {
  std::vector<Entry> entries;
  const auto add = [&](auto product) {
    using P = decltype(product);
    const MatmulConfig c = P::config();
    const bool splits = c.kind != MatmulKind::simt && c.kind != MatmulKind::mma && c.kind != MatmulKind::wgmma &&
                        c.kind != MatmulKind::wgmma_sparse;
    const auto launch = [](const MatmulOperands& o) {
      Here here;
      P::launch(here, o);
    };
    entries.push_back({c, show(c), bytes_of(c.type), bytes_of(c.out), c.features, c.tokens, splits, launch,
                       check<typename P::T, std::conditional_t<std::is_same_v<typename P::Out, AnyFormat>, float, typename P::Out>>});
  };
  each_dense(add);
  each_packed(add);
#ifdef KERF_HOPPER
  each_wgmma(add);
  each_wgmma_sparse(add);
#endif
  return entries;
}

}  // namespace products
