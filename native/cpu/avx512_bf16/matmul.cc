#include "../install.h"
#include "../avx512/matmul_simd.h"

namespace kerf::KERF_TARGET {

struct Blocks {
  static constexpr int kRows = 14;
  static constexpr int64_t kBlock = 512;
  static constexpr int64_t kRowPanelsInBlock = 8;
  static constexpr int64_t kPrefetch = 512;
  static constexpr double kFlopsPerNs = 360;
  static constexpr const char* kNameF32 = "matmul_f32_14x32";
  static constexpr const char* kNameF16 = "matmul_f16_14x32";
  static constexpr const char* kNameBf16 = "matmul_bf16_14x32";
};

}  // namespace kerf::KERF_TARGET

#include "../matmul_types.h"

namespace kerf::KERF_TARGET {

// vdpbf16ps: acc += a.lo * b.lo + a.hi * b.hi
struct MatmulDotBf16 : MatmulBf16 {
  using Loaded = vf;
  static constexpr int kSub = 1;

  KERF_INLINE vf load_units(const Unit* p) { return load(reinterpret_cast<const float*>(p)); }
  KERF_INLINE vf step(Loaded b, int) { return b; }
  KERF_INLINE vf mac(vf a, vf b, vf acc) { return _mm512_dpbf16_ps(acc, (__m512bh)a, (__m512bh)b); }
  KERF_INLINE uint32_t word(In lo, In hi) { return unit(lo, hi); }
  KERF_INLINE vf words(const In* p) { return load(reinterpret_cast<const float*>(p)); }
};

void install_matmul(Kernels& row) {
  row.matmul[static_cast<int>(DType::bfloat16_)] = matmul_cell<MatmulDotBf16>();
}

}  // namespace kerf::KERF_TARGET
