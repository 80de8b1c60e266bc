// Panels: C = activation(A W^T + bias) for any sparse W and any number of rows.
//
// A unit is what one multiply-add of a lane takes: one input for floats, four neighbouring bytes for int8. Packed W is cut
// into groups of kGroupRows outputs, a group into blocks of units, a power of two wide:
//
//   int32   start[groups + 1]                   of a group's units
//   uint8   order[groups][blocks][kGroupRows]   its outputs, by their number of units in the block
//   uint16  counts[groups][blocks][kGroupRows]  that number, in this order
//   uint16  columns[count]                      within the block
//   uint32  values[count]                       the float, or four bytes
//
// Lanes are rows of A, transposed once into [units][V W] words. A unit of W is then one broadcast and V multiply-adds whose
// operand is loaded from that row of the transpose: 2 loads a cycle from L1, 1 from L2, so a block's rows of the transpose
// are meant to stay in L1 while the outputs of a group pass by. Sums of a group wait in scratch between blocks. Outputs pass
// by in the order of their counts: in any other a loop of 13 units ends with a branch that nobody foresees, for as much time
// as 8 units take. An output's sum is added up in the order of its inputs, in one task: results depend on neither threads
// nor groups.
//
// Counts and columns come from packed bytes that a caller may have forged: columns are masked to the block, and a group's
// counts are added up before they are trusted.
#pragma once
#include "sparse_types.h"

namespace kerf::KERF_TARGET {

constexpr int64_t kGroupRows = 256;
constexpr double kUnitsInBlock = 12;  // of an output: with fewer, loading and storing its sums costs more than L1 saves

// One input a unit; it is packed as float32, since arithmetic is what these products wait for.
template <class T>
struct FloatUnits {
  static constexpr int64_t kInputs = 1;
  using Weight = vf;

  // The unit at `at` of a row that ends at `end`; `at` moves past it.
  static uint32_t take(const CsrMatrix& w, int32_t& at, int32_t) {
    const float value = one(static_cast<const T*>(w.values)[at++]);
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
  }
  KERF_INLINE vf broadcast(const uint32_t* unit) { return set1(*reinterpret_cast<const float*>(unit)); }
  KERF_INLINE vf mac(vf weight, vf x, vf acc) { return fma(weight, x, acc); }
  KERF_INLINE vf total(vf a, vf b) { return add(a, b); }
};

struct Panels {
  int64_t groups, blocks, block, vectors;
  int32_t* start;
  uint8_t* order;
  uint16_t* counts;
  uint16_t* columns;
  uint32_t* values;
  int64_t bytes;

  // `units` an output has at most, `count` of them are there.
  Panels(void* packed, int64_t n, int64_t units, int64_t count) {
    const double density = n > 0 && units > 0 ? static_cast<double>(count) / (static_cast<double>(n) * static_cast<double>(units)) : 1;
    // Where units are dense, twice the vectors halve what a unit costs beside its multiply-adds; a block of half the width
    // leaves room for them in L1. With fewer units it costs more than that: 32 rows of 65 % zeros took 1.3 times as long.
    const bool wide = density >= 0.4;
    block = wide ? 64 : 128;
    vectors = wide ? 8 : 4;
    while (block < units && block < 32768 && static_cast<double>(block) * density < kUnitsInBlock) block *= 2;
    groups = ceil_div(n, kGroupRows);
    blocks = ceil_div(units, block);
    Parts parts{static_cast<char*>(packed)};
    start = parts.take<int32_t>(groups + 1);
    order = parts.take<uint8_t>(groups * blocks * kGroupRows);
    counts = parts.take<uint16_t>(groups * blocks * kGroupRows);
    columns = parts.take<uint16_t>(count);
    values = parts.take<uint32_t>(count);
    bytes = parts.at - static_cast<char*>(packed);
  }

  // Where the block's counts and order begin.
  int64_t place(int64_t group, int64_t b) const { return (group * blocks + b) * kGroupRows; }

