// Where the 16-byte chunks of an operand lie. A product reads it by rows with K innermost (Reader, one row after another) or by
// lines of K (patches as columns, for the gradient of weights); what is outside counts as zeros.
#pragma once
#include "cu.h"

namespace kerf {
namespace cuda {

// A matrix of rows one after the other, row_bytes a multiple of 16.
struct PlainRows {
  const uint8_t* data;
  int rows, row_bytes;

  CU_FUNCTION int chunks() const { return row_bytes / 16; }

  // COUNT rows that are STEP apart, by chunks of K. take(i, from, valid) gets chunk number `chunk` of each. The first keeps its
  // place, the second finds it again every time: for kernels without registers to spare.
  template <int COUNT, int STEP>
  struct Reader {
    const PlainRows& all;
    const uint8_t* first;
    int row;
    CU_FUNCTION Reader(const PlainRows& rows, int first_row)
        : all(rows), first(rows.data + static_cast<size_t>(first_row) * rows.row_bytes), row(first_row) {}
    template <class Take>
    CU_FUNCTION void each(int chunk, Take take) const {
      const bool inside = chunk * 16 < all.row_bytes;
      const size_t step = static_cast<size_t>(STEP) * all.row_bytes;
      const uint8_t* from = first + chunk * 16;
#pragma unroll
      for (int i = 0; i < COUNT; i++, from += step) take(i, from, inside && row + i * STEP < all.rows);
    }
  };
  template <int COUNT, int STEP>
  struct LateReader {
    const PlainRows& all;
    int row;
    CU_FUNCTION LateReader(const PlainRows& rows, int first) : all(rows), row(first) {}
    template <class Take>
    CU_FUNCTION void each(int chunk, Take take) const {
      const bool inside = chunk < all.chunks();
#pragma unroll
      for (int i = 0; i < COUNT; i++)
        take(i, all.data + static_cast<size_t>(row + i * STEP) * all.row_bytes + chunk * 16, inside && row + i * STEP < all.rows);
    }
  };
};

// Division of numbers below 2^31 by one known before (Granlund and Montgomery 1994).
struct Divisor {
  uint32_t value, magic, shift;

  static Divisor of(int64_t divisor) {
    const auto d = static_cast<uint32_t>(divisor > 1 ? divisor : 1);
    uint32_t log = 0;
    while (log < 31 && (uint32_t{1} << log) < d) log++;
    if (log == 0) return {1, 0, 0};
    return {d, static_cast<uint32_t>(((uint64_t{1} << (31 + log)) + d - 1) / d), log - 1};
  }
  CU_FUNCTION uint32_t divide(uint32_t n) const {
    return value == 1 ? n : static_cast<uint32_t>(static_cast<uint64_t>(n) * magic >> 32) >> shift;
  }
};

// The patches of a convolution's input that its output pixels meet: row number p is pixel p's, its chunks are those of the taps'
// channels. The input is [image][y][x][group][chunks], channels last, each group's channels padded to whole chunks.
struct Patches {
  const uint8_t* data;  // of the group
  int images, out_h, out_w;
  int in_h, in_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w;
  int taps_h, taps_w;
  int tap_chunks, pixel_chunks;  // of a group, and from pixel to pixel
  Divisor by_area, by_width, by_tap, by_taps_w;

  CU_ANYWHERE int rows() const { return images * out_h * out_w; }
  CU_FUNCTION int chunks() const { return taps_h * taps_w * tap_chunks; }

  // Output pixel number p's corner of the input, and the number of the chunk there, modulo 2^32: it may lie outside.
  struct Corner {
    int y, x;
    uint32_t chunk;
  };
  CU_FUNCTION Corner corner(int p) const {
    if (p >= rows()) return {-(1 << 30), 0, 0};  // no tap reaches the input
    const int image = static_cast<int>(by_area.divide(p)), within = p - image * static_cast<int>(by_area.value);
    const int row = static_cast<int>(by_width.divide(within)), column = within - row * out_w;
    const int y = row * stride_h - pad_h, x = column * stride_w - pad_w;
    return {y, x, chunk_of(static_cast<uint32_t>(image) * in_h + y, x)};
  }
  // Chunk number k of a row, relative to its corner.
  CU_FUNCTION Corner tap(int k) const {
    if (k >= chunks()) return {-(1 << 30), 0, 0};
    const int tap = static_cast<int>(by_tap.divide(k)), row = static_cast<int>(by_taps_w.divide(tap));
    const int y = row * dilation_h, x = (tap - row * taps_w) * dilation_w;
    return {y, x, chunk_of(y, x) + static_cast<uint32_t>(k - tap * tap_chunks)};
  }
  CU_FUNCTION bool inside(const Corner& at, const Corner& tap) const {
    return static_cast<unsigned>(at.y + tap.y) < static_cast<unsigned>(in_h) &&
           static_cast<unsigned>(at.x + tap.x) < static_cast<unsigned>(in_w);
  }
  CU_FUNCTION const uint8_t* at(const Corner& at, const Corner& tap) const {
    return data + static_cast<size_t>(at.chunk + tap.chunk) * 16;
  }
  CU_FUNCTION uint32_t chunk_of(uint32_t line, int x) const {
    return (line * static_cast<uint32_t>(in_w) + static_cast<uint32_t>(x)) * static_cast<uint32_t>(pixel_chunks);
  }

  // As PlainRows::Reader.
  template <int COUNT, int STEP>
  struct Reader {
    const Patches& all;
    Corner rows[COUNT];
    CU_FUNCTION Reader(const Patches& from, int row) : all(from) {
#pragma unroll
      for (int i = 0; i < COUNT; i++) rows[i] = from.corner(row + i * STEP);
    }
    template <class Take>
    CU_FUNCTION void each(int chunk, Take take) const {
      const Corner tap = all.tap(chunk);
#pragma unroll
      for (int i = 0; i < COUNT; i++) take(i, all.at(rows[i], tap), all.inside(rows[i], tap));
    }
  };

  // COUNT chunks of every row that are STEP apart: those of one pixel after another. take(i, from, valid).
  template <int COUNT, int STEP>
  struct Columns {
    const Patches& all;
    Corner taps[COUNT];
    CU_FUNCTION Columns(const Patches& from, int chunk) : all(from) {
#pragma unroll
      for (int i = 0; i < COUNT; i++) taps[i] = from.tap(chunk + i * STEP);
    }
    template <class Take>
    CU_FUNCTION void each(int pixel, Take take) const {
      const Corner corner = all.corner(pixel);
#pragma unroll
      for (int i = 0; i < COUNT; i++) take(i, all.at(corner, taps[i]), all.inside(corner, taps[i]));
    }
  };
};

}  // namespace cuda
}  // namespace kerf
