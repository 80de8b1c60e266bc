// Y[n][m] = epilogue(sum over k of W[m][k] X[n][k]) with a 2:4 sparse W by wgmma.sp and TMA on sm_90a: the structure of
// matmul_wgmma.cuh, with twice as much of X a stage, and metadata that the consumers fetch into registers a step ahead.
//
// Contract: tensor maps of W's kept values (M rows of half of K) and X (N rows), boxes of 128 rows x 128 bytes,
// 128-byte swizzle, zeros outside; row pitches multiples of 16 bytes; metadata as pack_metadata (pack.h) makes it, for
// ceil(M / 16) blocks of 16 rows and ceil(row_bytes / 128) steps of K. row_bytes: of X. Any M, N >= 1.
#pragma once
#include "matmul_wgmma.cuh"

namespace kerf {
namespace cuda {

template <class T_, int STAGES_>
struct WgmmaSparseConfig {
  using T = T_;
  using Sum = typename cu::Sum_of<T>::type;
  static constexpr int BM = 128, BN = 128, STAGES = STAGES_, TOKENS = 128, kRow = 128;
  static constexpr int kConsumers = 256, kThreads = 128 + kConsumers;
  static constexpr int kBoxBytes = 128 * kRow, kStageBytes = 3 * kBoxBytes;  // W's kept values, and two boxes of X
  using Tile = SumTile<BM, TOKENS, kConsumers>;
  static constexpr int kSharedBytes = STAGES * kStageBytes + Tile::kBytes + 2 * STAGES * 8;
  static_assert(kSharedBytes <= 227 * 1024, "what a block may have");
  static constexpr int kElementsOfRow = kRow / cu::kBytesOf<T>;
  static constexpr int kWords = cu::kBytesOf<T> == 2 ? 1 : 2;  // of metadata for 128 bytes of X
};

// The metadata of a step, 256 bytes of X, for a thread's warp.
template <class C>
struct StepMetadata {
  uint32_t words[2 * C::kWords];
  // `from`: of the warp's 16 rows. Beyond the end of K comes the last of it once more: zeros are no metadata.
  CU_FUNCTION void load(const uint32_t* from, int lane, int step, int units) {
#pragma unroll
    for (int i = 0; i < 2; i++) {
      const int unit = step * 2 + i < units ? step * 2 + i : units - 1;
#pragma unroll
      for (int w = 0; w < C::kWords; w++)
        words[i * C::kWords + w] = cu::load_global(from + (unit * C::kWords + w) * 32 + lane);
    }
  }
};

// Product `i` of four of a step: 32 bytes of kept values by 64 of X.
template <class C, int i>
CU_FUNCTION void add_sparse(typename C::Sum (&d)[64], const uint8_t* w_tile, const uint8_t* x_tile,
                            const StepMetadata<C>& metadata, bool accumulate) {
  const uint32_t word = metadata.words[C::kWords == 1 ? i / 2 : i];
  cu::wgmma_sparse<C::kWords == 1 ? i % 2 : 0>(typename C::T{}, d, cu::tile_descriptor(w_tile + i * 32),
                                               cu::tile_descriptor(x_tile + i / 2 * C::kBoxBytes + i % 2 * 64), word,
                                               accumulate);
}

template <class C, class E>
__global__ void __launch_bounds__(C::kThreads, 1)
    matmul_wgmma_sparse(CU_GRID_CONSTANT cu::TensorMap w_map, CU_GRID_CONSTANT cu::TensorMap x_map,
                        const uint32_t* metadata, int M, int N, int row_bytes, E epilogue) {
  uint8_t* const shared = cu::shared_memory();
  uint8_t* const sums = shared + C::STAGES * C::kStageBytes;
  uint64_t* const full = reinterpret_cast<uint64_t*>(sums + C::Tile::kBytes);
  uint64_t* const empty = full + C::STAGES;
  const int thread = threadIdx.x, warpgroup = thread / 128;
  const int tiles_m = (M + C::BM - 1) / C::BM, tiles = tiles_m * ((N + C::BN - 1) / C::BN);
  const int units = (row_bytes + C::kRow - 1) / C::kRow, steps = (units + 1) / 2;
  if (thread == 0) {
    for (int s = 0; s < C::STAGES; s++) {
      cu::mbarrier_init(full + s, 1);
      cu::mbarrier_init(empty + s, 2);
    }
    cu::mbarrier_fence_init();
  }
  cu::sync_threads();

  RingPosition<C::STAGES> at;
  if (warpgroup == 0) {
    cu::registers_decrease<40>();
    if (thread != 0) return;
    for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
      const int m0 = tile % tiles_m * C::BM, n0 = tile / tiles_m * C::BN;
      for (int k = 0; k < steps; k++, at.next()) {
        cu::mbarrier_wait(empty + at.stage, at.parity ^ 1);  // passes at once in the first round
        cu::mbarrier_arrive_expect(full + at.stage, C::kStageBytes);
        uint8_t* const to = shared + at.stage * C::kStageBytes;
        cu::tma_load(to, &w_map, k * C::kElementsOfRow, m0, full + at.stage);
        cu::tma_load(to + C::kBoxBytes, &x_map, 2 * k * C::kElementsOfRow, n0, full + at.stage);
        cu::tma_load(to + 2 * C::kBoxBytes, &x_map, (2 * k + 1) * C::kElementsOfRow, n0, full + at.stage);
      }
    }
    return;
  }

  cu::registers_increase<232>();
  const int consumer = thread - 128, lane = thread % 32, row = consumer / 32 * 16 + lane / 4;
  const int blocks = (M + 15) / 16;
  typename C::Sum d[C::BN / 2];
  for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    const int m0 = tile % tiles_m * C::BM, n0 = tile / tiles_m * C::BN;
    const int block = m0 / 16 + consumer / 32;
    const uint32_t* const from =
        metadata + static_cast<size_t>(block < blocks ? block : blocks - 1) * units * (32 * C::kWords);
    StepMetadata<C> next;
    next.load(from, lane, 0, units);
    for (int k = 0; k < steps; k++, at.next()) {
      const StepMetadata<C> current = next;
      if (k + 1 < steps) next.load(from, lane, k + 1, units);
      cu::mbarrier_wait(full + at.stage, at.parity);
      const uint8_t* const w_tile = shared + at.stage * C::kStageBytes + consumer / 128 * 64 * C::kRow;
      const uint8_t* const x_tile = shared + at.stage * C::kStageBytes + C::kBoxBytes;
      cu::wgmma_fence();
      add_sparse<C, 0>(d, w_tile, x_tile, current, k > 0);
      add_sparse<C, 1>(d, w_tile, x_tile, current, true);
      add_sparse<C, 2>(d, w_tile, x_tile, current, true);
      add_sparse<C, 3>(d, w_tile, x_tile, current, true);
      cu::wgmma_commit();
      cu::wgmma_wait<0>();
      if (thread % 128 == 0) cu::mbarrier_arrive(empty + at.stage);
    }
    store_by_tokens<C>(d, sums, row, consumer, epilogue, m0, n0, M, N);
  }
}

}  // namespace cuda
}  // namespace kerf
