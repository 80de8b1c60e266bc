// What drivers ask of images ([n, c, s], [planes, h, w]) and of recurrent steps, on the CPU and on a GPU alike.
#pragma once
#include "view.h"

namespace kerf {

// ---- batch norm: every channel's statistics are over n and s
KERF_INLINE bool is_channels_of_images(const View& a) { return a.rank == 3 && contiguous(a) && is_floating(a.dtype); }
KERF_INLINE bool is_channel_vector(const View& v, const View& a) {
  return v.dtype == DType::float32_ && v.rank == 1 && v.shape[0] == a.shape[1] && contiguous(v);
}
KERF_INLINE bool may_be_channel_vector(const OptView& v, const View& a) {
  return !present(v) || (holds_bias(v, a.shape[1]) && v.rank == 1);
}

// ---- pooling
struct PoolWindow {
  int64_t kernel, stride, pad, dilation;
};

KERF_INLINE bool is_planes(const View& v) { return v.rank == 3 && contiguous(v) && is_floating(v.dtype); }

// Whether y may hold an element for every window over x.
KERF_INLINE bool pools(const View& y, const View& x) {
  return is_planes(x) && is_planes(y) && x.dtype == y.dtype && x.shape[0] == y.shape[0];
}

// What a window may span and hold: tap numbers are exact in float32, and no product overflows.
constexpr int64_t kMaxWindow = int64_t{1} << 24;

KERF_INLINE bool window_fits(const PoolWindow& w, int64_t in, int64_t out) {
  const bool small = w.kernel <= kMaxWindow && w.stride <= kMaxWindow && w.dilation <= kMaxWindow &&
                     (w.kernel - 1) * w.dilation < kMaxWindow;
  return small && in > 0 && out > 0 && w.kernel > 0 && w.stride > 0 && w.dilation > 0 && w.pad >= 0 &&
         2 * w.pad <= w.kernel && (out - 1) * w.stride < in + w.pad;
}

// Tap numbers, one for every output.
KERF_INLINE bool holds_taps(const View& taps, const View& out) {
  return taps.dtype == DType::int32_ && same_shape(taps, out) && contiguous(taps);
}

KERF_INLINE bool resizes(const View& x, const View& y) { return pools(y, x) && x.shape[1] > 0 && x.shape[2] > 0; }

// ---- recurrent steps of [m, n] units. States, inputs and their gradients have one dtype; products with the state before, kept
// gates and what is carried from step to step are float32.
KERF_INLINE bool is_rows(const View& v, int64_t m, int64_t columns, DType dtype) {
  return v.rank == 2 && v.shape[0] == m && v.shape[1] == columns && v.dtype == dtype && contiguous(v);
}
KERF_INLINE bool has_units(const View& h) { return h.rank == 2 && h.shape[1] > 0; }
// `columns` a unit, of h's dtype or of float32.
KERF_INLINE bool is_like(const View& v, const View& h, int64_t columns = 1) {
  return is_rows(v, h.shape[0], columns * h.shape[1], h.dtype);
}
KERF_INLINE bool is_wide(const View& v, const View& h, int64_t columns = 1) {
  return is_rows(v, h.shape[0], columns * h.shape[1], DType::float32_);
}

KERF_INLINE bool is_lstm_step(const View& h, const View& c, const OptView& gates, const View& input, const View& recurrent,
                              const View& before) {
  return has_units(h) && is_like(h, h) && is_like(c, h) && is_like(before, h) && is_like(input, h, 4) && is_wide(recurrent, h, 4) &&
         (!present(gates) || is_wide(gates, h, 4));
}
KERF_INLINE bool is_lstm_back(const View& dgates, const View& dc, const View& dh, const View& grad_h, const View& grad_c, const View& gates,
                              const View& c, const View& before) {
  return has_units(c) && is_like(c, c) && is_like(before, c) && is_like(grad_h, c) && is_like(grad_c, c) && is_wide(dc, c) &&
         is_wide(dh, c) && is_like(dgates, c, 4) && is_wide(gates, c, 4);
}
KERF_INLINE bool is_gru_step(const View& h, const OptView& gates, const View& input, const View& recurrent, const View& before) {
  return has_units(h) && is_like(h, h) && is_like(before, h) && is_like(input, h, 3) && is_wide(recurrent, h, 3) &&
         (!present(gates) || is_wide(gates, h, 4));
}
KERF_INLINE bool is_gru_back(const View& dinput, const View& drecurrent, const View& direct, const View& dh, const View& grad,
                             const View& gates, const View& before) {
  return has_units(before) && is_like(before, before) && is_like(grad, before) && is_wide(direct, before) && is_wide(dh, before) &&
         is_like(dinput, before, 3) && is_like(drecurrent, before, 3) && is_wide(gates, before, 4);
}

}  // namespace kerf