  // Whether the group's counts are what its share of the units is.
  bool sound(int64_t group, int64_t count) const {
    const uint16_t* c = counts + place(group, 0);
    int64_t sum = 0;
    for (int64_t i = 0; i < blocks * kGroupRows; i++) sum += c[i];
    return is_share(start, group, sum, count);
  }
};

static_assert(kGroupRows == 256, "any uint8 is an output of a group");

template <class Units>
static int64_t panel_units(const CsrMatrix& w) {
  if (!csr_sound(w)) return -1;
  if (Units::kInputs == 1) return w.count;
  int64_t count = 0;
  for (int64_t r = 0; r < w.n; r++)
    for (int32_t at = w.pointers[r], end = w.pointers[r + 1]; at < end; count++) {
      const int64_t unit = w.columns[at] / Units::kInputs;
      while (at < end && w.columns[at] / Units::kInputs == unit) at++;
    }
  return count;
}

// The numbers 0 ... kGroupRows - 1 by `count`, equal ones in their order.
static void sort_by_count(const uint16_t (&count)[kGroupRows], int32_t most, uint8_t* order) {
  int32_t* begin = static_cast<int32_t*>(calloc(static_cast<size_t>(most) + 2, sizeof(int32_t)));
  for (int64_t r = 0; r < kGroupRows; r++) order[r] = static_cast<uint8_t>(r);
  if (!begin) return;  // any order is right
  for (int64_t r = 0; r < kGroupRows; r++) begin[count[r] + 1]++;
  for (int32_t c = 0; c <= most; c++) begin[c + 1] += begin[c];
  for (int64_t r = 0; r < kGroupRows; r++) order[begin[count[r]]++] = static_cast<uint8_t>(r);
  free(begin);
}

template <class Units>
static bool pack_panels(const Panels& p, const CsrMatrix& w, int64_t total) {
  if (panel_units<Units>(w) != total) return false;
  int32_t out = 0;
  for (int64_t group = 0; group < p.groups; group++) {
    p.start[group] = out;
    const int64_t row0 = group * kGroupRows, rows = min_of(kGroupRows, w.n - row0);
    int32_t at[kGroupRows];
    for (int64_t r = 0; r < rows; r++) at[r] = w.pointers[row0 + r];
    for (int64_t b = 0; b < p.blocks; b++) {
      const int64_t from = b * p.block, to = from + p.block;
      auto inside = [&](int32_t i, int64_t r) { return i < w.pointers[row0 + r + 1] && w.columns[i] / Units::kInputs < to; };
      uint16_t count[kGroupRows] = {};
      int32_t most = 0;
      for (int64_t r = 0; r < rows; r++) {
        for (int32_t i = at[r]; inside(i, r); count[r]++) Units::take(w, i, w.pointers[row0 + r + 1]);
        if (count[r] > most) most = count[r];
      }
      uint8_t* order = p.order + p.place(group, b);
      sort_by_count(count, most, order);
      for (int64_t i = 0; i < kGroupRows; i++) {
        const int64_t r = order[i];
        p.counts[p.place(group, b) + i] = count[r];
        for (int32_t left = count[r]; left > 0; left--) {
          p.columns[out] = static_cast<uint16_t>(w.columns[at[r]] / Units::kInputs - from);
          p.values[out++] = Units::take(w, at[r], w.pointers[row0 + r + 1]);
        }
      }
    }
  }
  p.start[p.groups] = out;
  return true;
}

// One block of units for the outputs of a group: sums [kGroupRows][V W] += .
template <class Units, int V>
static void add_block(float* all, const float* x, const uint16_t* counts, const uint8_t* order, uint32_t mask, bool first,
                      const uint16_t*& column, const uint32_t*& value) {
  constexpr int U = V >= 8 ? 1 : V >= 4 ? 2 : V == 1 ? 8 : 4;  // chains: 8 multiply-adds in flight
  const uint16_t* c = column;
  const uint32_t* w = value;
  for (int64_t r = 0; r < kGroupRows; r++) {
    int left = counts[r];
    if (left == 0 && !first) continue;
    float* sums = all + order[r] * (V * W);
    vf acc[U][V];
#pragma GCC unroll 8
    for (int i = 0; i < V; i++) acc[0][i] = first ? set1(0.0f) : load(sums + i * W);
#pragma GCC unroll 8
    for (int u = 1; u < U; u++)
#pragma GCC unroll 8
      for (int i = 0; i < V; i++) acc[u][i] = set1(0.0f);
    auto add_one = [&](int u) {  // the u-th from here
      const typename Units::Weight weight = Units::broadcast(w + u);
      const float* from = x + static_cast<size_t>(c[u] & mask) * (V * W);
#pragma GCC unroll 8
      for (int i = 0; i < V; i++) acc[u][i] = Units::mac(weight, load(from + i * W), acc[u][i]);
    };
    for (; left >= U; left -= U, c += U, w += U) {
#pragma GCC unroll 8
      for (int u = 0; u < U; u++) add_one(u);
    }
#pragma GCC unroll 8
    for (int u = 0; u + 1 < U; u++)  // each to a chain of its own
      if (u < left) add_one(u);
    c += left;
    w += left;
#pragma GCC unroll 8
    for (int i = 0; i < V; i++) {
      vf sum = acc[0][i];
#pragma GCC unroll 8
      for (int u = 1; u < U; u++) sum = Units::total(sum, acc[u][i]);
      store(sums + i * W, sum);
    }
  }
  column = c;
  value = w;
}

template <class Units>
static void add_block(int64_t vectors, float* sums, const float* x, const uint16_t* counts, const uint8_t* order, uint32_t mask,
                      bool first, const uint16_t*& column, const uint32_t*& value) {
  switch (vectors) {
    case 1: return add_block<Units, 1>(sums, x, counts, order, mask, first, column, value);
    case 2: return add_block<Units, 2>(sums, x, counts, order, mask, first, column, value);
    case 3: return add_block<Units, 3>(sums, x, counts, order, mask, first, column, value);
    case 4: return add_block<Units, 4>(sums, x, counts, order, mask, first, column, value);
    case 5: return add_block<Units, 5>(sums, x, counts, order, mask, first, column, value);
    case 6: return add_block<Units, 6>(sums, x, counts, order, mask, first, column, value);
    case 7: return add_block<Units, 7>(sums, x, counts, order, mask, first, column, value);
    default: return add_block<Units, 8>(sums, x, counts, order, mask, first, column, value);
  }
}

// All products of a problem. `fill(x, chunk, unit, units)` writes a slice of units of a chunk of rows, transposed;
// `finish(sums, chunk, col, cols)` takes a group's sums [outputs][V W].
template <class Units, class Fill, class Finish>
static bool run_panels(const void* packed, int64_t m, int64_t n, int64_t k, int64_t count, Fill fill, Finish finish) {
  const int64_t units = ceil_div(k, Units::kInputs);
  const Panels w(const_cast<void*>(packed), n, units, count);
  const int64_t chunks = ceil_div(m, w.vectors * W), chunk_words = max_of(w.blocks * w.block, 1) * w.vectors * W;
  auto* x = static_cast<float*>(scratch(Scratch::pack_a, static_cast<size_t>(chunks * chunk_words) * sizeof(float)));
  if (!x) return false;
  const double ns = static_cast<double>(count) * static_cast<double>(ceil_div(m, W)) / 4 + static_cast<double>(m * (k + n)) / 8;
  const bool several = ns > kSerialNs;
  constexpr int64_t kSlice = 16 * W;  // units that a task transposes
  const int64_t slices = ceil_div(units, kSlice);
  int32_t failed = 0;
  auto fail = [&] { __atomic_store_n(&failed, 1, __ATOMIC_RELAXED); };
  parallel_if(several, chunks * slices, [&](int64_t task) {
    const Chunk chunk(task / slices, m, w.vectors);
    const int64_t unit = task % slices * kSlice;
    if (!fill(x + task / slices * chunk_words + unit * chunk.vectors * W, chunk, unit, min_of(kSlice, units - unit))) fail();
  });
  parallel_if(several && !failed, failed ? 0 : chunks * w.groups, [&](int64_t task) {
    const Chunk chunk(task / w.groups, m, w.vectors);
    const int64_t group = task % w.groups, col = group * kGroupRows, cols = min_of(kGroupRows, n - col);
    const size_t bytes = static_cast<size_t>(kGroupRows * chunk.vectors * W) * sizeof(float);
    auto* sums = static_cast<float*>(scratch(Scratch::convert, bytes));
    if (!sums || !w.sound(group, count)) return fail();
    const uint16_t* column = w.columns + w.start[group];
    const uint32_t* value = w.values + w.start[group];
    const auto mask = static_cast<uint32_t>(w.block - 1);
    for (int64_t b = 0; b < w.blocks; b++) {
      const float* from = x + task / w.groups * chunk_words + b * w.block * chunk.vectors * W;
      const int64_t at = w.place(group, b);
      add_block<Units>(chunk.vectors, sums, from, w.counts + at, w.order + at, mask, b == 0, column, value);
    }
    if (w.blocks == 0) memset(sums, 0, bytes);
    if (!finish(sums, chunk, col, cols)) fail();
  });
  return !failed;
}

// ---- floats

static inline int64_t panels_bytes(int64_t n, int64_t k, int64_t count) { return Panels(nullptr, n, k, count).bytes; }

template <class T>
static bool panels_pack(void* packed, const CsrMatrix& w, int64_t count) {
  return pack_panels<FloatUnits<T>>(Panels(packed, w.n, w.k, count), w, count);
}

static inline bool panels_run(const SparseProblem& p) {
  if (p.m == 0 || p.n == 0) return true;
  return run_panels<FloatUnits<float>>(
      p.packed, p.m, p.n, p.k, p.count,
      [&](float* x, const Chunk& chunk, int64_t column, int64_t columns) {
        SparseProblem part = p;
        part.k = columns;
        part.a = static_cast<const char*>(p.a) + column * static_cast<int64_t>(element_bytes(p.a_type));
        transpose_rows(part, x, chunk.row, chunk.rows, chunk.vectors);
        return true;
      },
      [&](const float* sums, const Chunk& chunk, int64_t col, int64_t cols) {
        finish_lanes(p, sums, chunk.vectors, chunk.row, chunk.rows, col, cols);
        return true;
      });
}

constexpr int64_t kAnyRows = INT64_MAX;

template <class T>
static SparseCell<SparseProblem> panels_cell(const char* name) {
  return {name, kAnyRows, panel_units<FloatUnits<T>>, panels_bytes, panels_pack<T>, panels_run};
}

}  // namespace kerf::KERF_TARGET
