// Convolution of bytes on the products of bytes: exact int32 sums of (x - zx) (w - zw), and what qmatmul makes of them.
//
// Output pixels are the rows of A, output channels the columns of B (packed weights, k in the order r, s, channel), so the
// input is laid channels last: neighbouring taps of a pixel are then neighbouring bytes, and a row of A is a few copies of
// kernel_w * channels bytes. For each chunk of pixels (conv_chunks.h):
//
//   lay its input rows as uint8, channels last, quantized on the way, with the zero point around
//   copy the rows of A (a 1x1 kernel reads them in place)
//   the product on the int8 tiles, into the L2 cache
//   turn the result around to channels first
//
// Include the target's qmatmul_types.h first.
#pragma once
#include "conv_chunks.h"
#include "qmatmul_types.h"

namespace kerf::KERF_TARGET {

// The bytes of x as they are laid: uint8, int8 with 128 added.
struct ByteInput {
  float scale;
  int32_t zero;  // of the bytes
  float low, high;
  int32_t shift;  // laid = the quantized value + this
};

KERF_INLINE vi bytes_of(const OneScale& one, vi offset, vf x) {
  return add_i(to_int(one.by_reciprocal ? quotient<true>(one, x) : quotient<false>(one, x)), offset);
}

// One image row [in_w] of all channels to [in_w][channels]. Float X is quantized.
template <class X>
static void lay_row(const ByteInput& in, const X* x, int64_t plane, int64_t channels, int64_t width, uint8_t* out) {
  if constexpr (sizeof(X) == 1) {
    for (int64_t i = 0; i < width; i++)
      for (int64_t c = 0; c < channels; c++) out[i * channels + c] = static_cast<uint8_t>(x[c * plane + i] + in.shift);
  } else {
    const OneScale one(in.scale, in.zero - in.shift, in.low, in.high);
    const vi offset = set1i(in.zero);
    if (channels == 1) {
      for (int64_t i = 0; i < width; i += W)
        store_bytes_n(out + i, bytes_of(one, offset, load_n(x + i, min_of(W, width - i))), min_of(W, width - i));
      return;
    }
    for (int64_t i = 0; i < width; i += W) {
      const int64_t some = min_of(W, width - i);
      int64_t c = 0;
      for (; c + W <= channels; c += W) {
        vf lanes[W];
        for (int r = 0; r < W; r++) lanes[r] = some == W ? load(x + (c + r) * plane + i) : load_n(x + (c + r) * plane + i, some);
        transpose(lanes);
        for (int64_t r = 0; r < some; r++) store_bytes(out + (i + r) * channels + c, bytes_of(one, offset, lanes[r]));
      }
      if (c == channels) continue;
      vf lanes[W];
      for (int r = 0; r < W; r++) lanes[r] = c + r < channels ? load_n(x + (c + r) * plane + i, some) : set1(0.0f);
      transpose(lanes);
      for (int64_t r = 0; r < some; r++)
        store_bytes_n(out + (i + r) * channels + c, bytes_of(one, offset, lanes[r]), channels - c);
    }
  }
}

// The input rows of a chunk's image, [laid_h][laid_w][channels].
template <class X>
static void lay_bytes(const QConvProblem& c, const ConvChunks& p, const ByteInput& in, const PixelChunk& chunk, int64_t image, uint8_t* to) {
  const ConvShape& s = c.shape;
  const int64_t laid_h = span(chunk.rows, s.stride_h, s.kernel_h, s.dilation_h), row_bytes = p.laid_w * s.channels;
  const int64_t x0 = s.pad_w, plane = s.in_h * s.in_w;
  const int64_t width = max_of(0, min_of(s.in_w, p.laid_w - s.pad_w));
  const auto* x = static_cast<const X*>(c.x) + image * s.channels * plane;
  const int zero = static_cast<uint8_t>(in.zero);
  for (int64_t i = 0; i < laid_h; i++, to += row_bytes) {
    const int64_t y = chunk.row * s.stride_h + i - s.pad_h;
    if (y < 0 || y >= s.in_h || width == 0) {
      memset(to, zero, static_cast<size_t>(row_bytes));
      continue;
    }
    memset(to, zero, static_cast<size_t>(x0 * s.channels));
    lay_row(in, x + y * s.in_w, plane, s.channels, width, to + x0 * s.channels);
    memset(to + (x0 + width) * s.channels, zero, static_cast<size_t>(row_bytes - (x0 + width) * s.channels));
  }
}

// Rows of A: the patch of each of an image's pixels. With kWhole > 0 so many bytes are copied at once, no fewer than a run
// has: what is too much is overwritten by the next run, or lies in the 64 bytes behind the last.
template <int64_t kWhole>
static void copy_runs(const ConvShape& s, int64_t laid_w, int64_t rows, const uint8_t* laid, uint8_t* out, int64_t run, int64_t runs) {
  for (int64_t y = 0; y < rows; y++) {
    for (int64_t x = 0; x < s.out_w; x++) {
      for (int64_t r = 0; r < s.kernel_h; r++) {
        const uint8_t* from = laid + ((y * s.stride_h + r * s.dilation_h) * laid_w + x * s.stride_w) * s.channels;
        for (int64_t q = 0; q < runs; q++, out += run)
          memcpy(out, from + q * s.dilation_w * s.channels, static_cast<size_t>(kWhole ? kWhole : run));
      }
    }
  }
}

static void copy_patches(const ConvShape& s, int64_t laid_w, int64_t rows, const uint8_t* laid, uint8_t* out) {
  const int64_t runs = s.dilation_w == 1 ? 1 : s.kernel_w, run = s.kernel_w / runs * s.channels;
  if (run <= 16) return copy_runs<16>(s, laid_w, rows, laid, out, run, runs);
  if (run <= 64) return copy_runs<64>(s, laid_w, rows, laid, out, run, runs);
  return copy_runs<0>(s, laid_w, rows, laid, out, run, runs);
}

// [pixels][channels] of 4-byte values to channels [.., pixels], `plane` apart; as float32 bits or converted to Out.
template <class Out>
static void turn_words(const float* from, int64_t pixels, int64_t channels, Out* out, int64_t plane) {
  for (int64_t c = 0; c < channels; c += W) {
    const int64_t some = min_of(W, channels - c);
    for (int64_t i = 0; i < pixels; i += W) {
      const int64_t rows = min_of(W, pixels - i);
      vf lanes[W];
      for (int r = 0; r < W; r++) lanes[r] = r < rows ? load_n(from + (i + r) * channels + c, some) : set1(0.0f);
      transpose(lanes);
      for (int64_t r = 0; r < some; r++) {
        if (rows == W) store(out + (c + r) * plane + i, lanes[r]);
        else store_n(out + (c + r) * plane + i, lanes[r], rows);
      }
    }
  }
}

// A chunk. False when memory is exhausted.
template <class T>
static bool qconv_chunk(const QConvProblem& c, const ConvChunks& p, const ByteInput& in, const PixelChunk& chunk) {
  const ConvShape& s = c.shape;
  const int64_t k = s.channels * s.kernel_h * s.kernel_w, n = s.out_channels;
  const int64_t pixels = chunk.rows * s.out_w, m = chunk.images * pixels;
  const int64_t laid_bytes = span(chunk.rows, s.stride_h, s.kernel_h, s.dilation_h) * p.laid_w * s.channels;
  const bool in_place = s.kernel_h == 1 && s.kernel_w == 1 && s.stride_h == 1 && s.stride_w == 1;
  auto* laid = static_cast<uint8_t*>(scratch(Scratch::planes, static_cast<size_t>((in_place ? chunk.images : 1) * laid_bytes + 64)));
  auto* rows = in_place ? laid : static_cast<uint8_t*>(scratch(Scratch::patches, static_cast<size_t>(m * k + 64)));
  auto* result = static_cast<float*>(scratch(Scratch::results, static_cast<size_t>(m * n) * sizeof(float)));
  if (!laid || !rows || !result) return false;
  for (int64_t i = 0; i < chunk.images; i++) {
    uint8_t* to = in_place ? laid + i * laid_bytes : laid;
    const int64_t image = chunk.image + i;
    switch (c.x_type) {
      case DType::float32_: lay_bytes<float>(c, p, in, chunk, image, to); break;
      case DType::float16_: lay_bytes<f16>(c, p, in, chunk, image, to); break;
      case DType::bfloat16_: lay_bytes<bf16>(c, p, in, chunk, image, to); break;
      case DType::int8_: lay_bytes<int8_t>(c, p, in, chunk, image, to); break;
      default: lay_bytes<uint8_t>(c, p, in, chunk, image, to); break;
    }
    if (!in_place) copy_patches(s, p.laid_w, chunk.rows, laid, rows + i * pixels * k);
  }
  QMatmulProblem q{};
  q.m = m;
  q.n = n;
  q.k = k;
  q.a = rows;
  q.a_type = DType::uint8_;
  q.a_row = k;
  q.a_col = 1;
  q.reads_beyond = true;
  q.quantize = Quantize::none;
  q.a_scale = &in.scale;
  q.a_zero = &in.zero;
  q.packed = c.packed;
  q.b_scale = c.w_scale;
  q.b_scale_step = c.w_scale_step;
  q.b_zero = c.w_zero;
  q.b_zero_step = c.w_zero_step;
  q.c = result;
  q.c_row = n;
  q.c_type = c.out_type == DType::int32_ ? DType::int32_ : DType::float32_;
  q.bias = c.bias;
  q.activation = c.activation;
  if (!qrun<T>(q)) return false;
  for (int64_t i = 0; i < chunk.images; i++) {
    const float* from = result + i * pixels * n;
    const int64_t at = (chunk.image + i) * n * p.pixels + chunk.row * s.out_w;
    switch (c.out_type) {
      case DType::float16_: turn_words(from, pixels, n, static_cast<f16*>(c.out) + at, p.pixels); break;
      case DType::bfloat16_: turn_words(from, pixels, n, static_cast<bf16*>(c.out) + at, p.pixels); break;
      default: turn_words(from, pixels, n, static_cast<float*>(c.out) + at, p.pixels); break;
    }
  }
  return true;
}

// How x becomes bytes: by what the problem says, or by the range of all of it.
static ByteInput input_of(const QConvProblem& c) {
  const bool is_signed = c.quantize == Quantize::to_int8 || c.x_type == DType::int8_;
  ByteInput in{1, 0, is_signed ? -128.0f : 0.0f, is_signed ? 127.0f : 255.0f, is_signed ? kSignFlip : 0};
  if (c.quantize == Quantize::per_tensor) {
    QProduct whole{};
    whole.m = c.shape.images * c.shape.channels;
    whole.k = c.shape.in_h * c.shape.in_w;
    whole.a = c.x;
    whole.a_type = c.x_type;
    whole.a_row = whole.k;
    whole.a_col = 1;
    Range range{0, 0, true};
    if (whole.m * whole.k > 0) whole_range(whole, &range);
    dynamic_scale(range, &in.scale, &in.zero);
  } else {
    if (c.x_scale) in.scale = *c.x_scale;
    if (c.x_zero) in.zero = *c.x_zero;
  }
  in.zero += in.shift;
  return in;
}

template <class T>
static bool run_qconv(const QConvProblem& c) {
  const ConvShape& s = c.shape;
  if (s.images * s.out_h * s.out_w * s.out_channels == 0) return true;
  const ByteInput in = input_of(c);
  const double ns = static_cast<double>(s.images * s.out_h * s.out_w) * static_cast<double>(s.channels * s.kernel_h * s.kernel_w) *
                    (2.0 * static_cast<double>(s.out_channels) / T::kFlopsPerNs + 0.1);
  const int64_t threads = ns < kSerialNs ? 1 : pool_threads();
  // by the bytes of the rows of A
  ConvChunks p;
  cut_into_chunks(p, s, s.kernel_h * s.kernel_w, threads == 1 ? 1 : min_of(4 * threads, static_cast<int64_t>(ns / kTaskNs) + 1));
  int32_t failed = 0;
  parallel_if(threads > 1, p.chunks, [&](int64_t i) {
    if (!qconv_chunk<T>(c, p, in, p.chunk(i))) __atomic_store_n(&failed, 1, __ATOMIC_RELAXED);
  });
  return !failed;
}

template <class T>
static QConvCell qconv_cell(const char* name) {
  return QConvCell{name, run_qconv<T>};
}

}  // namespace kerf::KERF_TARGET
