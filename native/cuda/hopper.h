// cu:: for nvcc: what sm_90a adds. Nothing of it is compiled into code for another architecture unless a kernel uses
// it.
#pragma once
#include <cuda.h>

#include "device.h"

#define CU_GRID_CONSTANT const __grid_constant__

namespace cu {

using TensorMap = CUtensorMap;

CU_FUNCTION void mbarrier_init(uint64_t* barrier, int count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(count) : "memory");
}
// Makes the initialised barriers visible to TMA.
CU_FUNCTION void mbarrier_fence_init() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
CU_FUNCTION void mbarrier_arrive(uint64_t* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}
CU_FUNCTION void mbarrier_arrive_expect(uint64_t* barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes)
               : "memory");
}
// Waits until the phase with this parity has ended.
CU_FUNCTION void mbarrier_wait(uint64_t* barrier, int parity) {
  asm volatile(
      "{\n.reg .pred p;\nAGAIN_%=:\nmbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n"
      "@p bra DONE_%=;\nbra AGAIN_%=;\nDONE_%=:\n}" ::"r"(shared_address(barrier)),
      "r"(parity)
      : "memory");
}

// The box whose first element is x of row y; zeros outside of the tensor.
CU_FUNCTION void tma_load(void* to, const TensorMap* map, int x, int y, uint64_t* barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%2,%3}], [%4];" ::"r"(shared_address(to)),
      "l"(map), "r"(x), "r"(y), "r"(shared_address(barrier))
      : "memory");
}

// The descriptor of a K-major tile of 128-byte rows, swizzled: start address / 16, leading offset (unused with a
// swizzle) 1, stride of 8 rows 1024 / 16, layout 1 = 128-byte swizzle. `p` may point at any 32 bytes of the first row.
CU_FUNCTION uint64_t tile_descriptor(const void* p) {
  return static_cast<uint64_t>(shared_address(p) & 0x3ffff) >> 4 | uint64_t{1} << 16 | uint64_t{64} << 32 |
         uint64_t{1} << 62;
}

CU_FUNCTION void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
CU_FUNCTION void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int pending>
CU_FUNCTION void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(pending) : "memory");
}
template <int count>
CU_FUNCTION void registers_increase() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(count));
}
template <int count>
CU_FUNCTION void registers_decrease() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(count));
}
CU_FUNCTION void named_barrier(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// Accumulators as operands of an asm statement: 64 of a 64 x 128 product, 128 of a 64 x 256 one.
#define CU_REGISTERS_64                                                                                            \
  "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29," \
  "%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,"   \
  "%57,%58,%59,%60,%61,%62,%63"
#define CU_REGISTERS_128                                                                                         \
  CU_REGISTERS_64                                                                                                \
  ",%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79,%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90," \
  "%91,%92,%93,%94,%95,%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111,%112,%113,"   \
  "%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127"
#define CU_OPERANDS_8(kind, d, i)                                                                             \
  kind(d[i]), kind(d[i + 1]), kind(d[i + 2]), kind(d[i + 3]), kind(d[i + 4]), kind(d[i + 5]), kind(d[i + 6]), \
      kind(d[i + 7])
#define CU_OPERANDS_32(kind, d, i)                                                                          \
  CU_OPERANDS_8(kind, d, i), CU_OPERANDS_8(kind, d, i + 8), CU_OPERANDS_8(kind, d, i + 16), \
      CU_OPERANDS_8(kind, d, i + 24)
#define CU_OPERANDS_64(kind, d) CU_OPERANDS_32(kind, d, 0), CU_OPERANDS_32(kind, d, 32)
#define CU_OPERANDS_128(kind, d) CU_OPERANDS_64(kind, d), CU_OPERANDS_32(kind, d, 64), CU_OPERANDS_32(kind, d, 96)

// d (64 x 2 * count) = a b, or d + a b where `accumulate`. `tail`: scales of a and b 1 and, for 16-bit types, both
// K-major. P: the number of the operand after the accumulators.
#define CU_WGMMA(type, sum, kind, count, shape, A, B, P, tail)                                                    \
  CU_FUNCTION void wgmma(type, sum(&d)[count], uint64_t a, uint64_t b, bool accumulate) {                         \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" P ", 0;\nwgmma.mma_async.sync.aligned." shape " {"          \
                 CU_REGISTERS_##count "}, %" A ", %" B ", p" tail ";\n}"                                          \
                 : CU_OPERANDS_##count(kind, d)                                                                   \
                 : "l"(a), "l"(b), "r"(static_cast<int>(accumulate)));                                            \
  }
CU_WGMMA(f16, float, "+f", 64, "m64n128k16.f32.f16.f16", "64", "65", "66", ", 1, 1, 0, 0")
CU_WGMMA(bf16, float, "+f", 64, "m64n128k16.f32.bf16.bf16", "64", "65", "66", ", 1, 1, 0, 0")
CU_WGMMA(s8, int, "+r", 64, "m64n128k32.s32.s8.s8", "64", "65", "66", "")
CU_WGMMA(f16, float, "+f", 128, "m64n256k16.f32.f16.f16", "128", "129", "130", ", 1, 1, 0, 0")
CU_WGMMA(bf16, float, "+f", 128, "m64n256k16.f32.bf16.bf16", "128", "129", "130", ", 1, 1, 0, 0")
CU_WGMMA(s8, int, "+r", 128, "m64n256k32.s32.s8.s8", "128", "129", "130", "")
#undef CU_WGMMA

// The same with a 2:4 sparse a: 32 kept bytes a row by 64 bytes of b. Each warp brings the metadata of its 16 rows, as
// for mma_sparse.
#define CU_WGMMA_SPARSE(type, sum, kind, shape, tail)                                                              \
  template <int selector>                                                                                          \
  CU_FUNCTION void wgmma_sparse(type, sum(&d)[64], uint64_t a, uint64_t b, uint32_t metadata, bool accumulate) {   \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %67, 0;\nwgmma.mma_async.sp.sync.aligned." shape " {"           \
                 CU_REGISTERS_64 "}, %64, %65, %66, %68, p" tail ";\n}"                                            \
                 : CU_OPERANDS_64(kind, d)                                                                         \
                 : "l"(a), "l"(b), "r"(metadata), "r"(static_cast<int>(accumulate)), "n"(selector));               \
  }
CU_WGMMA_SPARSE(f16, float, "+f", "m64n128k32.f32.f16.f16", ", 1, 1, 0, 0")
CU_WGMMA_SPARSE(bf16, float, "+f", "m64n128k32.f32.bf16.bf16", ", 1, 1, 0, 0")
CU_WGMMA_SPARSE(s8, int, "+r", "m64n128k64.s32.s8.s8", "")
#undef CU_WGMMA_SPARSE
#undef CU_OPERANDS_128
#undef CU_OPERANDS_64
#undef CU_OPERANDS_32
#undef CU_OPERANDS_8
#undef CU_REGISTERS_128
#undef CU_REGISTERS_64

}  // namespace cu
