// The gradient for a convolution's weights as a product over its output pixels: out[channel][tap and its channel] += grad of the
// pixel * input that its tap meets. Both operands lie channels last, so K, the pixels, is their outer axis: a tile is some pixels by
// columns of chunks, and tensor cores get it transposed (ldmatrix). W are the input's columns, X the gradient's.
//
// Launch: grid (ceil(columns / BM), ceil(channels / BN), parts of the pixels), one group of channels; a Split (split.h).
#pragma once
#include "matmul_mma.cuh"
#include "matmul_simt.cuh"

namespace kerf {
namespace cuda {

// For sum_by_mma: 64 pixels of 16-bit numbers. A panel is 64 pixels by 128 bytes, swizzled as rows are.
template <class C>
struct ColumnTiles {
  static constexpr int kPixels = 64, kPanel = kPixels * 128, kPanelsM = C::BM / 64, kPanelsN = C::BN / 64;
  static_assert(C::BM % 64 == 0 && C::BN % 64 == 0 && kPixels % C::kRowsOfCopy == 0, "whole panels");
  const int copy_row, copy_chunk, lane, warp_m, warp_n;
  Patches::Columns<kPanelsM, 8> w;
  Patches::Columns<kPanelsN, 8> x;

  CU_FUNCTION ColumnTiles(const Patches& input, const Patches& grad, int thread, int m0, int n0)
      : copy_row(thread / 8), copy_chunk(thread % 8), lane(thread % 32), warp_m(thread / 32 % C::kWarpsM * C::WM),
        warp_n(thread / 32 / C::kWarpsM * C::WN), w(input, m0 / 8 + copy_chunk), x(grad, n0 / 8 + copy_chunk) {}

  CU_FUNCTION void load(uint8_t* stage, int tile) const {
#pragma unroll
    for (int row = 0; row < kPixels; row += C::kRowsOfCopy) {
      uint8_t* const to = swizzled(stage, row + copy_row, copy_chunk);
      const int pixel = tile * kPixels + row + copy_row;
      w.each(pixel, [&](int i, const uint8_t* from, bool valid) { cu::copy_async16(to + i * kPanel, from, valid); });
      x.each(pixel, [&](int i, const uint8_t* from, bool valid) { cu::copy_async16(to + (kPanelsM + i) * kPanel, from, valid); });
    }
  }
  CU_FUNCTION void read_a(uint32_t (&a)[4], uint8_t* stage, int i, int k) const {
    const int chunk = (warp_m + i * 16) / 8 + lane / 8 % 2, pixel = k * 16 + lane / 16 * 8 + lane % 8;
    cu::load_matrix_x4_transposed(a, swizzled(stage + chunk / 8 * kPanel, pixel, chunk % 8));
  }
  CU_FUNCTION void read_b(uint32_t (&b)[4], uint8_t* stage, int j, int k) const {
    const int chunk = (warp_n + j * 16) / 8 + lane / 16, pixel = k * 16 + lane / 8 % 2 * 8 + lane % 8;
    cu::load_matrix_x4_transposed(b, swizzled(stage + (kPanelsM + chunk / 8) * kPanel, pixel, chunk % 8));
  }
};

// For sum_by_simt: 16 pixels, a warp's lanes along a pixel's chunks.
struct SimtColumnTiles {
  const int copy_row, copy_chunk;
  Patches::Columns<1, 1> w, x;
  float4 next[2][2];  // [operand][pixel, pixel + 8]

  CU_FUNCTION SimtColumnTiles(const Patches& input, const Patches& grad, int thread, int m0, int n0)
      : copy_row(thread / 32), copy_chunk(thread % 32), w(input, m0 / 4 + copy_chunk), x(grad, n0 / 4 + copy_chunk) {}

  CU_FUNCTION void fetch(int tile) {
#pragma unroll
    for (int i = 0; i < 2; i++) {
      const int pixel = tile * kSimtDepth + copy_row + i * 8;
      w.each(pixel, [&](int, const uint8_t* from, bool valid) { next[0][i] = simt_chunk(from, valid); });
      x.each(pixel, [&](int, const uint8_t* from, bool valid) { next[1][i] = simt_chunk(from, valid); });
    }
  }
  CU_FUNCTION void keep(float* shared, int tile) const {
    float* const to = shared + tile % 2 * kSimtStage + copy_row * kSimtPitch + copy_chunk * 4;
#pragma unroll
    for (int operand = 0; operand < 2; operand++)
#pragma unroll
      for (int i = 0; i < 2; i++)
        cu::store_shared(reinterpret_cast<float4*>(to + (operand * kSimtDepth + i * 8) * kSimtPitch), next[operand][i]);
  }
};

template <class C>
__global__ void __launch_bounds__(C::kThreads)
    conv_weight_grad_mma(Patches input, Patches grad, int columns, int channels, Split split, Epilogue<float> epilogue) {
  uint8_t* const shared = cu::shared_memory();
  const int m0 = blockIdx.x * C::BM, n0 = blockIdx.y * C::BN;
  const PartOfK part((grad.rows() + ColumnTiles<C>::kPixels - 1) / ColumnTiles<C>::kPixels);
  sum_by_mma<C>(shared, ColumnTiles<C>(input, grad, threadIdx.x, m0, n0), part.first, part.end);
  store_split<typename C::Tile, float>(shared, reinterpret_cast<unsigned*>(shared + C::kFlag), split, epilogue, threadIdx.x, m0, n0,
                                       columns, channels);
}

using SimtTile = SumTile<kSimtTile, kSimtTile, kSimtThreads>;
constexpr int kSimtSplitBytes = SimtTile::kBytes + 16;

__global__ void __launch_bounds__(kSimtThreads, 2)
    conv_weight_grad_simt(Patches input, Patches grad, int columns, int channels, Split split, Epilogue<float> epilogue) {
  uint8_t* const shared = cu::shared_memory();
  const int m0 = blockIdx.x * kSimtTile, n0 = blockIdx.y * kSimtTile;
  const PartOfK part((grad.rows() + kSimtDepth - 1) / kSimtDepth);
  SimtColumnTiles tiles(input, grad, threadIdx.x, m0, n0);
  float d[8][8] = {};
  sum_by_simt(reinterpret_cast<float*>(shared), tiles, part.first, part.end, d);  // ends with a barrier
#pragma unroll
  for (int i = 0; i < 8; i++)
#pragma unroll
    for (int half = 0; half < 2; half++)
      cu::store_shared(reinterpret_cast<float4*>(shared) + ((simt_own_n() + i / 4 * 64 + i % 4) * SimtTile::kPitch + simt_own_m() + half * 64) / 4,
                       float4{d[i][half * 4], d[i][half * 4 + 1], d[i][half * 4 + 2], d[i][half * 4 + 3]});
  cu::sync_threads();
  store_split<SimtTile, float>(shared, reinterpret_cast<unsigned*>(shared + SimtTile::kBytes), split, epilogue, threadIdx.x, m0, n0,
                               columns, channels);
}

}  // namespace cuda
}  // namespace kerf
