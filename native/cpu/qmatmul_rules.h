// What every product of bytes does around its sums, dense or sparse: how A's rows become uint8, and what becomes of int32 sums.
// Every combination of signs becomes uint8 x int8: int8 A is taken with 128 added, uint8 B with 128 subtracted (by the
// caller's zero point), and
//
//   sum (a - za) (b - zb) = sum a b - za sum_k b - zb (sum_k a - k za)
//
// is put right after the sums from B's column sums, which are packed behind B, and A's row sums, which packing finds.
// All of it is arithmetic modulo 2^32, so only the result has to fit int32: lib/ops/qmatmul.ts refuses a k that could
// overflow it.
#pragma once
#include "matmul_epilogue.h"
#include "matmul_pack.h"
#include "quantize_loops.h"

namespace kerf::KERF_TARGET {

template <class T> constexpr bool kFloating = false;
template <> constexpr bool kFloating<float> = true;
template <> constexpr bool kFloating<f16> = true;
template <> constexpr bool kFloating<bf16> = true;

KERF_INLINE void put_i(int32_t* p, vi x, All) { store_i(p, x); }
KERF_INLINE void put_i(int32_t* p, vi x, Some lanes) { store_in(p, x, lanes.n); }

// The problem with what the cell found out about A's rows.
struct QProduct : QMatmulProblem {
  const int32_t* column_sums;
  float* row_scale;    // per_tensor, per_row: a_scale and a_zero point here
  int32_t* row_zero;
  int32_t* row_sum;    // of the packed bytes; null where B has no zero point
};

constexpr int kSignFlip = 128;

struct Int8Rules {
  using Problem = QProduct;
  static constexpr bool kPacksB = false;

  static bool sums_in_c(const Problem& p) { return p.c_type == DType::float32_ || p.c_type == DType::int32_; }
  static bool finished(const Problem& p) {
    return p.c_type == DType::int32_ && p.a_type == DType::uint8_ && !p.a_zero && !p.b_zero;
  }

  static void begin_rows(const Problem& p, int64_t row, int64_t rows) {
    if (p.quantize != Quantize::per_row) return;
    for (int64_t r = row; r < row + rows; r++) {
      Range range{0, 0, true};  // holds 0, so that 0 is exact
      widen_range(p, r, 1, &range);
      dynamic_scale(range, p.row_scale + r, p.row_zero + r);
    }
  }

  template <class T>
  static bool pack_rows(const Problem& p, float* out, int64_t row, int64_t rows, int64_t k0, int64_t k) {
    const int64_t words = units_of<T>(k) * T::kSub;
    constexpr int64_t kWordBytes = 4 / T::kSub, kStep = W * kWordBytes;  // bytes of A in a word, in W words
    // Bytes that are packed as they are need no copy, but for the last few, if what follows them may not be read: B is padded
    // with zeros.
    const bool in_place = p.a_type == DType::uint8_ && p.a_col == 1 && !p.row_sum;
    const int64_t from = !in_place ? 0 : p.reads_beyond ? ceil_div(k, kStep) * kStep : k / kStep * kStep, stride = ceil_div(k, kStep) * kStep - from;
    auto* bytes = static_cast<uint8_t*>(scratch(Scratch::quantized, static_cast<size_t>(rows * stride)));
    if (!bytes) return false;
    if (from < k) {
      for (int64_t r = 0; r < rows; r++) {
        uint8_t* to = bytes + r * stride;
        row_bytes(p, to, row + r, k0 + from, k - from);
        memset(to + k - from, 0, static_cast<size_t>(stride - (k - from)));
        if (p.row_sum) p.row_sum[row + r] = (k0 ? p.row_sum[row + r] : 0) + sum_bytes(to, k);
      }
    }
    const auto* a = static_cast<const uint8_t*>(p.a) + row * p.a_row + k0;
    for (int64_t w = 0; w < words; w += W) {
      const int64_t q = w * kWordBytes;
      const auto words_of = [&](int64_t r) { return T::words(q < from ? a + r * p.a_row + q : bytes + r * stride + q - from); };
      float* to = out + w * rows;
      if constexpr (T::kTogether > 1) {
        for (int64_t r = 0; r < rows; r++) store(to + r * W, words_of(r));
        continue;
      }
      vf lanes[W];
#pragma GCC unroll 16
      for (int r = 0; r < W; r++) lanes[r] = words_of(min_of(r, rows - 1));
      transpose(lanes);
      // A full store spills into the next word, which is written later; only the panel's end needs care.
      const bool inside = w + W < words - 2 * W;
      for (int i = 0; i < W && w + i < words; i++) {
        if (inside) store(to + i * rows, lanes[i]);
        else store_n(to + i * rows, lanes[i], rows);
      }
    }
    return true;
  }

