// What the products of convolutions read: images with channels last and weights with taps before channels, the channels of each
// group padded with zeros to whole chunks of 16 bytes. T: uint32_t or uint16_t, the bits of an element.
#pragma once
#include "elements.cuh"

namespace kerf {
namespace cuda {

constexpr int kTurnTile = 32, kTurnThreads = 256;
constexpr int kTurnRows = kTurnTile * 32 / kTurnThreads;  // of a warp, one after the other: warps share no 16 bytes
template <class T> constexpr int kTurnPitch = kTurnTile + 4 / sizeof(T);  // an odd number of words: no bank conflicts
constexpr int kTurnSharedBytes = kTurnTile * kTurnPitch<uint32_t> * 4;

// [image][group][channel][pixel] to [image][pixel][group][padded channel], by tiles of 32 pixels and 32 channels of a group, so
// that both sides are read and written along what lies together.
struct Turn {
  uint32_t images, groups, channels, padded, pixels;
  CU_ANYWHERE uint32_t channel_tiles() const { return (padded + kTurnTile - 1) / kTurnTile; }
  CU_ANYWHERE uint32_t pixel_tiles() const { return (pixels + kTurnTile - 1) / kTurnTile; }
};

template <class T>
__global__ void channels_last(uint32_t tiles, Turn turn, T* out, const T* a) {
  T* const tile = reinterpret_cast<T*>(cu::shared_memory());
  const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  for (uint32_t number = blockIdx.x; number < tiles; number += gridDim.x) {
    const uint32_t pixel0 = number % turn.pixel_tiles() * kTurnTile, rest = number / turn.pixel_tiles();
    const uint32_t channel0 = rest % turn.channel_tiles() * kTurnTile, plane = rest / turn.channel_tiles();  // image, group
    for (uint32_t i = warp * kTurnRows; i < (warp + 1) * kTurnRows; i++) {
      const uint32_t channel = channel0 + i, pixel = pixel0 + lane;
      const bool inside = channel < turn.channels && pixel < turn.pixels;
      const size_t from = (static_cast<size_t>(plane) * turn.channels + channel) * turn.pixels + pixel;
      cu::store_shared(tile + i * kTurnPitch<T> + lane, inside ? cu::load_global(a + from) : T(0));
    }
    cu::sync_threads();
    const uint32_t image = plane / turn.groups, group = plane % turn.groups;
    for (uint32_t i = warp * kTurnRows; i < (warp + 1) * kTurnRows; i++) {
      const uint32_t channel = channel0 + lane, pixel = pixel0 + i;
      if (channel >= turn.padded || pixel >= turn.pixels) continue;
      const size_t to = ((static_cast<size_t>(image) * turn.pixels + pixel) * turn.groups + group) * turn.padded + channel;
      cu::store_global(out + to, cu::load_shared(tile + lane * kTurnPitch<T> + i));
    }
    cu::sync_threads();  // the tile is written again
  }
}

// Some of the taps along an axis.
struct Taps {
  int first, step, count;
};

// [output][channel][kernel] to [output][tap][padded channel] of the taps that are named.
template <class T>
__global__ void taps_first(uint32_t n, uint32_t channels, uint32_t padded, int kernel_h, int kernel_w, Taps h, Taps w, T* out, const T* a) {
  for (uint32_t i = first_element(); i < n; i += element_step()) {
    const uint32_t channel = i % padded, row = i / padded;
    const int s = w.first + static_cast<int>(row % w.count) * w.step, r = h.first + static_cast<int>(row / w.count % h.count) * h.step;
    const size_t from = ((static_cast<size_t>(row / w.count / h.count) * channels + channel) * kernel_h + r) * kernel_w + s;
    cu::store_global(out + i, channel < channels ? cu::load_global(a + from) : T(0));
  }
}

}  // namespace cuda
}  // namespace kerf
