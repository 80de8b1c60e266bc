// Convolution as a product without a matrix of patches: rows of W are output pixels, whose chunks lie where the taps of the input
// do (operands.cuh), rows of X are output channels. Sums then come as [channel][pixel], as images are stored.
//
// Launch: grid (ceil(pixels / BM), ceil(channels of a group / BN), groups). Everything of a group is found from the first one's.
#pragma once
#include "matmul_mma.cuh"
#include "matmul_simt.cuh"

namespace kerf {
namespace cuda {

// Where pixels of a convolution lie in its output: all of them, or every step-th row and column (steps between the phases of
// an input with zeros put in).
struct PixelPlaces {
  Divisor by_area, by_width;
  uint32_t image, plane, row, column;  // from image to image, and from channel, row, column to the next, in elements
  bool whole;  // the plane's pixels in order, four neighbours 16-byte aligned (or 8 of 16-bit elements)
};

template <class Out_>
struct ImageEpilogue {
  using Out = Out_;
  using Terms = struct PixelTerms;
  const float* bias;  // of the channels, or null
  Activation activation;
  typename Stored<Out>::Element* out;
  PixelPlaces places;

  CU_FUNCTION ImageEpilogue of_group(int group, int channels) const {
    return {bias ? bias + group * channels : nullptr, activation, out + static_cast<size_t>(group) * channels * places.plane, places};
  }
};

// Where four neighbouring pixels lie, in every channel.
struct PixelTerms {
  uint32_t at[4];
  template <class E>
  CU_FUNCTION PixelTerms(const E& epilogue, int m, int) {
    const PixelPlaces& p = epilogue.places;
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const uint32_t image = p.by_area.divide(m + i), within = m + i - image * p.by_area.value;
      const uint32_t row = p.by_width.divide(within), column = within - row * p.by_width.value;
      at[i] = image * p.image + row * p.row + column * p.column;
    }
  }
};

template <class Out>
CU_FUNCTION void store_four(const ImageEpilogue<Out>& epilogue, const PixelTerms& terms, const float (&sums)[4], int m, int n, int M) {
  using S = Stored<Out>;
  const float bias = epilogue.bias ? cu::load_global(epilogue.bias + n) : 0.0f;
  float v[4];
#pragma unroll
  for (int i = 0; i < 4; i++) v[i] = activated(epilogue.activation, sums[i] + bias);
  auto* const plane = epilogue.out + static_cast<size_t>(n) * epilogue.places.plane;
  if (epilogue.places.whole) {
    if (m < M) cu::store_global(reinterpret_cast<typename S::Four*>(plane + terms.at[0]), S::pack(v));
    return;
  }
#pragma unroll
  for (int i = 0; i < 4; i++)
    if (m + i < M) cu::store_global(plane + terms.at[i], S::one(v[i]));
}

CU_FUNCTION Patches of_group(Patches patches, int group) {
  patches.data += static_cast<size_t>(group) * patches.tap_chunks * 16;
  return patches;
}
CU_FUNCTION PlainRows of_group(PlainRows weights, int group) {
  weights.data += static_cast<size_t>(group) * weights.rows * weights.row_bytes;
  return weights;
}

template <class C, class E>
__global__ void __launch_bounds__(C::kThreads, 1) conv_mma(Patches patches, PlainRows weights, E epilogue) {
  uint8_t* const shared = cu::shared_memory();
  const int m0 = blockIdx.x * C::BM, n0 = blockIdx.y * C::BN, group = blockIdx.z;
  const Patches pixels = of_group(patches, group);
  const PlainRows channels = of_group(weights, group);
  const RowTiles<C, Patches, PlainRows> tiles(pixels, channels, threadIdx.x, m0, n0);
  sum_by_mma<C>(shared, tiles, 0, (channels.chunks() + 7) / 8);
  C::Tile::template store<typename C::Sum>(shared, epilogue.of_group(group, channels.rows), threadIdx.x, m0, n0, pixels.rows(), channels.rows);
}

// Patches whose corners lie in shared memory: 64 sums a thread leave no registers for them.
struct KeptPatches {
  const Patches& patches;
  uint8_t* corners;

  CU_FUNCTION KeptPatches(const Patches& from, uint8_t* shared, int rows, int first) : patches(from), corners(shared) {
    const int row = threadIdx.x;
    if (row < rows) {
      const Patches::Corner c = from.corner(first + row);
      cu::store_shared(reinterpret_cast<int4*>(corners) + row, int4{c.y, c.x, static_cast<int>(c.chunk), 0});
    }
    cu::sync_threads();
  }
  template <int COUNT, int STEP>
  struct LateReader {
    const KeptPatches& all;
    int row;
    CU_FUNCTION LateReader(const KeptPatches& from, int first) : all(from), row(first) {}
    template <class Take>
    CU_FUNCTION void each(int chunk, Take take) const {
      const Patches::Corner tap = all.patches.tap(chunk);
#pragma unroll
      for (int i = 0; i < COUNT; i++) {
        const int4 four = cu::load_shared(reinterpret_cast<const int4*>(all.corners) + row + i * STEP);
        const Patches::Corner corner{four.x, four.y, static_cast<uint32_t>(four.z)};
        take(i, all.patches.at(corner, tap), all.patches.inside(corner, tap));
      }
    }
  };
};
constexpr int kConvSimtBytes = kSimtSharedBytes + kSimtTile * 16;

template <class E>
__global__ void __launch_bounds__(kSimtThreads, 2) conv_simt(Patches patches, PlainRows weights, E epilogue) {
  const int m0 = blockIdx.x * kSimtTile, n0 = blockIdx.y * kSimtTile, group = blockIdx.z;
  const Patches pixels = of_group(patches, group);
  const PlainRows channels = of_group(weights, group);
  uint8_t* const shared = cu::shared_memory();
  const KeptPatches kept(pixels, shared + kSimtSharedBytes, kSimtTile, m0);
  SimtRowTiles<KeptPatches, PlainRows> tiles(kept, channels, threadIdx.x, 0, n0);  // rows of the tile
  float d[8][8] = {};
  sum_by_simt(reinterpret_cast<float*>(shared), tiles, 0, (channels.chunks() + 3) / 4, d);
  store_simt(epilogue.of_group(group, channels.rows), d, m0, n0, pixels.rows(), channels.rows);
}

}  // namespace cuda
}  // namespace kerf