  template <class T>
  static void finish(const Problem& p, const float* sums, int64_t sums_row, int64_t row, int64_t rows, int64_t col,
                     int64_t cols) {
    if (requantizes_only(p) && p.a_step == 0) {
      const auto* from = reinterpret_cast<const int32_t*>(sums);
      if (p.c_type == DType::int8_) return requantize<int8_t>(p, row, rows, col, cols, from, sums_row);
      return requantize<uint8_t>(p, row, rows, col, cols, from, sums_row);
    }
    for (int64_t r = row; r < row + rows; r++, sums += sums_row) {
      const int32_t* from = reinterpret_cast<const int32_t*>(sums);
      const int64_t at = r * p.c_row + col;
      switch (p.c_type) {
        case DType::int32_: finish_row(p, r, col, cols, from, static_cast<int32_t*>(p.c) + at); break;
        case DType::float32_: finish_row(p, r, col, cols, from, static_cast<float*>(p.c) + at); break;
        case DType::float16_: finish_row(p, r, col, cols, from, static_cast<f16*>(p.c) + at); break;
        case DType::bfloat16_: finish_row(p, r, col, cols, from, static_cast<bf16*>(p.c) + at); break;
        case DType::int8_: finish_row(p, r, col, cols, from, static_cast<int8_t*>(p.c) + at); break;
        case DType::uint8_: finish_row(p, r, col, cols, from, static_cast<uint8_t*>(p.c) + at); break;
        default: break;
      }
    }
  }

  // Widens the range by rows of A, each multiplied where that is asked for.
  static void widen_range(const Problem& p, int64_t row, int64_t rows, Range* range) {
    for (int64_t r = row; r < row + rows; r++) {
      switch (p.a_type) {
        case DType::float32_: widen(p, static_cast<const float*>(p.a) + r * p.a_row, range); break;
        case DType::float16_: widen(p, static_cast<const f16*>(p.a) + r * p.a_row, range); break;
        case DType::bfloat16_: widen(p, static_cast<const bf16*>(p.a) + r * p.a_row, range); break;
        default: break;
      }
    }
  }

  // Row r of A, columns [k0, k0 + k), as the bytes that are packed.
  static void row_bytes(const Problem& p, uint8_t* out, int64_t r, int64_t k0, int64_t k) {
    switch (p.a_type) {
      case DType::float32_: return quantize_bytes(p, out, static_cast<const float*>(p.a), r, k0, k);
      case DType::float16_: return quantize_bytes(p, out, static_cast<const f16*>(p.a), r, k0, k);
      case DType::bfloat16_: return quantize_bytes(p, out, static_cast<const bf16*>(p.a), r, k0, k);
      default: break;
    }
    const uint8_t* a = static_cast<const uint8_t*>(p.a) + r * p.a_row + k0 * p.a_col;
    const uint8_t flip = p.a_type == DType::int8_ ? kSignFlip : 0;
    if (p.a_col == 1) {
      for (int64_t q = 0; q < k; q++) out[q] = a[q] ^ flip;
    } else {
      for (int64_t q = 0; q < k; q++) out[q] = a[q * p.a_col] ^ flip;
    }
  }

 private:
  static bool requantizes_only(const Problem& p) {
    return (p.c_type == DType::int8_ || p.c_type == DType::uint8_) && !p.bias && p.activation == Activation::none;
  }

  template <class Lanes>
  KERF_INLINE vf b_scale(const Problem& p, int64_t j, Lanes lanes) {
    return p.b_scale_step ? get(p.b_scale + j, lanes) : set1(*p.b_scale);
  }

  template <class Lanes>
  KERF_INLINE vi b_zero(const Problem& p, int64_t j, Lanes lanes) {
    return p.b_zero_step ? get_i(p.b_zero + j, lanes) : set1i(*p.b_zero);
  }

