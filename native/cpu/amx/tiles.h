// Products on AMX. A tile register holds 16 rows of 64 bytes; one instruction multiplies a tile of A (16 rows x 16 words of
// k) by a tile of B (16 units of k x 16 columns) and adds to a tile of C (16 x 16 sums of 4 bytes): 16 cycles. Packed B,
// [units][kPanel], is B's tiles as they are, two next to each other. Packed A has the 16 words of a row together.
//
// A tile of the product is 32 x 32: four registers of C, two of A, two of B. A step of 16 units takes four loads (8 cycles
// each, two load ports) and four products (64 cycles), so the products are the limit while both operands are in L1. Fewer than 32
// rows read on into whatever follows in the packed A: rows of C are independent, and those are not stored.
#pragma once
#include "../matmul_tile.h"

namespace kerf::KERF_TARGET {

constexpr int kTileRows = 16;
static_assert(W == 16 && kPanel == 32);

// All eight registers are 16 x 64 bytes between construction and destruction. Whoever leaves them set makes every switch of
// threads save 8 KB.
struct AmxState {
  AmxState() {
    struct alignas(64) Config {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    };
    static constexpr Config config;
    _tile_loadconfig(&config);
  }
  ~AmxState() { _tile_release(); }
  AmxState(const AmxState&) = delete;
  AmxState& operator=(const AmxState&) = delete;
};

// A dtype of vectors that is multiplied on tiles; it gives multiply_tiles<c, a, b>(), and multiply() by amx_multiply.
template <class T>
struct OnTiles : T {
  using TileState = AmxState;
  static constexpr int kTogether = W;
  static constexpr int kRows = 2 * kTileRows;
};

// The compiler does not know that tile instructions read memory.
KERF_INLINE void memory_is_written() { asm volatile("" ::: "memory"); }

// A step: 16 units of k.
template <class T, bool tall, bool wide>
KERF_INLINE void amx_step(const float* a, const typename T::Unit* b, int64_t b_row_bytes) {
  _tile_loadd(6, b, b_row_bytes);
  _tile_loadd(4, a, 64);
  T::template multiply_tiles<0, 4, 6>();
  if constexpr (wide) {
    _tile_loadd(7, b + W, b_row_bytes);
    T::template multiply_tiles<1, 4, 7>();
  }
  if constexpr (tall) {
    _tile_loadd(5, a + kTileRows * W, 64);
    T::template multiply_tiles<2, 5, 6>();
    if constexpr (wide) T::template multiply_tiles<3, 5, 7>();
  }
}

template <bool tall, bool wide>
KERF_INLINE void load_sums(const float* c, int64_t row_bytes) {
  const float* low = c + kTileRows * (row_bytes / 4);
  _tile_loadd(0, c, row_bytes);
  if constexpr (wide) _tile_loadd(1, c + W, row_bytes);
  if constexpr (tall) _tile_loadd(2, low, row_bytes);
  if constexpr (tall && wide) _tile_loadd(3, low + W, row_bytes);
}

template <bool tall, bool wide>
KERF_INLINE void store_sums(float* c, int64_t row_bytes) {
  float* low = c + kTileRows * (row_bytes / 4);
  _tile_stored(0, c, row_bytes);
  if constexpr (wide) _tile_stored(1, c + W, row_bytes);
  if constexpr (tall) _tile_stored(2, low, row_bytes);
  if constexpr (tall && wide) _tile_stored(3, low + W, row_bytes);
}

// One panel of B, up to 32 rows; `last` columns of the last vector.
template <class T, bool tall, bool wide>
static void amx_panel(const TileArgs<T>& args, const typename T::Unit* b, float* c, int64_t rows, int64_t last) {
  constexpr int vectors = wide ? 2 : 1;
  alignas(64) float edge[2 * kTileRows * kPanel];
  const bool whole = rows == (tall ? 2 : 1) * kTileRows && last == W;
  if (args.accumulate) {
    if (!whole) {
      for (int64_t r = 0; r < rows; r++) {
        if (wide) store(edge + r * kPanel, load(c + r * args.c_row));
        store(edge + r * kPanel + (vectors - 1) * W, load_n(c + r * args.c_row + (vectors - 1) * W, last));
      }
    }
    memory_is_written();
    load_sums<tall, wide>(whole ? c : edge, 4 * (whole ? args.c_row : kPanel));
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    memory_is_written();
  }
  const float* a = args.a;
  const int64_t a_step = args.a_word * W, b_step = W * args.b_unit;
  int64_t units = args.units;
  const char* ahead = args.ahead;
  for (; units >= W; units -= W, a += a_step, b += b_step) {
    amx_step<T, tall, wide>(a, b, 4 * args.b_unit);
    for (const char* end = ahead + W * args.ahead_step; ahead < end; ahead += 64) __builtin_prefetch(ahead, 0, 2);
  }
  if (units > 0) {  // B ends; A is padded with zeros, which must not meet what lies behind B
    alignas(64) typename T::Unit end[W * kPanel] = {};
    for (int64_t u = 0; u < units; u++)
      for (int v = 0; v < vectors; v++)
        store(reinterpret_cast<float*>(end + u * kPanel + v * W), load(reinterpret_cast<const float*>(b + u * args.b_unit + v * W)));
    memory_is_written();
    amx_step<T, tall, wide>(a, end, 4 * kPanel);
  }
  store_sums<tall, wide>(whole ? c : edge, 4 * (whole ? args.c_row : kPanel));
  if (whole) return;
  for (int64_t r = 0; r < rows; r++) {
    if (wide) store(c + r * args.c_row, load(edge + r * kPanel));
    store_n(c + r * args.c_row + (vectors - 1) * W, load(edge + r * kPanel + (vectors - 1) * W), last);
  }
}

template <class T>
static void amx_multiply(const TileArgs<T>& args, int64_t rows, int vectors) {
  const typename T::Unit* b = args.b;
  float* c = args.c;
  for (; vectors > 0; vectors -= kPanelVectors, b += args.b_panel, c += kPanel) {
    const bool wide = vectors > 1;
    const int64_t last = vectors <= kPanelVectors ? args.last : W;
    if (rows > kTileRows) wide ? amx_panel<T, true, true>(args, b, c, rows, last) : amx_panel<T, true, false>(args, b, c, rows, last);
    else wide ? amx_panel<T, false, true>(args, b, c, rows, last) : amx_panel<T, false, false>(args, b, c, rows, last);
  }
}

}  // namespace kerf::KERF_TARGET
