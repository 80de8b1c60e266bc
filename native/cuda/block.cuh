// Sums and extremes over a block's threads: always in the same order, so that results are the same every time.
#pragma once
#include "elements.cuh"

namespace kerf {
namespace cuda {

constexpr int kSlot = 32;                // bytes that a warp leaves for the others: no State is larger
constexpr int kFoldBytes = 32 * kSlot;  // shared memory of fold()

// The value of the lane whose number differs in the bits of `mask`; T is whole words.
template <class T>
CU_FUNCTION T exchange(const T& value, int mask) {
  constexpr int kWords = sizeof(T) / 4;
  uint32_t words[kWords];
  memcpy(words, &value, sizeof(T));
#pragma unroll
  for (int i = 0; i < kWords; i++) words[i] = cu::shuffle_xor(words[i], mask);
  T other;
  memcpy(&other, words, sizeof(T));
  return other;
}

// Every thread gets combine() over all threads' values. `slots` are kFoldBytes of shared memory; all threads call it.
template <class T, class Combine>
CU_FUNCTION T fold(T value, uint8_t* slots, Combine combine) {
  static_assert(sizeof(T) <= kSlot, "a slot holds it");
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2) value = combine(value, exchange(value, mask));
  const int warps = static_cast<int>(blockDim.x) / 32;
  if (warps == 1) return value;
  cu::sync_threads();  // an earlier fold's slots have been read
  if (threadIdx.x % 32 == 0) cu::store_shared(reinterpret_cast<T*>(slots + threadIdx.x / 32 * kSlot), value);
  cu::sync_threads();
  value = cu::load_shared(reinterpret_cast<const T*>(slots));
  for (int warp = 1; warp < warps; warp++) value = combine(value, cu::load_shared(reinterpret_cast<const T*>(slots + warp * kSlot)));
  return value;
}

struct Plus { CU_FUNCTION double operator()(double a, double b) const { return a + b; } };
struct Larger { CU_FUNCTION float operator()(float a, float b) const { return a != a || a > b ? a : b; } };

}  // namespace cuda
}  // namespace kerf