  // Of the bytes as they are packed.
  static int32_t a_zero(const Problem& p, int64_t r) {
    const bool flipped = p.a_type == DType::int8_ || p.quantize == Quantize::to_int8;
    return (p.a_zero ? p.a_zero[r * p.a_step] : 0) + (flipped ? kSignFlip : 0);
  }

  // What a b_zero is multiplied with: sum_k a - k za, modulo 2^32.
  static int32_t rest(const Problem& p, int64_t r, int32_t za) {
    if (!p.b_zero) return 0;
    return static_cast<int32_t>(static_cast<uint32_t>(p.row_sum[r]) - static_cast<uint32_t>(p.k) * static_cast<uint32_t>(za));
  }

  // QLinearMatMul's last step: the zero point is added before rounding.
  template <class Out>
  struct Rounding {
    static constexpr bool is_signed = static_cast<Out>(-1) < 0;
    const vf low = set1(is_signed ? -128.0f : 0.0f), high = set1(is_signed ? 127.0f : 255.0f), zero;

    explicit Rounding(const Problem& p) : zero(set1(static_cast<float>(p.c_zero ? *p.c_zero : 0))) {}

    template <class Lanes>
    __attribute__((always_inline)) void put(Out* out, vf x, Lanes lanes) const {
      put_bytes(out, to_int(min(max(add(x, zero), low), high)), lanes);
    }
  };

  // All of QLinearMatMul where the rows of A share a scale: what a column needs is made once and stays in registers. Row
  // by row it was 12 cycles a vector, 8 % of 1024^3.
  template <class Out>
  static void requantize(const Problem& p, int64_t row, int64_t rows, int64_t col, int64_t cols, const int32_t* sums,
                         int64_t sums_row) {
    const Rounding<Out> rounding(p);
    const int32_t za = a_zero(p, row);
    const vf sa = set1(*p.a_scale), sc = set1(*p.c_scale);
    for_vectors(cols, [&](int64_t j, auto lanes) {
      const vf factor = div(mul(sa, b_scale(p, col + j, lanes)), sc);  // one float32, as ONNX has it
      const vi offset = mul_i(set1i(za), get_i(p.column_sums + col + j, lanes));
      const int32_t* from = sums + j;
      Out* to = static_cast<Out*>(p.c) + row * p.c_row + col + j;
      for (int64_t r = row; r < row + rows; r++, from += sums_row, to += p.c_row) {
        vi x = sub_i(get_i(from, lanes), offset);
        if (p.b_zero) x = sub_i(x, mul_i(set1i(rest(p, r, za)), b_zero(p, col + j, lanes)));
        rounding.put(to, mul(to_float32(x), factor), lanes);
      }
    });
  }

  template <class A>
  static void widen(const Problem& p, const A* a, Range* range_) {
    if (p.a_col == 1 && !p.a_multiplier) return range<A>(p.k, a, range_);
    for (int64_t q = 0; q < p.k; q++) {
      const float x = one(a[q * p.a_col]) * (p.a_multiplier ? p.a_multiplier[q] : 1.0f);
      range<float>(1, &x, range_);
    }
  }

  template <class A>
  static void quantize_bytes(const Problem& p, uint8_t* out, const A* a, int64_t r, int64_t k0, int64_t k) {
    const bool is_signed = p.quantize == Quantize::to_int8;
    const float low = is_signed ? -128.0f : 0.0f, high = is_signed ? 127.0f : 255.0f;
    const float scale = p.a_scale[r * p.a_step];
    const int32_t zero = p.a_zero ? p.a_zero[r * p.a_step] : 0;
    const float* multiplier = p.a_multiplier ? p.a_multiplier + k0 : nullptr;
    a += r * p.a_row + k0 * p.a_col;
    if (p.a_col == 1) {
      quantize_row(k, out, a, multiplier, scale, zero, low, high);
    } else {
      for (int64_t q = 0; q < k; q++) {
        const float x = one(a[q * p.a_col]) * (multiplier ? multiplier[q] : 1.0f);
        out[q] = static_cast<uint8_t>(static_cast<int32_t>(quantized(x, scale, zero, low, high)) + zero);
      }
    }
    if (is_signed)
      for (int64_t q = 0; q < k; q++) out[q] ^= kSignFlip;
  }

