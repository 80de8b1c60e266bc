// The dtypes of matmul for every target that computes with float32 FMAs (matmul_tile.h and matmul_pack.h name what a
// dtype gives). The target's matmul_simd.h comes first; its Blocks struct says tile height, block sizes and speed.
#pragma once
#include "matmul_dot.h"
#include "matmul_loops.h"

namespace kerf::KERF_TARGET {

struct FloatRules {
  using Problem = MatmulProblem;
  static constexpr bool kPacksB = true;

  static bool sums_in_c(const Problem& p) { return p.c_type == DType::float32_; }
  static bool finished(const Problem& p) { return sums_in_c(p) && !p.bias && p.activation == Activation::none; }
  static void begin_rows(const Problem&, int64_t, int64_t) {}

  template <class T>
  static bool pack_rows(const Problem& p, float* out, int64_t row, int64_t rows, int64_t k0, int64_t k) {
    const auto* a = static_cast<const typename T::In*>(p.a) + row * p.a_row + k0 * p.a_col;
    pack_a_panel<T>(out, a, rows, k, p.a_row, p.a_col);
    return true;
  }

  template <class T>
  static void finish(const Problem& p, const float* sums, int64_t sums_row, int64_t row, int64_t rows, int64_t col,
                     int64_t cols) {
    kerf::KERF_TARGET::finish<T>(p, sums, sums_row, row, rows, col, cols);
  }
};

struct MatmulF32 : Blocks {
  using Rules = FloatRules;
  using In = float;
  using Unit = float;
  using Loaded = vf;
  using TileState = NoTileState;
  static constexpr int kElements = 1, kSub = 1, kTogether = 1;
  static constexpr bool kReadsInPlace = true;
  using Wide = MatmulF32;
  static constexpr bool kWidens = false;  // Wide's tile on widened panels, where a panel is used often
  static constexpr const char* kName = Blocks::kNameF32;

  KERF_INLINE vf load_units(const Unit* p) { return load(p); }
  KERF_INLINE vf step(Loaded b, int) { return b; }
  KERF_INLINE vf mac(vf a, vf b, vf acc) { return fma(a, b, acc); }
  KERF_INLINE Unit unit(In lo, In) { return lo; }
  KERF_INLINE uint32_t word(In lo, In) { return float_to_bits(lo); }
  KERF_INLINE vf words(const In* p) { return load(p); }
  KERF_INLINE vf gather_units(const In* p) { return load(p); }
  KERF_INLINE void scatter_units(Unit* p, vf v) { store(p, v); }
};

// Half the bytes of B, widened in the register tile; A is widened when it is packed.
struct MatmulF16 : MatmulF32 {
  using In = f16;
  using Unit = f16;
  static constexpr bool kReadsInPlace = false, kWidens = true;
  static constexpr const char* kName = Blocks::kNameF16;

  KERF_INLINE vf load_units(const Unit* p) { return load(p); }
  KERF_INLINE Unit unit(In lo, In) { return lo; }
  KERF_INLINE uint32_t word(In lo, In) { return float_to_bits(to_float(lo)); }
  KERF_INLINE vf words(const In* p) { return load(p); }
  KERF_INLINE vf gather_units(const In* p) { return load(p); }  // back and forth is exact
  KERF_INLINE void scatter_units(Unit* p, vf v) { store(p, v); }
};

// Pairs (k, k + 1) in 32 bits: shifting and masking give two exact float32 steps.
struct MatmulBf16 : MatmulF32 {
  using In = bf16;
  using Unit = uint32_t;
  using Loaded = vi;
  static constexpr int kElements = 2, kSub = 2;
  static constexpr bool kReadsInPlace = false, kWidens = true;
  static constexpr const char* kName = Blocks::kNameBf16;

  KERF_INLINE vi load_units(const Unit* p) { return as_int(load(reinterpret_cast<const float*>(p))); }
  KERF_INLINE vf step(Loaded b, int s) {
    return as_float(s == 0 ? shift_left<16>(b) : and_i(b, set1i(static_cast<int32_t>(0xffff0000))));
  }
  KERF_INLINE Unit unit(In lo, In hi) { return lo.bits | static_cast<uint32_t>(hi.bits) << 16; }
  KERF_INLINE uint32_t word(In lo, In) { return float_to_bits(to_float(lo)); }
  KERF_INLINE vf words(const In* p) { return load(p); }
  KERF_INLINE vf gather_units(const In* p) { return load(reinterpret_cast<const float*>(p)); }
  KERF_INLINE void scatter_units(Unit* p, vf v) { store(reinterpret_cast<float*>(p), v); }
};

template <class T>
static void pack(void* packed, const void* b, int64_t k, int64_t n, int64_t b_row, int64_t b_col) {
  const int64_t panels = ceil_div(n, kPanel);
  parallel_if(k * n > 256 * 1024, panels, [&](int64_t panel) {
    pack_b_panels<T>(packed, b, k, n, b_row, b_col, panel, panel + 1);
  });
}

template <class T>
static bool run(const MatmulProblem& p) {
  return suits_dot<T>(p) ? run_dot<T>(p) : run_tiles<T>(p);
}

template <class T>
static MatmulCell matmul_cell() {
  return MatmulCell{T::kName, packed_bytes<T>, pack<T>, run<T>};
}

}  // namespace kerf::KERF_TARGET
