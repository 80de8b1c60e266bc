// How a convolution reads its input: as the rows of a matrix of patches that is never stored whole.
//
// Row p of it belongs to tap p = (channel, r, s) and column j to output pixel j = (image, oy, ox). Planes are the input laid
// out so that element (p, j) is x[tap(p) + pixel(j)]: padded, with the zeros of a transposed convolution, and for a column
// stride above 1 with the columns of equal remainder side by side. Neighbouring pixels of a line are then neighbours in
// memory for every tap, and nothing asks where the edges are. Without padding and strides the input serves as it is.
//
// Planes are laid for a chunk at a time (conv_chunks.h), which stays in L2 between being laid and being read: each element is
// read once for every tap of its channel.
#pragma once
#include <type_traits>
#include "conv_chunks.h"

namespace kerf::KERF_TARGET {

struct PlaneSteps {
  int64_t image, channel;  // elements between images, between channels
  int64_t pitch;           // between input rows
  int64_t phase;           // between columns of remainder s and s + 1 (column stride above 1)
  int64_t down;            // between output rows
  int64_t line;            // output pixels that are neighbours in memory: a row, or all of the chunk's
};

// What a convolution's planes and taps are for all of its chunks.
struct Patches : ConvChunks {
  int64_t taps_count;  // of a group's kernel
  bool in_place;       // the input serves as it is
  int64_t laid_h;      // input rows that the taps of a chunk's pixels span
  PlaneSteps step;
  const int64_t* taps;
  int64_t highest_tap;
};

// A chunk's planes.
template <class In>
struct Planes {
  const In* x;
  int64_t elements;  // that may be read from x on
  int64_t channel0;  // the first channel that is there
  int64_t pixels;    // of one image