  static int32_t sum_bytes(const uint8_t* a, int64_t k) {
    uint32_t sum = 0;
    for (int64_t q = 0; q < k; q++) sum += a[q];
    return static_cast<int32_t>(sum);
  }

  template <class Out>
  static void finish_row(const Problem& p, int64_t r, int64_t col, int64_t cols, const int32_t* sums, Out* out) {
    const int32_t za = a_zero(p, r);
    const int32_t* column_sums = p.column_sums + col;
    const vi vza = set1i(za), vrest = set1i(rest(p, r, za));
    auto exact = [&](int64_t j, auto lanes) {
      vi x = get_i(sums + j, lanes);
      if (za) x = sub_i(x, mul_i(vza, get_i(column_sums + j, lanes)));
      if (p.b_zero) x = sub_i(x, mul_i(vrest, b_zero(p, col + j, lanes)));
      return x;
    };
    if constexpr (sizeof(Out) == 4 && !kFloating<Out>) {
      for_vectors(cols, [&](int64_t j, auto lanes) { put_i(out + j, exact(j, lanes), lanes); });
    } else {
      const vf sa = set1(p.a_scale[r * p.a_step]);
      auto real = [&](int64_t j, auto lanes) {
        vf x = mul(to_float32(exact(j, lanes)), mul(sa, b_scale(p, col + j, lanes)));
        if (p.bias) x = add(x, get(p.bias + col + j, lanes));
        return activate(p.activation, x);
      };
      if constexpr (kFloating<Out>) {
        for_vectors(cols, [&](int64_t j, auto lanes) { put(out + j, real(j, lanes), lanes); });
      } else {
        const Rounding<Out> rounding(p);
        const vf sc = set1(*p.c_scale);
        const bool plain = requantizes_only(p);
        for_vectors(cols, [&](int64_t j, auto lanes) {
          const vf x = plain ? mul(to_float32(exact(j, lanes)), div(mul(sa, b_scale(p, col + j, lanes)), sc)) : div(real(j, lanes), sc);
          rounding.put(out + j, x, lanes);
        });
      }
    }
  }
};

// The range of the whole of A, in parallel.
static bool whole_range(const QProduct& p, Range* result) {
  constexpr int64_t kTasks = 32;
  const int64_t tasks = min_of(kTasks, p.m);
  Range ranges[kTasks];
  parallel_if(p.m * p.k > 64 * 1024, tasks, [&](int64_t task) {
    const int64_t row = task * p.m / tasks;
    ranges[task] = {0, 0, true};
    Int8Rules::widen_range(p, row, (task + 1) * p.m / tasks - row, ranges + task);
  });
  *result = {0, 0, true};
  for (int64_t task = 0; task < tasks; task++) {
    if (ranges[task].min < result->min) result->min = ranges[task].min;
    if (ranges[task].max > result->max) result->max = ranges[task].max;
    result->finite &= ranges[task].finite;
  }
  return true;
}

// The product of a problem: rows' scales have a place, and where A has one range it is known.
static bool begin_product(QProduct& p, const QMatmulProblem& problem) {
  static_cast<QMatmulProblem&>(p) = problem;
  auto* rows = static_cast<float*>(scratch(Scratch::row_scales, static_cast<size_t>(3 * p.m) * sizeof(float)));
  if (!rows) return false;
  p.row_scale = rows;
  p.row_zero = reinterpret_cast<int32_t*>(rows + p.m);
  if (p.k == 0) p.b_zero = nullptr;  // nothing is packed then, so nothing sums up the rows
  p.row_sum = p.b_zero ? reinterpret_cast<int32_t*>(rows + 2 * p.m) : nullptr;
  if (p.quantize == Quantize::per_tensor || p.quantize == Quantize::per_row) {
    p.a_scale = p.row_scale;
    p.a_zero = p.row_zero;
    p.a_step = p.quantize == Quantize::per_row;
  }
  if (p.quantize == Quantize::per_tensor && p.m > 0) {
    Range range;
    whole_range(p, &range);
    dynamic_scale(range, p.row_scale, p.row_zero);
  }
  return true;
}

}  // namespace kerf::KERF_TARGET
