// 2:4 weights for the sparse tensor cores, made on the device from CSR: first the kept values and places of each row, K padded to whole
// steps, then those in the order of packed_weights.h.
#pragma once
#include "elements.cuh"
#include "pack.h"

namespace kerf {
namespace cuda {

// Kept values and places of rows whose K is padded to steps of 128 bytes of activations. T: the bits of a value.
template <class T>
struct PairRows {
  uint32_t rows, steps;
  T* values;        // [rows][steps * kValues]
  uint8_t* places;  // [rows][steps * kValues / 4]: those of two fours a byte
  static constexpr int kBytes = sizeof(T), kValues = 64 / kBytes;
  static constexpr int64_t padded(int64_t k) { return steps_of(k, kBytes) * 2 * kValues; }
  CU_ANYWHERE size_t values_of_row() const { return static_cast<size_t>(steps) * kValues; }
};

template <class T>
struct CsrRows {
  uint32_t k, count;
  const int32_t* pointers;
  const int32_t* columns;
  const T* values;
};

// A thread makes the two fours of a byte of places. A four with more than two values is reported: its others are left out. What
// pointers say is brought into range: they are checked apart.
template <class T>
__global__ void pairs_of_rows(uint32_t n, PairRows<T> to, CsrRows<T> from, Fault fault) {
  const auto bytes_of_row = static_cast<uint32_t>(to.values_of_row() / 4);
  for (uint32_t i = first_element(); i < n; i += element_step()) {
    const uint32_t row = i / bytes_of_row, first = i % bytes_of_row * 8;
    const auto bounded = [&](int32_t p) { return p < 0 ? 0u : static_cast<uint32_t>(p) < from.count ? static_cast<uint32_t>(p) : from.count; };
    const uint32_t begin = bounded(cu::load_global(from.pointers + row)), end = bounded(cu::load_global(from.pointers + row + 1));
    uint32_t low = begin, high = end;  // the row's first column that is not below `first`
    while (low < high) {
      const uint32_t middle = (low + high) / 2;
      if (static_cast<uint32_t>(cu::load_global(from.columns + middle)) < first) low = middle + 1;
      else high = middle;
    }
    uint32_t places = 0;
#pragma unroll
    for (uint32_t four = 0; four < 2; four++) {
      T first_value = 0, second_value = 0;
      uint32_t first_place = 0, second_place = 0, found = 0;
      for (; low < end; low++) {
        const uint32_t within = static_cast<uint32_t>(cu::load_global(from.columns + low)) - (first + 4 * four);
        if (within >= 4) break;
        const T value = cu::load_global(from.values + low);
        if (found == 0) first_value = value, first_place = within;
        if (found == 1) second_value = value, second_place = within;
        found++;
      }
      if (found > 2) cu::atomic_min(fault.word, fault.launch << 32 | row);
      // Zeros fill up: those places that keep the order, as sparsify() chooses them.
      if (found < 2) second_place = found == 0 ? 1 : 3;
      if (found == 1 && first_place == 3) first_place = 0, second_value = first_value, first_value = 0;
      places |= (first_place | second_place << 2) << (4 * four);
      T* const values = to.values + static_cast<size_t>(i) * 4 + 2 * four;
      cu::store_global(values, first_value);
      cu::store_global(values + 1, second_value);
    }
    cu::store_global(to.places + i, static_cast<uint8_t>(places));
  }
}

// Words of metadata, [ceil(rows / 16)][steps][words of a unit].
template <class T>
struct PairMetadata {
  PairRows<T> from;
  static constexpr int kWords = 32 * (sizeof(T) == 2 ? 1 : 2);
  CU_FUNCTION uint32_t word(uint32_t unit, int word) const {
    const uint32_t row0 = unit / from.steps * 16, byte0 = unit % from.steps * (from.kValues / 4);
    return metadata_word(word, from.kBytes, [&](int row, int k, int count) {
      const uint32_t m = row0 + static_cast<uint32_t>(row);
      if (m >= from.rows) return 0x44444444u >> (32 - 4 * count);  // beyond the end the first two places
      const uint8_t* const at = from.places + m * (from.values_of_row() / 4) + byte0 + static_cast<uint32_t>(k / 8);
      uint32_t bits = 0;
      for (int i = 0; i < count / 2; i++) bits |= static_cast<uint32_t>(cu::load_global(at + i)) << (8 * i);
      return bits;
    });
  }
};

template <class T>
__global__ void pair_metadata(uint32_t words, PairMetadata<T> metadata, uint32_t* to) {
  for (uint32_t i = first_element(); i < words; i += element_step())
    cu::store_global(to + i, metadata.word(i / metadata.kWords, static_cast<int>(i % metadata.kWords)));
}

// Units: 256 words of values, then the metadata.
template <class T>
__global__ void pair_units(uint32_t words, PairMetadata<T> metadata, uint32_t* to) {
  const PairRows<T>& from = metadata.from;
  constexpr uint32_t kUnit = 256 + metadata.kWords;
  const size_t row_words = from.values_of_row() * sizeof(T) / 4;
  for (uint32_t i = first_element(); i < words; i += element_step()) {
    const uint32_t unit = i / kUnit;
    const int word = static_cast<int>(i % kUnit);
    if (word >= 256) {
      cu::store_global(to + i, metadata.word(unit, word - 256));
      continue;
    }
    const KeptPlace place = kept_place(4 * word);
    const uint32_t m = unit / from.steps * 16 + static_cast<uint32_t>(place.row);
    const auto* const values = reinterpret_cast<const uint32_t*>(from.values) + m * row_words + unit % from.steps * 16 + place.byte / 4;
    cu::store_global(to + i, m < from.rows ? cu::load_global(values) : 0);
  }
}

// The sum of each row's values.
__global__ void sum_rows(uint32_t rows, uint32_t count, const int32_t* pointers, const int8_t* values, int32_t* sums) {
  for (uint32_t row = first_element(); row < rows; row += element_step()) {
    const auto end = static_cast<uint32_t>(cu::load_global(pointers + row + 1));
    int32_t sum = 0;
    for (auto i = static_cast<uint32_t>(cu::load_global(pointers + row)); i < end && i < count; i++) sum += cu::load_global(values + i);
    cu::store_global(sums + row, sum);
  }
}

}  // namespace cuda
}  // namespace kerf
