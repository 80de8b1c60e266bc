// Convolution as products of matrices whose right side is the matrix of patches (conv_planes.h), on matmul's tiles:
//
//   forward          out[o][pixel]   = sum over taps of    weight[o][tap] * patch[tap][pixel]
//   weight gradient  dweight[o][tap] = sum over pixels of  grad[o][pixel] * patch[tap][pixel]
//
// Each panel of 32 columns is gathered just before its tiles run, so the matrix of patches takes a panel of cache and no
// memory. The input's gradient is a forward product too, with turned weights (lib/ops/conv.ts).
#pragma once
#include "conv_direct.h"
#include "matmul_types.h"

namespace kerf::KERF_TARGET {

// A group's product; m = out_channels.
struct ConvProduct : MatmulProblem {
  const ConvShape* shape;
  ConvSizes sizes;
  const void* planes;  // Planes<In>
  int64_t group_offset;
  const int64_t* taps;
  int64_t highest_tap;
  // The weight gradient's
  const void* grad;    // of the first image, this group
  int64_t grad_image;  // elements between images
  int64_t padded;      // pixels of an image, to a whole number of units
  bool later;          // images before these are in C
};

struct ConvRules {
  using Problem = ConvProduct;
  static constexpr bool kPacksB = false, kGathersB = true, kReadsA = true;

  static bool sums_in_c(const Problem&) { return false; }
  static bool finished(const Problem&) { return false; }
  static bool continues(const Problem&) { return false; }
  static void begin_rows(const Problem&, int64_t, int64_t) {}

  template <class T>
  static bool pack_rows(const Problem& p, float* out, int64_t row, int64_t rows, int64_t k0, int64_t k) {
    return FloatRules::pack_rows<T>(p, out, row, rows, k0, k);
  }

  template <class T>
  static void gather(const Problem& p, typename T::Unit* out, int64_t col, int64_t width, int64_t k0, int64_t k) {
    using In = typename T::In;
    const auto& planes = *static_cast<const Planes<In>*>(p.planes);
    Piece pieces[kPanel];
    const int number = cut_pixels(planes.step, p.shape->out_w, p.sizes.pixels, col, col + width, pieces);
    const int64_t* taps = p.taps + k0;
    if constexpr (T::kElements == 1) {
      kerf::KERF_TARGET::gather(planes, p.group_offset, pieces, number, taps, k, p.highest_tap, out, kPanel);
    } else {
      constexpr int64_t kTaps = 32 * T::kElements;
      In stage[kTaps * kPanel + W];
      for (int64_t t = 0; t < k; t += kTaps, out += 32 * kPanel) {
        const int64_t some = min_of(kTaps, k - t);
        kerf::KERF_TARGET::gather(planes, p.group_offset, pieces, number, taps + t, some, p.highest_tap, stage, kPanel);
        pack_b_panel<T>(out, stage, some, kPanel, kPanel, 1);
      }
    }
  }

  // The sums go where their pixels are: a row is one output channel.
  template <class T>
  static void finish(const Problem& p, const float* sums, int64_t sums_row, int64_t row, int64_t rows, int64_t col, int64_t cols) {
    const int64_t pixels = p.sizes.pixels, image_step = p.shape->groups * p.m * pixels;
    for (int64_t done = 0; done < cols;) {
      const int64_t image = (col + done) / pixels, pixel = (col + done) % pixels, run = min_of(pixels - pixel, cols - done);
      for (int64_t r = 0; r < rows; r++) {
        const RowBias bias{p.bias ? p.bias[row + r] : 0.0f};
        const float* from = sums + r * sums_row + done;
        const int64_t at = image * image_step + (row + r) * pixels + pixel;
        if (p.c_type == DType::float32_) {
          finish_row(run, from, static_cast<float*>(p.c) + at, bias, p.activation);
        } else if constexpr (sizeof(typename T::In) == 2) {
          finish_row(run, from, static_cast<typename T::In*>(p.c) + at, bias, p.activation);
        }
      }
      done += run;
    }
  }
};

struct ConvGradRules {
  using Problem = ConvProduct;
  static constexpr bool kPacksB = false, kGathersB = true, kReadsA = false;

  static bool sums_in_c(const Problem&) { return true; }
  static bool finished(const Problem&) { return true; }
  static bool continues(const Problem& p) { return p.later; }
  static void begin_rows(const Problem&, int64_t, int64_t) {}

  // Calls body(image, pixel, pixels) for the parts of k that lie in one image.
  template <class Body>
  static void for_images(const Problem& p, int64_t most, int64_t k0, int64_t k, Body&& body) {
    for (int64_t at = k0; at < k0 + k;) {
      const int64_t image = at / p.padded, pixel = at % p.padded, run = min_of(min_of(p.padded - pixel, k0 + k - at), most);
      body(image, pixel, min_of(run, p.sizes.pixels - pixel));
      at += run;
    }
  }

  template <class T>
  static bool pack_rows(const Problem& p, float* out, int64_t row, int64_t rows, int64_t k0, int64_t k) {
    for_images(p, p.padded, k0, k, [&](int64_t image, int64_t pixel, int64_t run) {
      const auto* from = static_cast<const typename T::In*>(p.grad) + image * p.grad_image + row * p.sizes.pixels + pixel;
      pack_a_panel<T>(out, from, rows, run, p.sizes.pixels, 1);
      out += units_of<T>(run) * T::kSub * rows;
    });
    return true;
  }

