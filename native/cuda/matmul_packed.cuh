// Y[n][m] = epilogue(sum over k of W[m][k] X[n][k]) with packed weights (packed_weights.h): codes of 8 or 4 bits by
// float16 or bfloat16 activations, converted in registers, or 2:4 sparse ones by mma.sp. For few tokens split along K.
//
// Contract: X is N rows of `row_bytes`, a multiple of 16, 16-byte aligned; any M, N >= 1; the packer pads M to 16 and K
// to a unit. Launch: grid (ceil(M / BM), ceil(N / BN), parts of K), Config::kThreads, Config::kSharedBytes. A stage
// holds what a step needs of all: units, activations (128-byte rows, swizzled as in matmul_mma.cuh), and the scales and
// zero points of the step's group. A group's sums are scaled in float32: (sum of code X) * scale, not sum of rounded
// weights.
#pragma once
#include "matmul_mma.cuh"
#include "packed_weights.h"

namespace kerf {
namespace cuda {

template <class Weights_, int BM_, int BN_, int WM_, int WN_, int STAGES_>
struct PackedConfig {
  using Weights = Weights_;
  using T = typename Weights::T;
  using Sum = typename cu::Sum_of<T>::type;
  static constexpr int BM = BM_, BN = BN_, WM = WM_, WN = WN_, STAGES = STAGES_, kRow = 128;
  static constexpr int kWarpsM = BM / WM, kWarpsN = BN / WN, kThreads = 32 * kWarpsM * kWarpsN;
  static constexpr int kUnits = BM / 16, kActivations = kUnits * Weights::kUnitBytes;
  static constexpr int kScales = kActivations + BN * kRow, kZeros = kScales + (Weights::kScaled ? BM * 4 : 0);
  static constexpr int kStageBytes = (kZeros + (Weights::kScaled ? BM : 0) + 127) / 128 * 128;
  using Tile = SumTile<BM, BN, kThreads>;
  static constexpr int kFlag = STAGES * kStageBytes > Tile::kBytes ? STAGES * kStageBytes : Tile::kBytes;
  static constexpr int kSharedBytes = kFlag + 16;
  // By codes and many tokens ptxas is told how many blocks the shared memory of sm_80 has room for (164 KiB): it aims at more by itself,
  // and spills. 0: it is told nothing.
  static constexpr int kBlocksAtOnce = Weights::kScaled && BN >= 32 ? 164 * 1024 / (kSharedBytes + 1024) : 0;
  static constexpr int kSteps = kRow / cu::kBytesOf<T>;  // elements of K that a step takes
  static_assert(WM % 16 == 0 && WN % 8 == 0 && STAGES >= 2 && kActivations % 128 == 0, "whole fragments");
};

// Copies `count` chunks of 16 bytes, one after the other by all threads; those from `valid` on become zeros.
template <int count, int threads>
CU_FUNCTION void copy_chunks(uint8_t* to, const uint8_t* from, int valid, int thread) {
#pragma unroll
  for (int i = 0; i < count; i += threads)
    if (count % threads == 0 || i + thread < count)
      cu::copy_async16(to + (i + thread) * 16, from + (i + thread) * 16, i + thread < valid);
}

// The B operands of a warp's tokens for half a step, 64 bytes of K.
template <class C>
CU_FUNCTION void take_activations(uint32_t (&b)[C::WN / 8][4], uint8_t* activations, int warp_n, int lane, int half) {
#pragma unroll
  for (int j = 0; j < C::WN / 8; j++)
    cu::load_matrix_x4(b[j], swizzled(activations, warp_n + j * 8 + lane % 8, half * 4 + lane / 8));
}

// Adds half a step of 2:4 weights.
template <class C, int half>
CU_FUNCTION void add_kept(typename C::Sum (&d)[C::WM / 16][C::WN / 8][4], uint8_t* stage, int warp_m, int warp_n,
                          int lane) {
  using Weights = typename C::Weights;
  uint32_t b[C::WN / 8][4];
  take_activations<C>(b, stage + C::kActivations, warp_n, lane, half);
#pragma unroll
  for (int i = 0; i < C::WM / 16; i++) {
    Weights w;
    w.take(stage + (warp_m / 16 + i) * Weights::kUnitBytes, lane, half);
#pragma unroll
    for (int j = 0; j < C::WN / 8; j++)
      cu::mma_sparse<Weights::kMetadataWords == 1 ? half : 0>(typename C::T{}, d[i][j], w.a, b[j], w.metadata);
  }
}

// Adds a step of codes, all of one group.
template <class C>
CU_FUNCTION void add_codes(float (&d)[C::WM / 16][C::WN / 8][4], uint8_t* stage, int warp_m, int warp_n, int lane,
                           bool zeros) {
  using Weights = typename C::Weights;
  using Codes = Magic<typename C::T>;
  uint32_t b[2][C::WN / 8][4];
  take_activations<C>(b[0], stage + C::kActivations, warp_n, lane, 0);
  take_activations<C>(b[1], stage + C::kActivations, warp_n, lane, 1);
#pragma unroll
  for (int i = 0; i < C::WM / 16; i++) {
    const int row = warp_m + i * 16 + lane / 4;
    const float* const scale = reinterpret_cast<const float*>(stage + C::kScales) + row;
    const uint8_t* const zero = stage + C::kZeros + row;
    const auto zero0 = Codes::zero(zeros ? cu::load_shared(zero) : Weights::kMiddle);
    const auto zero8 = Codes::zero(zeros ? cu::load_shared(zero + 8) : Weights::kMiddle);
    float group[C::WN / 8][4] = {};
#pragma unroll
    for (int half = 0; half < 2; half++) {
      Weights w;
      w.take(stage + (warp_m / 16 + i) * Weights::kUnitBytes, lane, half, zero0, zero8);
#pragma unroll
      for (int j = 0; j < C::WN / 8; j++) {
        cu::mma(typename C::T{}, group[j], w.a[0], b[half][j][0], b[half][j][1]);
        cu::mma(typename C::T{}, group[j], w.a[1], b[half][j][2], b[half][j][3]);
      }
    }
    const float scale0 = cu::load_shared(scale), scale8 = cu::load_shared(scale + 8);
#pragma unroll
    for (int j = 0; j < C::WN / 8; j++)
#pragma unroll
      for (int e = 0; e < 4; e++) d[i][j][e] += (e < 2 ? scale0 : scale8) * group[j][e];
  }
}

template <class C, class E>
__global__ void __launch_bounds__(C::kThreads, C::kBlocksAtOnce)
    matmul_packed(PackedWeights W, const uint8_t* X, int M, int N, int row_bytes, Split split, E epilogue) {
  using Weights = typename C::Weights;
  uint8_t* const shared = cu::shared_memory();
  const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
  const int warp_m = warp % C::kWarpsM * C::WM, warp_n = warp / C::kWarpsM * C::WN;
  const int m0 = blockIdx.x * C::BM, n0 = blockIdx.y * C::BN, tiles = (row_bytes + C::kRow - 1) / C::kRow;
  const int units = (M + 15) / 16, units_here = units - m0 / 16;  // some of a block's may be beyond the end
  const PartOfK part(tiles);

  auto load = [&](int tile) {
    uint8_t* const to = shared + tile % C::STAGES * C::kStageBytes;
    constexpr int kChunks = Weights::kUnitBytes / 16;
#pragma unroll
    for (int i = 0; i < C::kUnits * kChunks; i += C::kThreads) {
      const int chunk = i + thread, unit = chunk / kChunks;
      if (C::kUnits * kChunks % C::kThreads && chunk >= C::kUnits * kChunks) break;
      // Beyond the end comes the last unit once more, not zeros: those would be no metadata.
      const int row = m0 / 16 + (unit < units_here ? unit : units_here - 1);
      const uint8_t* const from =
          W.units + (static_cast<size_t>(row) * tiles + tile) * Weights::kUnitBytes + chunk % kChunks * 16;
      cu::copy_async16(to + chunk * 16, from, true);
    }
#pragma unroll
    for (int i = 0; i < C::BN * 8; i += C::kThreads) {
      const int row = (i + thread) / 8, chunk = (i + thread) % 8, byte = tile * C::kRow + chunk * 16;
      if (C::BN * 8 % C::kThreads && row >= C::BN) break;
      cu::copy_async16(swizzled(to + C::kActivations, row, chunk), X + static_cast<size_t>(n0 + row) * row_bytes + byte,
                       n0 + row < N && byte < row_bytes);
    }
    if constexpr (Weights::kScaled) {
      const size_t at = static_cast<size_t>(tile * C::kSteps / W.group) * (units * 16) + m0;
      copy_chunks<C::BM / 4, C::kThreads>(to + C::kScales, reinterpret_cast<const uint8_t*>(W.scale + at),
                                          units_here * 4, thread);
      if (W.zero) copy_chunks<C::BM / 16, C::kThreads>(to + C::kZeros, W.zero + at, units_here, thread);
    }
  };

  typename C::Sum d[C::WM / 16][C::WN / 8][4] = {};
#pragma unroll
  for (int s = 0; s < C::STAGES - 1; s++) {
    if (part.first + s < part.end) load(part.first + s);
    cu::copy_commit();
  }
  for (int t = part.first; t < part.end; t++) {
    cu::copy_wait<C::STAGES - 2>();  // step t has landed for this thread,
    cu::sync_threads();              // and for all; and all have read the stage that the next load overwrites
    if (t + C::STAGES - 1 < part.end) load(t + C::STAGES - 1);
    cu::copy_commit();
    uint8_t* const stage = shared + t % C::STAGES * C::kStageBytes;
    if constexpr (Weights::kSparse) {
      add_kept<C, 0>(d, stage, warp_m, warp_n, lane);
      add_kept<C, 1>(d, stage, warp_m, warp_n, lane);
    } else {
      add_codes<C>(d, stage, warp_m, warp_n, lane, W.zero != nullptr);
    }
  }

  cu::sync_threads();  // the sums overwrite the stages
#pragma unroll
  for (int j = 0; j < C::WN / 8; j++)
#pragma unroll
    for (int i = 0; i < C::WM / 16; i++)
      C::Tile::put(shared, warp_m + i * 16 + lane / 4, warp_n + j * 8 + lane % 4 * 2, d[i][j][0], d[i][j][1],
                   d[i][j][2], d[i][j][3]);
  cu::sync_threads();
  store_split<typename C::Tile, typename C::Sum>(shared, reinterpret_cast<unsigned*>(shared + C::kFlag), split,
                                                 epilogue, thread, m0, n0, M, N);
}

}  // namespace cuda
}  // namespace kerf
