// CUDA kernels on a CPU without a GPU: the cu:: vocabulary of native/cuda/ for g++, one translation unit a program.
// What it models, and what it cannot, stands in docs/cuda.md.
#pragma once
#include "warpgroup.h"

#define CU_FUNCTION inline
#define CU_ANYWHERE inline
#define CU_GRID_CONSTANT const
#define CU_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  ::cu::emu::launch(grid, block, shared_bytes, [=] { kernel(__VA_ARGS__); })
#define __global__
#define __launch_bounds__(...)
#define threadIdx (::cu::emu::machine.current->index)
#define blockIdx (::cu::emu::machine.block_index)
#define blockDim (::cu::emu::machine.block)
#define gridDim (::cu::emu::machine.grid)

struct alignas(8) uint2 {
  uint32_t x, y;
};
struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
