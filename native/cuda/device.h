// cu:: for nvcc: what every GPU since sm_80 has.
#pragma once
#include <cuda_runtime.h>

#include "types.h"

#define CU_FUNCTION __device__ __forceinline__
#define CU_ANYWHERE __host__ __device__ __forceinline__  // what drivers ask too
#define CU_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  kernel<<<grid, block, shared_bytes, stream>>>(__VA_ARGS__)

namespace cu {

// Dynamic shared memory; 1024 bytes is what a 128-byte-swizzled TMA box asks for.
CU_FUNCTION uint8_t* shared_memory() {
  extern __shared__ __align__(1024) uint8_t dynamic_shared_memory[];
  return dynamic_shared_memory;
}

CU_FUNCTION uint32_t shared_address(const void* p) { return static_cast<uint32_t>(__cvta_generic_to_shared(p)); }

CU_FUNCTION void sync_threads() { __syncthreads(); }
CU_FUNCTION void sync_warp() { __syncwarp(); }
template <class T>
CU_FUNCTION T shuffle_xor(T value, int mask) {
  return __shfl_xor_sync(0xffffffffu, value, mask);
}
template <class T>
CU_FUNCTION T shuffle(T value, int source) {
  return __shfl_sync(0xffffffffu, value, source);
}
CU_FUNCTION uint32_t ballot(bool vote) { return __ballot_sync(0xffffffffu, vote); }

template <class T>
CU_FUNCTION T load_global(const T* p) {
  return __ldg(p);  // kernels only read what no kernel of the same launch writes
}
// The same for memory that this launch writes too (an op in place): each thread reads what it alone writes afterwards.
template <class T>
CU_FUNCTION T load_own(const T* p) {
  return *p;
}
template <class T>
CU_FUNCTION void store_global(T* p, T value) {
  *p = value;
}
CU_FUNCTION void atomic_min(unsigned long long* p, unsigned long long value) { atomicMin(p, value); }
template <class T>
CU_FUNCTION T load_shared(const T* p) {
  return *p;
}
template <class T>
CU_FUNCTION void store_shared(T* p, T value) {
  *p = value;
}

// 16 bytes from global to shared memory, or 16 zeros where not `valid`: then `from` is not read.
CU_FUNCTION void copy_async16(void* to, const void* from, bool valid) {
  int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(bytes)
               : "memory");
}
CU_FUNCTION void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int pending>
CU_FUNCTION void copy_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

CU_FUNCTION void load_matrix_x4(uint32_t (&r)[4], const void* p) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(p))
               : "memory");
}
// The same with each of the four matrices transposed.
CU_FUNCTION void load_matrix_x4_transposed(uint32_t (&r)[4], const void* p) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(p))
               : "memory");
}

// d += a b, a 16 rows and b 8 columns of 32 bytes.
CU_FUNCTION void mma(f16, float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
CU_FUNCTION void mma(bf16, float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
CU_FUNCTION void mma(s8, int (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// d += a b, a the kept half of 16 rows of 64 bytes, b 8 columns of 64 bytes. Which lanes of a quad bring the metadata
// of 16-bit types is chosen by `selector`: 0 and 1, or 2 and 3; of int8 all four do.
#define CU_MMA_SPARSE(type, sum, kind, shape)                                                                     \
  template <int selector>                                                                                         \
  CU_FUNCTION void mma_sparse(type, sum(&d)[4], const uint32_t(&a)[4], const uint32_t(&b)[4], uint32_t metadata) { \
    asm volatile("mma.sp::ordered_metadata.sync.aligned." shape                                                   \
                 " {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9,%10,%11},{%0,%1,%2,%3},%12,%13;"                            \
                 : kind(d[0]), kind(d[1]), kind(d[2]), kind(d[3])                                                 \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "r"(b[2]), "r"(b[3]),        \
                   "r"(metadata), "n"(selector));                                                                 \
  }
CU_MMA_SPARSE(f16, float, "+f", "m16n8k32.row.col.f32.f16.f16.f32")
CU_MMA_SPARSE(bf16, float, "+f", "m16n8k32.row.col.f32.bf16.bf16.f32")
CU_MMA_SPARSE(s8, int, "+r", "m16n8k64.row.col.s32.s8.s8.s32")
#undef CU_MMA_SPARSE

// Two floats as 16-bit numbers, rounded to nearest even.
CU_FUNCTION uint32_t pack2(f16, float low, float high) {
  uint32_t r;
  asm("cvt.rn.f16x2.f32 %0,%1,%2;" : "=r"(r) : "f"(high), "f"(low));
  return r;
}
CU_FUNCTION uint32_t pack2(bf16, float low, float high) {
  uint32_t r;
  asm("cvt.rn.bf16x2.f32 %0,%1,%2;" : "=r"(r) : "f"(high), "f"(low));
  return r;
}

// a b + c of two pairs of 16-bit numbers, each rounded once.
CU_FUNCTION uint32_t fma2(f16, uint32_t a, uint32_t b, uint32_t c) {
  uint32_t r;
  asm("fma.rn.f16x2 %0,%1,%2,%3;" : "=r"(r) : "r"(a), "r"(b), "r"(c));
  return r;
}
CU_FUNCTION uint32_t fma2(bf16, uint32_t a, uint32_t b, uint32_t c) {
  uint32_t r;
  asm("fma.rn.bf16x2 %0,%1,%2,%3;" : "=r"(r) : "r"(a), "r"(b), "r"(c));
  return r;
}

// a b, rounded: never part of a fused multiply-add.
CU_FUNCTION float multiply(float a, float b) { return __fmul_rn(a, b); }

CU_FUNCTION float float_of_bits(uint32_t bits) { return __uint_as_float(bits); }

// Four of the eight bytes of `low` (0 to 3) and `high` (4 to 7): those that the nibbles of `selector` name.
CU_FUNCTION uint32_t permute_bytes(uint32_t low, uint32_t high, uint32_t selector) {
  return __byte_perm(low, high, selector);
}

// Between blocks of one launch: what a block wrote before fence_global() and an atomic_add() is seen by one whose
// atomic_add() of the same word came later, after a fence_global() of its own, through load_written().
CU_FUNCTION void fence_global() { __threadfence(); }
CU_FUNCTION unsigned atomic_add(unsigned* p, unsigned value) { return atomicAdd(p, value); }
template <class T>
CU_FUNCTION T load_written(const T* p) {
  return __ldcg(p);  // from the cache that all multiprocessors share
}

}  // namespace cu
