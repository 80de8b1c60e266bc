// Split-K: several blocks share an output tile, each sums a part of K, and the one that ends last adds the parts up, in
// the order of K whoever ends when: the result does not depend on timing. A second kernel would do as well and cost
// another launch, some microseconds where a product of few tokens takes twenty.
#pragma once
#include "epilogue.h"

namespace kerf {
namespace cuda {

// Plain data. gridDim.z blocks share a tile. `parts`: a tile's sums are BM * BN 4-byte numbers, [tile][part][BN][BM],
// 16-byte aligned, nothing in them; `arrived`: a word for each tile, 0 before the launch and after it. Both unused if
// gridDim.z is 1.
struct Split {
  uint8_t* parts;
  unsigned* arrived;
};

// The part of `tiles` steps of K that this block sums.
struct PartOfK {
  int first, end;
  CU_FUNCTION explicit PartOfK(int tiles)
      : first(static_cast<int>(static_cast<long long>(tiles) * blockIdx.z / gridDim.z)),
        end(static_cast<int>(static_cast<long long>(tiles) * (blockIdx.z + 1) / gridDim.z)) {}
};

// Finishes the tile of sums that a block has left in shared memory (Tile of epilogue.h; all of its threads have passed
// a barrier since): stores it, or adds it to the other blocks' parts. `flag`: 4 bytes of shared memory beside the tile.
template <class Tile, class Sum, class E>
CU_FUNCTION void store_split(const uint8_t* tile, unsigned* flag, const Split& split, const E& epilogue, int thread,
                             int m0, int n0, int M, int N) {
  if (gridDim.z == 1) {
    Tile::template store<Sum>(tile, epilogue, thread, m0, n0, M, N);
    return;
  }
  using Four = typename Tile::template Four<Sum>;
  const int number = blockIdx.y * gridDim.x + blockIdx.x, column = thread % Tile::kLanesOfRow * 4;
  Four* const parts = reinterpret_cast<Four*>(split.parts) + static_cast<size_t>(number) * gridDim.z * Tile::kFours;
  const auto at = [&](int row) { return row * Tile::kLanesOfRow + thread % Tile::kLanesOfRow; };
  for (int row = thread / Tile::kLanesOfRow; row < Tile::kRows; row += Tile::kRowsAtOnce)
    cu::store_global(parts + blockIdx.z * Tile::kFours + at(row), Tile::template load<Sum>(tile, row, column));
  cu::sync_threads();  // the block's part is complete: one fence covers it
  if (thread == 0) {
    cu::fence_global();
    const unsigned earlier = cu::atomic_add(split.arrived + number, 1);
    cu::fence_global();
    if (earlier == gridDim.z - 1) cu::store_global(split.arrived + number, 0u);
    cu::store_shared(flag, earlier);
  }
  cu::sync_threads();
  if (cu::load_shared(flag) != gridDim.z - 1) return;
  const typename E::Terms terms(epilogue, m0 + column, M);
  for (int row = thread / Tile::kLanesOfRow; row < Tile::kRows && n0 + row < N; row += Tile::kRowsAtOnce) {
    Sum sum[4] = {};
    for (int part = 0; part < static_cast<int>(gridDim.z); part++) {
      const Four four = cu::load_written(parts + part * Tile::kFours + at(row));
      sum[0] += four.x, sum[1] += four.y, sum[2] += four.z, sum[3] += four.w;
    }
    store_four(epilogue, terms, sum, m0 + column, n0 + row, M);
  }
}

}  // namespace cuda
}  // namespace kerf
