// Y[n][m] = epilogue(sum over k of W[m][k] X[n][k]) in float32 on the ordinary cores: the exact kernel that every GPU
// has, and on the device the oracle of the others.
//
// Contract: W is M rows and X N rows of K floats, K a multiple of 4, both 16-byte aligned; any M, N >= 1. Launch: grid
// (ceil(M / 128), ceil(N / 128)), kSimtThreads, kSimtSharedBytes. A thread owns 8 x 8 sums as four 4 x 4 blocks 64
// apart. Tiles lie k-major in shared memory; the pitch of 132 floats puts the two 16-row halves that a warp writes at
// once into different banks.
#pragma once
#include "epilogue.h"
#include "operands.cuh"

namespace kerf {
namespace cuda {

constexpr int kSimtThreads = 256;
constexpr int kSimtTile = 128, kSimtDepth = 16, kSimtPitch = kSimtTile + 4;
constexpr int kSimtStage = 2 * kSimtDepth * kSimtPitch;  // floats: W's tile, then X's
constexpr int kSimtSharedBytes = 2 * kSimtStage * 4;

CU_FUNCTION int simt_own_m() { return threadIdx.x % 16 * 4; }
CU_FUNCTION int simt_own_n() { return threadIdx.x / 16 * 4; }

CU_FUNCTION float4 simt_chunk(const uint8_t* from, bool valid) {
  return valid ? cu::load_global(reinterpret_cast<const float4*>(from)) : float4{0.0f, 0.0f, 0.0f, 0.0f};
}

// Tiles of operands with K innermost. A thread fetches four chunks to registers and keeps them in shared memory later.
template <class W, class X>
struct SimtRowTiles {
  // Two lanes read one 32-byte sector: chunks 2h and 2h + 1 of a row, h of the warp's half of the depth.
  const int copy_row, copy_k;
  typename W::template LateReader<2, 64> w;
  typename X::template LateReader<2, 64> x;
  float4 next[2][2];  // [operand][row, row + 64]

  CU_FUNCTION SimtRowTiles(const W& w_rows, const X& x_rows, int thread, int m0, int n0)
      : copy_row(thread / 32 / 2 * 16 + thread % 32 / 2), copy_k((thread / 32 % 2 * 2 + thread % 2) * 4),
        w(w_rows, m0 + copy_row), x(x_rows, n0 + copy_row) {}

  CU_FUNCTION void fetch(int tile) {
    const int chunk = (tile * kSimtDepth + copy_k) / 4;
    w.each(chunk, [&](int i, const uint8_t* from, bool valid) { next[0][i] = simt_chunk(from, valid); });
    x.each(chunk, [&](int i, const uint8_t* from, bool valid) { next[1][i] = simt_chunk(from, valid); });
  }
  CU_FUNCTION void keep(float* shared, int tile) const {
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
  }
};

// The sums over tiles `first` to `end` of K, 8 x 8 a thread: d[n][m].
template <class Tiles>
CU_FUNCTION void sum_by_simt(float* shared, Tiles& source, int first, int end, float (&d)[8][8]) {
  const int own_m = simt_own_m(), own_n = simt_own_n();
  source.fetch(first);
  source.keep(shared, first);
  cu::sync_threads();
  for (int t = first; t < end; t++) {
    if (t + 1 < end) source.fetch(t + 1);
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
    if (t + 1 < end) source.keep(shared, t + 1);  // into the buffer that was read before the last barrier
    cu::sync_threads();
  }
}

template <class E>
CU_FUNCTION void store_simt(const E& epilogue, const float (&d)[8][8], int m0, int n0, int M, int N) {
#pragma unroll
  for (int half = 0; half < 2; half++) {
    const int m = m0 + simt_own_m() + half * 64;
    const typename E::Terms terms(epilogue, m, M);
#pragma unroll
    for (int i = 0; i < 8; i++) {
      const int n = n0 + simt_own_n() + i / 4 * 64 + i % 4;
      const float four[4] = {d[i][half * 4], d[i][half * 4 + 1], d[i][half * 4 + 2], d[i][half * 4 + 3]};
      if (n < N) store_four(epilogue, terms, four, m, n, M);
    }
  }
}

template <class E>
__global__ void __launch_bounds__(kSimtThreads, 2)
    matmul_simt(const float* W, const float* X, int M, int N, int K, E epilogue) {
  const int m0 = blockIdx.x * kSimtTile, n0 = blockIdx.y * kSimtTile;
  const PlainRows w{reinterpret_cast<const uint8_t*>(W), M, K * 4}, x{reinterpret_cast<const uint8_t*>(X), N, K * 4};
  SimtRowTiles<PlainRows, PlainRows> tiles(w, x, threadIdx.x, m0, n0);
  float d[8][8] = {};
  sum_by_simt(reinterpret_cast<float*>(cu::shared_memory()), tiles, 0, (K + kSimtDepth - 1) / kSimtDepth, d);
  store_simt(epilogue, d, m0, n0, M, N);
}

}  // namespace cuda
}  // namespace kerf
