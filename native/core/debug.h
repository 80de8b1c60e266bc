// KERF_DEBUG=kernels: one line on stderr for every command that a stream runs,
//   kerf: matmul_f32_14x32@avx512 float32[64, 300] float32[64, 784] uint8[960512]: 0.141 ms, 213.4 GFLOP/s
#pragma once
#include <atomic>

namespace kerf {

constexpr int kLabel = 192;  // bytes of a command's description

extern std::atomic<bool> g_debug_kernels;
inline bool debug_kernels() { return g_debug_kernels.load(std::memory_order_relaxed); }
void set_debug_kernels(bool on);

// Around a command, on the thread that runs it.
void debug_begin();
void debug_end(const char* label);

// From inside a command: the kernel that does the work (a literal, shown in place of the op's name) and its operations.
void debug_kernel(const char* name, double operations);

}  // namespace kerf
