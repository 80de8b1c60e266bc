// Byte tables: int8 W that is sparse by any A that becomes uint8, exactly, for W whose non-zeros are spread evenly: 2:4, or
// scattered ones.
//
// Lanes are outputs. 8 inputs of a row, repeated across a register, are a table for vpshufb: a step takes four non-zeros of
// each of 16 outputs, one shuffle and one vpdpbusd where a dense product has one vpdpbusd for four inputs, zeros included. Sums
// of 8 rows x 32 outputs are in registers for kTilesInBlock tiles, whose steps (16 KiB of 2:4) and bytes of A stay in L1 while
// all rows pass by. Outputs that have fewer than four left repeat a 0. Tiles of 16 inputs would halve the broadcasts, but
// vbroadcasti32x4 costs more here than two vpbroadcastq; so do the spills that 10 rows bring.
//
//   int64   start[groups + 1]          of a group's steps; a group is 32 outputs
//   uint8   steps[groups][tiles][2]    of the first and the second 16 outputs; a tile is 8 inputs
//   uint8   index[count][64]           four of each output: which of the 8 inputs
//   int8    values[count][64]
//   int32   sums[groups][32]           of W's rows
//
// Indices are taken modulo 16 by the instruction, where 8 inputs repeat, or give 0; steps are added up before they are trusted.
#pragma once
#include "../spqmatmul_panels.h"

namespace kerf::KERF_TARGET {

constexpr int64_t kByteOutputs = 32, kByteInputs = 8;

struct ByteTables {
  int64_t groups, tiles;
  int64_t* start;
  uint8_t* steps;
  uint8_t* index;
  int8_t* values;
  int32_t* sums;
  int64_t bytes;

  ByteTables(void* packed, int64_t n, int64_t k, int64_t count) : groups(ceil_div(n, kByteOutputs)), tiles(ceil_div(k, kByteInputs)) {
    Parts parts{static_cast<char*>(packed)};
    start = parts.take<int64_t>(groups + 1);
    steps = parts.take<uint8_t>(groups * tiles * 2);
    index = parts.take<uint8_t>(count * 64);
    values = parts.take<int8_t>(count * 64);
    sums = parts.take<int32_t>(row_sums_bytes(n) / 4);
    bytes = parts.at - static_cast<char*>(packed);
  }

