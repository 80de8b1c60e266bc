// Y[n][m] = epilogue(sum over k of W[m][k] X[n][k]) in float32 on the ordinary cores: the exact kernel that every GPU
// has, and on the device the oracle of the others.
//
// Contract: W is M rows and X N rows of K floats, K a multiple of 4, both 16-byte aligned; any M, N >= 1. Launch: grid
// (ceil(M / 128), ceil(N / 128)), kSimtThreads, kSimtSharedBytes. A thread owns 8 x 8 sums as four 4 x 4 blocks 64
// apart. Tiles lie k-major in shared memory; the pitch of 132 floats puts the two 16-row halves that a warp writes at
// once into different banks.
#pragma once
#include "epilogue.h"

namespace kerf {
namespace cuda {

constexpr int kSimtThreads = 256;
constexpr int kSimtTile = 128, kSimtDepth = 16, kSimtPitch = kSimtTile + 4;
constexpr int kSimtStage = 2 * kSimtDepth * kSimtPitch;  // floats: W's tile, then X's
constexpr int kSimtSharedBytes = 2 * kSimtStage * 4;

template <class E>
__global__ void __launch_bounds__(kSimtThreads, 2)
    matmul_simt(const float* W, const float* X, int M, int N, int K, E epilogue) {
  float* const shared = reinterpret_cast<float*>(cu::shared_memory());
  const int thread = threadIdx.x, m0 = blockIdx.x * kSimtTile, n0 = blockIdx.y * kSimtTile;
  const int tiles = (K + kSimtDepth - 1) / kSimtDepth;

  // Two lanes read one 32-byte sector: chunks 2h and 2h + 1 of a row, h of the warp's half of the depth.
  const int copy_row = thread / 32 / 2 * 16 + thread % 32 / 2, copy_k = (thread / 32 % 2 * 2 + thread % 2) * 4;
  float4 next[2][2];  // [operand][row, row + 64]
  auto fetch = [&](int tile) {
    const int k = tile * kSimtDepth + copy_k;
#pragma unroll
    for (int i = 0; i < 2; i++) {
      const int m = m0 + copy_row + i * 64, n = n0 + copy_row + i * 64;
      next[0][i] = next[1][i] = float4{0.0f, 0.0f, 0.0f, 0.0f};
      if (m < M && k < K)
        next[0][i] = cu::load_global(reinterpret_cast<const float4*>(W + static_cast<size_t>(m) * K + k));
      if (n < N && k < K)
        next[1][i] = cu::load_global(reinterpret_cast<const float4*>(X + static_cast<size_t>(n) * K + k));
    }
  };
  auto keep = [&](int tile) {
    float* to = shared + tile % 2 * kSimtStage + copy_k * kSimtPitch + copy_row;
#pragma unroll
    for (int operand = 0; operand < 2; operand++)
#pragma unroll
      for (int i = 0; i < 2; i++) {
        float* at = to + operand * kSimtDepth * kSimtPitch + i * 64;
        cu::store_shared(at, next[operand][i].x);
        cu::store_shared(at + kSimtPitch, next[operand][i].y);
        cu::store_shared(at + 2 * kSimtPitch, next[operand][i].z);
        cu::store_shared(at + 3 * kSimtPitch, next[operand][i].w);
      }
  };

  const int own_m = thread % 16 * 4, own_n = thread / 16 * 4;
  float d[8][8] = {};  // [n][m]
  fetch(0);
  keep(0);
  cu::sync_threads();
  for (int t = 0; t < tiles; t++) {
    if (t + 1 < tiles) fetch(t + 1);
    const float* w_tile = shared + t % 2 * kSimtStage + own_m;
    const float* x_tile = shared + t % 2 * kSimtStage + kSimtDepth * kSimtPitch + own_n;
#pragma unroll
    for (int k = 0; k < kSimtDepth; k++) {
      const float4 w0 = cu::load_shared(reinterpret_cast<const float4*>(w_tile + k * kSimtPitch));
      const float4 w1 = cu::load_shared(reinterpret_cast<const float4*>(w_tile + k * kSimtPitch + 64));
      const float4 x0 = cu::load_shared(reinterpret_cast<const float4*>(x_tile + k * kSimtPitch));
      const float4 x1 = cu::load_shared(reinterpret_cast<const float4*>(x_tile + k * kSimtPitch + 64));
      const float w[8] = {w0.x, w0.y, w0.z, w0.w, w1.x, w1.y, w1.z, w1.w};
      const float x[8] = {x0.x, x0.y, x0.z, x0.w, x1.x, x1.y, x1.z, x1.w};
#pragma unroll
      for (int n = 0; n < 8; n++)
#pragma unroll
        for (int m = 0; m < 8; m++) d[n][m] += x[n] * w[m];
    }
    if (t + 1 < tiles) keep(t + 1);  // into the buffer that was read before the last barrier
    cu::sync_threads();
  }

#pragma unroll
  for (int half = 0; half < 2; half++) {
    const int m = m0 + own_m + half * 64;
    const FeatureTerms terms(epilogue, m, M);
#pragma unroll
    for (int i = 0; i < 8; i++) {
      const int n = n0 + own_n + i / 4 * 64 + i % 4;
      const float four[4] = {d[i][half * 4], d[i][half * 4 + 1], d[i][half * 4 + 2], d[i][half * 4 + 3]};
      if (n < N) store_four(epilogue, terms, four, m, n, M);
    }
  }
}

}  // namespace cuda
}  // namespace kerf