  template <class T>
  static void gather(const Problem& p, typename T::Unit* out, int64_t col, int64_t width, int64_t k0, int64_t k) {
    using In = typename T::In;
    constexpr int64_t kPixels = 128, kPitch = kPixels + W;
    const auto& planes = *static_cast<const Planes<In>*>(p.planes);
    In stage[kPanel * kPitch];
    for_images(p, kPixels, k0, k, [&](int64_t image, int64_t pixel, int64_t run) {
      Piece pieces[kPixels];
      const int64_t begin = image * p.sizes.pixels + pixel;
      const int number = cut_pixels(planes.step, p.shape->out_w, p.sizes.pixels, begin, begin + run, pieces);
      kerf::KERF_TARGET::gather(planes, p.group_offset, pieces, number, p.taps + col, width, p.highest_tap, stage, kPitch);
      pack_b_panel<T>(out, stage, run, width, 1, kPitch);
      out += units_of<T>(run) * kPanel;
    });
  }

  template <class T>
  static void finish(const Problem&, const float*, int64_t, int64_t, int64_t, int64_t, int64_t) {}
};

// Lays images in turns and calls body(product, planes, first image, images); false when memory is exhausted.
template <class T, class Body>
static bool for_laid_images(const ConvShape& s, const void* x, Body&& body) {
  using In = typename T::In;
  ConvProduct p;
  p.shape = &s;
  p.sizes = sizes_of(s);
  if (p.sizes.pixels == 0 || s.images == 0) return true;
  int64_t* taps = static_cast<int64_t*>(scratch(Scratch::taps, static_cast<size_t>(p.sizes.taps + 1) * sizeof(int64_t)));
  if (!taps) return false;
  find_taps(s, steps_of(s, p.sizes), taps);
  p.taps = taps;
  p.highest_tap = 0;
  for (int64_t t = 0; t < p.sizes.taps; t++) p.highest_tap = max_of(p.highest_tap, taps[t]);
  const int64_t at_once = images_at_once(s, p.sizes, sizeof(In));
  for (int64_t image = 0; image < s.images; image += at_once) {
    const int64_t images = min_of(at_once, s.images - image);
    Planes<In> planes;
    if (!lay_planes(s, p.sizes, static_cast<const In*>(x), image, images, planes)) return false;
    p.planes = &planes;
    p.later = image > 0;
    if (!body(p, planes, image, images)) return false;
  }
  return true;
}

template <class T>
static bool run_conv(const ConvProblem& conv) {
  using In = typename T::In;
  const ConvShape& s = conv.shape;
  return for_laid_images<T>(s, conv.x, [&](ConvProduct& p, const Planes<In>& planes, int64_t image, int64_t images) {
    if (s.out_channels <= kDirectRows) return run_direct<In>(conv, p.sizes, planes, p.taps, p.highest_tap, image, images);
    p.m = s.out_channels;
    p.n = images * p.sizes.pixels;
    p.k = p.sizes.taps;
    p.a_row = p.k;
    p.a_col = 1;
    p.b = p.packed = nullptr;
    p.b_row = p.b_col = p.c_row = 0;
    p.c_type = conv.out_type;
    p.activation = conv.activation;
    const int64_t out_bytes = conv.out_type == DType::float32_ ? 4 : static_cast<int64_t>(sizeof(In));
    for (int64_t group = 0; group < s.groups; group++) {
      const int64_t channel = group * s.out_channels;
      p.group_offset = group * s.channels * planes.step.channel;
      p.a = static_cast<const In*>(conv.weight) + channel * p.k;
      p.c = static_cast<char*>(conv.out) + (image * s.groups * s.out_channels + channel) * p.sizes.pixels * out_bytes;
      p.bias = conv.bias ? conv.bias + channel : nullptr;
      if (!run_tiles<T, ConvRules>(p)) return false;
    }
    return true;
  });
}

template <class T>
static bool run_conv_weight_grad(const ConvGradProblem& conv) {
  using In = typename T::In;
  const ConvShape& s = conv.shape;
  if (s.images * s.out_h * s.out_w == 0)
    memset(conv.dweight, 0, static_cast<size_t>(s.groups * s.out_channels * s.channels * s.kernel_h * s.kernel_w) * sizeof(float));
  return for_laid_images<T>(s, conv.x, [&](ConvProduct& p, const Planes<In>& planes, int64_t image, int64_t images) {
    p.padded = units_of<T>(p.sizes.pixels) * T::kElements;
    p.m = s.out_channels;
    p.n = p.sizes.taps;
    p.k = images * p.padded;
    p.grad_image = s.groups * s.out_channels * p.sizes.pixels;
    p.a = p.b = p.packed = nullptr;
    p.a_row = p.a_col = p.b_row = p.b_col = 0;
    p.c_row = p.n;
    p.c_type = DType::float32_;
    p.bias = nullptr;
    p.activation = Activation::none;
    for (int64_t group = 0; group < s.groups; group++) {
      p.group_offset = group * s.channels * planes.step.channel;
      p.grad = static_cast<const In*>(conv.grad) + image * p.grad_image + group * p.m * p.sizes.pixels;
      p.c = conv.dweight + group * p.m * p.n;
      if (!run_tiles<T, ConvGradRules>(p)) return false;
    }
    return true;
  });
}

template <class T>
static ConvCell conv_cell(const char* name) {
  return ConvCell{name, run_conv<T>, run_conv_weight_grad<T>};
}

}  // namespace kerf::KERF_TARGET