  bool sound(int64_t group, int64_t count) const {
    int64_t sum = 0;
    for (int64_t i = 0; i < 2 * tiles; i++) sum += steps[group * tiles * 2 + i];
    return is_share(start, group, sum, count);
  }
};

// Calls body(group, tile, half, begin[16], count[16], steps) for all sixteens of outputs of a tile in order.
template <class Body>
static void for_sixteens(const CsrMatrix& w, Body body) {
  for (int64_t group = 0; group * kByteOutputs < w.n; group++) {
    int32_t at[kByteOutputs];
    for (int64_t r = 0; r < kByteOutputs; r++) at[r] = w.pointers[min_of(group * kByteOutputs + r, w.n)];
    for (int64_t tile = 0; tile * kByteInputs < w.k; tile++) {
      for (int64_t half = 0; half < 2; half++) {
        int32_t begin[16], count[16], most = 0;
        for (int64_t i = 0; i < 16; i++) {
          const int64_t r = half * 16 + i, row = group * kByteOutputs + r;
          begin[i] = at[r];
          if (row < w.n)
            while (at[r] < w.pointers[row + 1] && w.columns[at[r]] < (tile + 1) * kByteInputs) at[r]++;
          count[i] = at[r] - begin[i];
          if (count[i] > most) most = count[i];
        }
        body(group, tile, half, begin, count, (most + 3) / 4);
      }
    }
  }
}

static int64_t count_byte_steps(const CsrMatrix& w) {
  if (!csr_sound(w)) return -1;
  int64_t all = 0;
  for_sixteens(w, [&](int64_t, int64_t, int64_t, const int32_t*, const int32_t*, int32_t steps) { all += steps; });
  return all;
}

static int64_t byte_tables_bytes(int64_t n, int64_t k, int64_t count) { return ByteTables(nullptr, n, k, count).bytes; }

static bool byte_tables_pack(void* packed, const CsrMatrix& w, int64_t count) {
  if (count_byte_steps(w) != count) return false;
  const ByteTables t(packed, w.n, w.k, count);
  const auto* values = static_cast<const int8_t*>(w.values);
  pack_row_sums(t.sums, w);
  memset(t.index, 0x80, static_cast<size_t>(count) * 64);  // gives 0
  memset(t.values, 0, static_cast<size_t>(count) * 64);
  int64_t step = 0;
  t.start[0] = 0;
  for_sixteens(w, [&](int64_t group, int64_t tile, int64_t half, const int32_t* begin, const int32_t* counts, int32_t steps) {
    t.steps[(group * t.tiles + tile) * 2 + half] = static_cast<uint8_t>(steps);
    for (int64_t lane = 0; lane < 16; lane++)
      for (int32_t i = 0; i < counts[lane]; i++) {
        const int64_t to = (step + i / 4) * 64 + lane * 4 + i % 4;
        t.index[to] = static_cast<uint8_t>(w.columns[begin[lane] + i] - tile * kByteInputs);
        t.values[to] = values[begin[lane] + i];
      }
    step += steps;
    t.start[group + 1] = step;
  });
  if (t.tiles == 0) memset(t.start, 0, static_cast<size_t>(t.groups + 1) * sizeof(int64_t));
  return true;
}

constexpr int64_t kTilesInBlock = 64, kRowsAtOnce = 640;

KERF_INLINE vi eight_everywhere(const uint8_t* p) {
  int64_t bits;
  memcpy(&bits, p, sizeof bits);
  return _mm512_set1_epi64(bits);
}

// Where a block's steps are.
struct ByteSteps {
  const uint8_t* steps;
  const uint8_t* index;
  const int8_t* value;
};

// Sums [R][32] of R rows of bytes += `tiles` tiles; answers where the next ones begin.
template <int R>
static ByteSteps add_steps(const ByteSteps& from_, int64_t tiles, bool first, const uint8_t* x, int64_t x_row, int32_t* sums) {
  vi acc[R][2];
#pragma GCC unroll 8
  for (int r = 0; r < R; r++)
#pragma GCC unroll 2
    for (int half = 0; half < 2; half++) acc[r][half] = first ? set1i(0) : load_i(sums + r * kByteOutputs + 16 * half);
  auto [steps, index, value] = from_;
  // N / 2 steps for each of both sixteens, which for 2:4 is so everywhere; otherwise one for the first or the second.
  auto take = [&, &index = index, &value = value](auto steps_, bool both, int half) __attribute__((always_inline)) {
    constexpr int N = decltype(steps_)::count;
    vi from[N], weights[N];
#pragma GCC unroll 4
    for (int s = 0; s < N; s++) {
      __builtin_prefetch(index + 1024 + 64 * s);
      __builtin_prefetch(value + 1024 + 64 * s);
      from[s] = _mm512_loadu_si512(index + 64 * s);
      weights[s] = _mm512_loadu_si512(value + 64 * s);
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) {
      const vi table = eight_everywhere(x + r * x_row);
#pragma GCC unroll 4
      for (int s = 0; s < N; s++) {
        vi& sum = acc[r][both ? s * 2 / N : half];
        sum = dot_bytes(sum, _mm512_shuffle_epi8(table, from[s]), weights[s]);
      }
    }
    index += 64 * N;
    value += 64 * N;
  };
  for (int64_t tile = 0; tile < tiles; tile++, steps += 2, x += kByteInputs) {
    if (steps[0] == 1 && steps[1] == 1) {
      take(Vectors<2>{}, true, 0);
      continue;
    }
    for (int s = steps[0]; s > 0; s--) take(Vectors<1>{}, false, 0);
    for (int s = steps[1]; s > 0; s--) take(Vectors<1>{}, false, 1);
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; r++) {
    store_i(sums + r * kByteOutputs, acc[r][0]);
    store_i(sums + r * kByteOutputs + 16, acc[r][1]);
  }
  return {steps, index, value};
}

// Sums [rows][32] of a group.
static void add_group(const ByteTables& t, int64_t group, const uint8_t* x, int64_t x_row, int64_t rows, int32_t* sums) {
  ByteSteps from{t.steps + group * t.tiles * 2, t.index + t.start[group] * 64, t.values + t.start[group] * 64}, next = from;
  if (t.tiles == 0) memset(sums, 0, static_cast<size_t>(rows * kByteOutputs) * sizeof(int32_t));
  for (int64_t tile = 0; tile < t.tiles; tile += kTilesInBlock, from = next) {
    const int64_t tiles = min_of(kTilesInBlock, t.tiles - tile);
    for (int64_t row = 0, step; row < rows; row += step) {
      const uint8_t* here = x + row * x_row + tile * kByteInputs;
      int32_t* to = sums + row * kByteOutputs;
      const int64_t left = rows - row;
      if (step = 8; left >= step) next = add_steps<8>(from, tiles, tile == 0, here, x_row, to);
      else if (step = 4; left >= step) next = add_steps<4>(from, tiles, tile == 0, here, x_row, to);
      else if (step = 2; left >= step) next = add_steps<2>(from, tiles, tile == 0, here, x_row, to);
      else if (step = 1; left >= step) next = add_steps<1>(from, tiles, tile == 0, here, x_row, to);
    }
  }
}

static bool byte_tables_run(const SparseBytesProblem& problem) {
  if (problem.m == 0 || problem.n == 0) return true;
  QProduct p;
  if (!begin_product(p, problem)) return false;
  const ByteTables t(const_cast<void*>(p.packed), p.n, p.k, problem.count);
  p.column_sums = t.sums;
  const int64_t stride = max_of(t.tiles, 1) * kByteInputs;
  auto* bytes = static_cast<uint8_t*>(scratch(Scratch::digits, static_cast<size_t>(p.m * stride)));
  if (!bytes) return false;
  constexpr int64_t kRowsATask = 40;
  const int64_t row_tasks = ceil_div(p.m, kRowsATask);
  const double ns = static_cast<double>(problem.count) * (0.3 * static_cast<double>(p.m) + 1);
  const bool several = ns > kSerialNs;
  parallel_if(several && p.m * p.k > 64 * 1024, row_tasks, [&](int64_t task) {
    const int64_t row = task * kRowsATask;
    rows_of_bytes(p, bytes + row * stride, stride, row, min_of(kRowsATask, p.m - row));
  });
  int32_t failed = 0;
  auto fail = [&] { __atomic_store_n(&failed, 1, __ATOMIC_RELAXED); };
  const int64_t pieces = several ? min_of(t.groups, 8 * pool_threads()) : 1;
  parallel_if(several, pieces, [&](int64_t task) {
    for (int64_t group = task * t.groups / pieces; group < (task + 1) * t.groups / pieces; group++) {
      if (!t.sound(group, problem.count)) return fail();
      const int64_t col = group * kByteOutputs;
      auto* sums = static_cast<int32_t*>(scratch(Scratch::convert, static_cast<size_t>(min_of(kRowsAtOnce, p.m) * kByteOutputs) * sizeof(int32_t)));
      if (!sums) return fail();
      for (int64_t row = 0; row < p.m; row += kRowsAtOnce) {
        const int64_t rows = min_of(kRowsAtOnce, p.m - row);
        add_group(t, group, bytes + row * stride, stride, rows, sums);
        Int8Rules::finish<void>(p, reinterpret_cast<const float*>(sums), kByteOutputs, row, rows, col, min_of(kByteOutputs, p.n - col));
      }
    }
  });
  return !failed;
}

static inline SparseCell<SparseBytesProblem> byte_tables_cell(const char* name) {
  return {name, kAnyRows, count_byte_steps, byte_tables_bytes, byte_tables_pack, byte_tables_run};
}

}  // namespace kerf::KERF_TARGET
