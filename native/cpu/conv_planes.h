// How a convolution reads its input: as the rows of a matrix of patches that is never stored whole.
//
// Row p of it belongs to tap p = (channel, r, s) and column j to output pixel j = (image, oy, ox). Planes are the input laid
// out so that element (p, j) is x[tap(p) + pixel(j)]: padded, with the zeros of a transposed convolution, and for a column
// stride above 1 with the columns of equal remainder side by side. Neighbouring pixels of a line are then neighbours in
// memory for every tap, and nothing asks where the edges are. Without padding and strides the input serves as it is.
#pragma once
#include "matmul_pack.h"

namespace kerf::KERF_TARGET {

// Laid planes of as many images as fit stay in the L2 and L3 caches between being laid and being read.
constexpr int64_t kLaidBytes = 4 << 20;

struct PlaneSteps {
  int64_t image, channel;  // elements between images, between channels
  int64_t pitch;           // between input rows
  int64_t phase;           // between columns of remainder s and s + 1 (column stride above 1)
  int64_t down;            // between output rows
  int64_t line;            // output pixels that are neighbours in memory: a row, or all of them
};

template <class In>
struct Planes {
  const In* x;
  int64_t elements;  // that may be read from x on
  PlaneSteps step;
};

struct ConvSizes {
  int64_t pixels, taps;   // of an image's output; of a group's kernel
  int64_t laid_h, laid_w;  // what the taps of all pixels span
  bool in_place;           // the input serves as it is
};

static ConvSizes sizes_of(const ConvShape& s) {
  ConvSizes z;
  z.pixels = s.out_h * s.out_w;
  z.taps = s.channels * s.kernel_h * s.kernel_w;
  z.laid_h = (s.out_h - 1) * s.stride_h + (s.kernel_h - 1) * s.dilation_h + 1;
  z.laid_w = (s.out_w - 1) * s.stride_w + (s.kernel_w - 1) * s.dilation_w + 1;
  z.in_place = s.pad_h == 0 && s.pad_w == 0 && s.up_h == 1 && s.up_w == 1 && s.stride_w == 1 && z.laid_h <= s.in_h && z.laid_w <= s.in_w;
  return z;
}

static PlaneSteps steps_of(const ConvShape& s, const ConvSizes& z) {
  PlaneSteps step;
  const int64_t channels = s.groups * s.channels;
  step.phase = z.in_place ? 0 : ceil_div(z.laid_w, s.stride_w);
  step.pitch = z.in_place ? s.in_w : step.phase * s.stride_w;
  step.channel = (z.in_place ? s.in_h : z.laid_h) * step.pitch;
  step.image = channels * step.channel;
  step.down = s.stride_h * step.pitch;
  step.line = step.down == s.out_w ? z.pixels : s.out_w;
  return step;
}

// One channel of the input, laid at `to`.
template <class In>
static void lay_plane(const ConvShape& s, const ConvSizes& z, const PlaneSteps& step, const In* from, In* to) {
  memset(to, 0, static_cast<size_t>(step.channel) * sizeof(In));
  // Input rows and columns whose place lies inside: pad + i * up in [0, laid)
  const auto first = [](int64_t pad, int64_t up) { return pad >= 0 ? 0 : ceil_div(-pad, up); };
  const auto end = [](int64_t pad, int64_t up, int64_t laid, int64_t size) { return min_of(size, pad < laid ? ceil_div(laid - pad, up) : 0); };
  const int64_t x0 = first(s.pad_w, s.up_w), x1 = end(s.pad_w, s.up_w, z.laid_w, s.in_w);
  const int64_t y0 = first(s.pad_h, s.up_h), y1 = end(s.pad_h, s.up_h, z.laid_h, s.in_h);
  if (x0 >= x1) return;
  for (int64_t y = y0; y < y1; y++) {
    const In* row = from + y * s.in_w;
    In* out = to + (s.pad_h + y * s.up_h) * step.pitch;
    if (s.stride_w == 1 && s.up_w == 1) {
      memcpy(out + s.pad_w + x0, row + x0, static_cast<size_t>(x1 - x0) * sizeof(In));
      continue;
    }
    // The first stride_w input columns begin in phases of their own; each goes on in steps of stride_w input columns.
    for (int64_t start = x0; start < min_of(x1, x0 + s.stride_w); start++) {
      const int64_t column = s.pad_w + start * s.up_w;
      In* at = out + column % s.stride_w * step.phase + column / s.stride_w;
      for (int64_t x = start; x < x1; x += s.stride_w, at += s.up_w) *at = row[x];
    }
  }
}

// The planes of images [image, image + images); false when memory is exhausted. Valid until the next call.
template <class In>
static bool lay_planes(const ConvShape& s, const ConvSizes& z, const In* x, int64_t image, int64_t images, Planes<In>& planes) {
  planes.step = steps_of(s, z);
  const int64_t channels = s.groups * s.channels, in_plane = s.in_h * s.in_w;
  x += image * channels * in_plane;
  planes.x = x;
  planes.elements = images * planes.step.image;
  if (z.in_place) return true;
  planes.elements += W;  // pieces are read in whole vectors
  In* laid = static_cast<In*>(scratch(Scratch::planes, static_cast<size_t>(planes.elements) * sizeof(In)));
  if (!laid) return false;
  memset(laid + images * planes.step.image, 0, W * sizeof(In));
  planes.x = laid;
  constexpr int64_t kElementsATask = 1 << 14;
  const int64_t planes_a_task = max_of(1, kElementsATask / planes.step.channel);
  parallel_if(planes.elements > 4 * kElementsATask, ceil_div(images * channels, planes_a_task), [&](int64_t task) {
    for (int64_t i = task * planes_a_task; i < min_of((task + 1) * planes_a_task, images * channels); i++)
      lay_plane(s, z, planes.step, x + i * in_plane, laid + i * planes.step.channel);
  });
  return true;
}

// Images that are worked on together.
static int64_t images_at_once(const ConvShape& s, const ConvSizes& z, int64_t element_bytes) {
  if (z.in_place) return s.images;
  return min_of(s.images, max_of(1, kLaidBytes / max_of(1, steps_of(s, z).image * element_bytes)));
}

// tap(p) of all taps of a group.
static void find_taps(const ConvShape& s, const PlaneSteps& step, int64_t* taps) {
  for (int64_t c = 0; c < s.channels; c++) {
    for (int64_t r = 0; r < s.kernel_h; r++) {
      for (int64_t q = 0; q < s.kernel_w; q++) {
        const int64_t column = q * s.dilation_w;
        *taps++ = c * step.channel + r * s.dilation_h * step.pitch + column % s.stride_w * step.phase + column / s.stride_w;
      }
    }
  }
}

// At most W output pixels that are neighbours in the planes.
struct Piece {
  int64_t offset;  // pixel(j) of the first
  int32_t at;      // its number, from the beginning of the range that was cut
  int32_t lanes;
};

// Cuts pixels [begin, end) of the images into pieces; answers their number.
static int cut_pixels(const PlaneSteps& step, int64_t out_w, int64_t pixels, int64_t begin, int64_t end, Piece* pieces) {
  int count = 0;
  int64_t image = begin / pixels, pixel = begin % pixels;
  int64_t row = pixel / step.line, column = pixel % step.line;
  const int64_t lines = pixels / step.line, down = step.line == out_w ? step.down : 0;
  for (int64_t at = begin; at < end;) {
    const int64_t lanes = min_of(min_of(step.line - column, end - at), W);
    pieces[count++] = {image * step.image + row * down + column, static_cast<int32_t>(at - begin), static_cast<int32_t>(lanes)};
    at += lanes;
    column += lanes;
    if (column == step.line) {
      column = 0;
      if (++row == lines) {
        row = 0;
        image++;
      }
    }
  }
  return count;
}

KERF_INLINE void copy_lanes(float* out, const float* from) { store(out, load(from)); }
KERF_INLINE void copy_lanes(float* out, const f16* from) { store(out, load(from)); }
KERF_INLINE void copy_lanes(float* out, const bf16* from) { store(out, load(from)); }
KERF_INLINE void copy_lanes(f16* out, const f16* from) { memcpy(out, from, W * sizeof(f16)); }
KERF_INLINE void copy_lanes(bf16* out, const bf16* from) { memcpy(out, from, W * sizeof(bf16)); }
KERF_INLINE void copy_one(float* out, float from) { *out = from; }
KERF_INLINE void copy_one(float* out, f16 from) { *out = to_float(from); }
KERF_INLINE void copy_one(float* out, bf16 from) { *out = to_float(from); }
KERF_INLINE void copy_one(f16* out, f16 from) { *out = from; }
KERF_INLINE void copy_one(bf16* out, bf16 from) { *out = from; }

template <class In, class Out>
struct Gather {
  const In* x;          // of the group
  const Piece* pieces;
  int number;
  const int64_t* taps;
  int64_t count;
  Out* out;
  int64_t out_row;
};

template <int kPieces, class In, class Out>
static void gather_pieces(const Gather<In, Out>& g) {
  const int number = kPieces ? kPieces : g.number;
  Out* out = g.out;
  for (int64_t t = 0; t < g.count; t++, out += g.out_row) {
    const In* from = g.x + g.taps[t];
#pragma GCC unroll 4
    for (int i = 0; i < number; i++) copy_lanes(out + g.pieces[i].at, from + g.pieces[i].offset);
  }
}

// Rows of the patch matrix: out[t * out_row + j] = x[taps[t] + pixel(j)] for `count` taps, in whole vectors, so that up to
// W - 1 elements after a row are overwritten (the next row repairs its own). `room`: elements from x on that may be read
// beyond the largest tap.
template <class In, class Out>
static void gather(const Gather<In, Out>& g, int64_t room) {
  bool inside = true;
  for (int i = 0; i < g.number; i++) inside &= g.pieces[i].offset + W <= room;
  if (!inside) {
    for (int64_t t = 0; t < g.count; t++)
      for (int i = 0; i < g.number; i++)
        for (int lane = 0; lane < g.pieces[i].lanes; lane++)
          copy_one(g.out + t * g.out_row + g.pieces[i].at + lane, g.x[g.taps[t] + g.pieces[i].offset + lane]);
    return;
  }
  switch (g.number) {
    case 1: return gather_pieces<1>(g);
    case 2: return gather_pieces<2>(g);
    case 3: return gather_pieces<3>(g);
    case 4: return gather_pieces<4>(g);
    default: return gather_pieces<0>(g);
  }
}

}  // namespace kerf::KERF_TARGET