  // Where the channels of a group begin, and how many elements may be read beyond its largest tap.
  int64_t offset(const Patches& p, int64_t group) const { return (group * p.shape.channels - channel0) * p.step.channel; }
  int64_t room(const Patches& p, int64_t group) const { return elements - offset(p, group) - p.highest_tap; }
};

// False when memory is exhausted. The taps are in the calling thread's scratch. There are pixels and images.
static bool describe_patches(const ConvShape& s, int64_t element_bytes, int64_t tasks, Patches& p) {
  cut_into_chunks(p, s, element_bytes, tasks);
  p.taps_count = s.channels * s.kernel_h * s.kernel_w;
  const int64_t all_rows = span(s.out_h, s.stride_h, s.kernel_h, s.dilation_h);
  p.in_place = s.pad_h == 0 && s.pad_w == 0 && s.up_h == 1 && s.up_w == 1 && s.stride_w == 1 && all_rows <= s.in_h && p.laid_w <= s.in_w;
  p.laid_h = span(p.chunk_rows, s.stride_h, s.kernel_h, s.dilation_h);
  PlaneSteps& step = p.step;
  step.phase = p.in_place ? 0 : ceil_div(p.laid_w, s.stride_w);
  step.pitch = p.in_place ? s.in_w : step.phase * s.stride_w;
  step.channel = (p.in_place ? s.in_h : p.laid_h) * step.pitch;
  step.image = s.groups * s.channels * step.channel;
  step.down = s.stride_h * step.pitch;
  step.line = step.down == s.out_w ? p.pixels : s.out_w;
  int64_t* taps = static_cast<int64_t*>(scratch(Scratch::taps, static_cast<size_t>(p.taps_count + 1) * sizeof(int64_t)));
  if (!taps) return false;
  p.taps = taps;
  p.highest_tap = 0;
  for (int64_t c = 0; c < s.channels; c++) {
    for (int64_t r = 0; r < s.kernel_h; r++) {
      for (int64_t q = 0; q < s.kernel_w; q++) {
        const int64_t column = q * s.dilation_w;
        *taps = c * step.channel + r * s.dilation_h * step.pitch + column % s.stride_w * step.phase + column / s.stride_w;
        p.highest_tap = max_of(p.highest_tap, *taps++);
      }
    }
  }
  return true;
}

// Output rows [row, row + rows) of one channel of the input, laid at `to`.
template <class In>
static void lay_plane(const Patches& p, int64_t row, int64_t rows, const In* from, In* to) {
  const ConvShape& s = p.shape;
  const PlaneSteps& step = p.step;
  const int64_t pad_h = s.pad_h - row * s.stride_h, laid_h = span(rows, s.stride_h, s.kernel_h, s.dilation_h);
  // Input rows and columns whose place lies inside: pad + i * up in [0, laid)
  const auto first = [](int64_t pad, int64_t up) { return pad >= 0 ? 0 : ceil_div(-pad, up); };
  const auto end = [](int64_t pad, int64_t up, int64_t laid, int64_t size) { return min_of(size, pad < laid ? ceil_div(laid - pad, up) : 0); };
  const int64_t x0 = first(s.pad_w, s.up_w), x1 = end(s.pad_w, s.up_w, p.laid_w, s.in_w);
  const int64_t y0 = first(pad_h, s.up_h), y1 = end(pad_h, s.up_h, laid_h, s.in_h);
  const auto zero = [&](int64_t begin, int64_t stop) { memset(to + begin, 0, static_cast<size_t>(stop - begin) * sizeof(In)); };
  if (x0 >= x1 || y0 >= y1) return zero(0, laid_h * step.pitch);
  if (s.stride_w == 1 && s.up_w == 1 && s.up_h == 1) {
    // One pass: what lies between two rows' copies is zero.
    const int64_t width = x1 - x0, left = s.pad_w + x0;
    int64_t zeros = 0;
    for (int64_t y = y0; y < y1; y++) {
      const int64_t at = (pad_h + y) * step.pitch + left;
      for (; zeros < at; zeros++) to[zeros] = In{};
      memcpy(to + at, from + y * s.in_w + x0, static_cast<size_t>(width) * sizeof(In));
      zeros = at + width;
    }
    return zero(zeros, laid_h * step.pitch);
  }
  zero(0, laid_h * step.pitch);
  for (int64_t y = y0; y < y1; y++) {
    const In* line = from + y * s.in_w;
    In* out = to + (pad_h + y * s.up_h) * step.pitch;
    // The first stride_w input columns begin in phases of their own; each goes on in steps of stride_w input columns.
    for (int64_t start = x0; start < min_of(x1, x0 + s.stride_w); start++) {
      const int64_t column = s.pad_w + start * s.up_w;
      In* at = out + column % s.stride_w * step.phase + column / s.stride_w;
      for (int64_t x = start; x < x1; x += s.stride_w, at += s.up_w) *at = line[x];
    }
  }
}

// Channels [channel0, channel0 + channels) of a chunk, in the calling thread's scratch until the next call; false when memory is
// exhausted.
template <class In>
static bool lay_chunk(const Patches& p, const void* input, const PixelChunk& chunk, int64_t channel0, int64_t channels, Planes<In>& planes) {
  const ConvShape& s = p.shape;
  const int64_t all = s.groups * s.channels, in_plane = s.in_h * s.in_w;
  const In* x = static_cast<const In*>(input) + chunk.image * all * in_plane;
  planes.pixels = chunk.rows * s.out_w;
  if (p.in_place) {
    planes.channel0 = 0;
    planes.x = x + chunk.row * p.step.down;
    planes.elements = chunk.images * p.step.image - chunk.row * p.step.down;
    return true;
  }
  planes.channel0 = channel0;
  constexpr int64_t kBeyond = 2 * kPanel;  // pieces are read in whole vectors, lines in whole tiles
  planes.elements = (chunk.images - 1) * p.step.image + channels * p.step.channel + kBeyond;
  In* laid = static_cast<In*>(scratch(Scratch::planes, static_cast<size_t>(planes.elements) * sizeof(In)));
  if (!laid) return false;
  memset(laid + planes.elements - kBeyond, 0, kBeyond * sizeof(In));
  planes.x = laid;
  for (int64_t image = 0; image < chunk.images; image++)
    for (int64_t c = 0; c < channels; c++)
      lay_plane(p, chunk.row, chunk.rows, x + (image * all + channel0 + c) * in_plane, laid + image * p.step.image + c * p.step.channel);
  return true;
}

// At most W output pixels that are neighbours in the planes.
struct Piece {
  int64_t offset;  // pixel(j) of the first
  int32_t at;      // its number, from the beginning of the range that was cut
  int32_t lanes;
};

// Cuts pixels [begin, end) of a chunk, whose images have `pixels` each, into pieces; answers their number.
static int cut_pixels(const Patches& p, int64_t pixels, int64_t begin, int64_t end, Piece* pieces) {
  const PlaneSteps& step = p.step;
  const int64_t line = min_of(step.line, pixels), down = step.line == p.shape.out_w ? step.down : 0;
  int count = 0;
  int64_t image = begin / pixels, row = begin % pixels / line, column = begin % pixels % line;
  const int64_t lines = pixels / line;
  for (int64_t at = begin; at < end;) {
    const int64_t lanes = min_of(min_of(line - column, end - at), W);
    pieces[count++] = {image * step.image + row * down + column, static_cast<int32_t>(at - begin), static_cast<int32_t>(lanes)};
    at += lanes;
    column += lanes;
    if (column == line) {
      column = 0;
      if (++row == lines) {
        row = 0;
        image++;
      }
    }
  }
  return count;
}

// Elements as they are, or widened to float32.
template <class In, class Out>
static void copy_lanes(Out* out, const In* from) {
  if constexpr (std::is_same_v<In, Out>) memcpy(out, from, W * sizeof(In));
  else store(out, load(from));
}
template <class In, class Out>
static void copy_one(Out* out, In from) {
  if constexpr (std::is_same_v<In, Out>) *out = from;
  else *out = to_float(from);
}

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
