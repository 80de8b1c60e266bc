// Y[n][m] = epilogue(sum over k of W[m][k] X[n][k]) by wgmma and TMA on sm_90a: one warpgroup fetches, two multiply,
// blocks stay and walk over the output tiles. float16, bfloat16 and int8 from one source, in bytes of K.
//
// Contract: tensor maps of W (M rows) and X (N rows), boxes of BM and BN rows x 128 bytes, 128-byte swizzle, zeros
// outside; row pitch a multiple of 16 bytes. Any M, N >= 1. Launch: as many blocks as multiprocessors (or fewer),
// kThreads, kSharedBytes. A stage's two barriers: `full` (the producer's one arrival and its bytes), `empty` (one
// arrival of each consumer).
#pragma once
#include "../epilogue.h"

namespace kerf {
namespace cuda {

// BN is 128 or 256: a warpgroup's sums are BN / 2 registers a thread. They leave through shared memory TOKENS at a
// time.
template <class T_, int BN_, int STAGES_, int TOKENS_ = 128>
struct WgmmaConfig {
  using T = T_;
  using Sum = typename cu::Sum_of<T>::type;
  static constexpr int BM = 128, BN = BN_, STAGES = STAGES_, TOKENS = TOKENS_, kRow = 128;
  static constexpr int kConsumers = 256, kThreads = 128 + kConsumers;
  static constexpr int kWeightBytes = BM * kRow, kStageBytes = kWeightBytes + BN * kRow;
  using Tile = SumTile<BM, TOKENS, kConsumers>;
  static constexpr int kSharedBytes = STAGES * kStageBytes + Tile::kBytes + 2 * STAGES * 8;
  static_assert(kSharedBytes <= 227 * 1024, "what a block may have");
  static constexpr int kElementsOfRow = kRow / cu::kBytesOf<T>;
};

// Position in the ring of stages, and the parity of its current round.
template <int STAGES>
struct RingPosition {
  int stage = 0, parity = 0;
  CU_FUNCTION void next() {
    if (++stage < STAGES) return;
    stage = 0;
    parity ^= 1;
  }
};

// The sums of both consumers, finished and stored.
template <class C, class E>
CU_FUNCTION void store_by_tokens(const typename C::Sum (&d)[C::BN / 2], uint8_t* sums, int row, int consumer,
                                 const E& epilogue, int m0, int n0, int M, int N) {
  const int lane = consumer % 32;
#pragma unroll
  for (int first = 0; first < C::BN; first += C::TOKENS) {
    cu::named_barrier(1, C::kConsumers);  // what was there before has been stored
#pragma unroll
    for (int j = 0; j < C::TOKENS / 8; j++) {
      const int i = first / 2 + j * 4;
      C::Tile::put(sums, row, j * 8 + lane % 4 * 2, d[i], d[i + 1], d[i + 2], d[i + 3]);
    }
    cu::named_barrier(1, C::kConsumers);
    C::Tile::template store<typename C::Sum>(sums, epilogue, consumer, m0, n0 + first, M, N);
  }
}

template <class C, class E>
__global__ void __launch_bounds__(C::kThreads, 1)
    matmul_wgmma(CU_GRID_CONSTANT cu::TensorMap w_map, CU_GRID_CONSTANT cu::TensorMap x_map, int M, int N,
                 int row_bytes, E epilogue) {
  uint8_t* const shared = cu::shared_memory();
  uint8_t* const sums = shared + C::STAGES * C::kStageBytes;
  uint64_t* const full = reinterpret_cast<uint64_t*>(sums + C::Tile::kBytes);
  uint64_t* const empty = full + C::STAGES;
  const int thread = threadIdx.x, warpgroup = thread / 128;
  const int tiles_m = (M + C::BM - 1) / C::BM, tiles = tiles_m * ((N + C::BN - 1) / C::BN);
  const int steps = (row_bytes + C::kRow - 1) / C::kRow;
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
        cu::tma_load(to + C::kWeightBytes, &x_map, k * C::kElementsOfRow, n0, full + at.stage);
      }
    }
    return;
  }

  cu::registers_increase<232>();
  const int consumer = thread - 128, lane = thread % 32, row = consumer / 32 * 16 + lane / 4;
  typename C::Sum d[C::BN / 2];
  for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    const int m0 = tile % tiles_m * C::BM, n0 = tile / tiles_m * C::BN;
    for (int k = 0; k < steps; k++, at.next()) {
      cu::mbarrier_wait(full + at.stage, at.parity);
      uint8_t* const w_tile = shared + at.stage * C::kStageBytes + consumer / 128 * 64 * C::kRow;
      uint8_t* const x_tile = shared + at.stage * C::kStageBytes + C::kWeightBytes;
      cu::wgmma_fence();
#pragma unroll
      for (int i = 0; i < 4; i++)
        cu::wgmma(typename C::T{}, d, cu::tile_descriptor(w_tile + i * 32), cu::tile_descriptor(x_tile + i * 32),
                  k > 0 || i > 0);
      cu::wgmma_commit();
      cu::wgmma_wait<0>();
      if (thread % 128 == 0) cu::mbarrier_arrive(empty + at.stage);
    }
    store_by_tokens<C>(d, sums, row, consumer, epilogue, m0, n0, M, N);
  }
}

}  // namespace cuda
}  // namespace kerf
