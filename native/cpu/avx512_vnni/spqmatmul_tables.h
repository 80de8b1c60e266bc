// Byte tables: int8 W that is sparse by any A that becomes uint8, exactly, for W whose non-zeros are spread evenly: 2:4, or
// scattered ones.
//
// Lanes are outputs. 16 inputs of a row, repeated across a register, are a table for vpshufb: a step takes four non-zeros of
// each of 16 outputs, one shuffle and one vpdpbusd where a dense product has one vpdpbusd for four inputs, zeros included. Sums
// of a tile of rows x 32 outputs stay in registers all along the inputs. Outputs that have fewer than four left repeat a 0.
//
//   int64   start[groups + 1]          of a group's steps; a group is 32 outputs
//   uint8   steps[groups][tiles][2]    of the first and the second 16 outputs; a tile is 16 inputs
//   uint8   index[count][64]           four of each output: which of the 16 inputs
//   int8    values[count][64]
//   int32   sums[groups][32]           of W's rows
//
// Indices are taken modulo 16 by the instruction, or give 0; steps are added up before they are trusted.
#pragma once
#include "../spqmatmul_panels.h"

namespace kerf::KERF_TARGET {

constexpr int64_t kByteOutputs = 32, kByteInputs = 16;

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
    return start[group] >= 0 && start[group] + sum == start[group + 1] && start[group + 1] <= count;
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

// Sums [R][32] of a group for R rows of bytes.
template <int R>
static void add_steps(const ByteTables& t, int64_t group, const uint8_t* x, int64_t x_row, int32_t* sums) {
  vi acc[R][2];
#pragma GCC unroll 10
  for (int r = 0; r < R; r++) acc[r][0] = acc[r][1] = set1i(0);
  const uint8_t *steps = t.steps + group * t.tiles * 2, *index = t.index + t.start[group] * 64;
  const int8_t* value = t.values + t.start[group] * 64;
  // `both` sixteens take N steps each, which for 2:4 is so everywhere; otherwise the first or the second takes one.
  auto take = [&](auto steps_, bool both, int half) __attribute__((always_inline)) {
    constexpr int N = decltype(steps_)::count;
    vi from[N], weights[N];
#pragma GCC unroll 4
    for (int s = 0; s < N; s++) {
      __builtin_prefetch(index + 1024 + 64 * s);
      __builtin_prefetch(value + 1024 + 64 * s);
      from[s] = _mm512_loadu_si512(index + 64 * s);
      weights[s] = _mm512_loadu_si512(value + 64 * s);
    }
#pragma GCC unroll 10
    for (int r = 0; r < R; r++) {
      const vi table = _mm512_broadcast_i32x4(sixteen_bytes(x + r * x_row));
#pragma GCC unroll 4
      for (int s = 0; s < N; s++) {
        vi& sum = acc[r][both ? s * 2 / N : half];
        sum = dot_bytes(sum, _mm512_shuffle_epi8(table, from[s]), weights[s]);
      }
    }
    index += 64 * N;
    value += 64 * N;
  };
  for (int64_t tile = 0; tile < t.tiles; tile++, steps += 2, x += kByteInputs) {
    if (steps[0] == 2 && steps[1] == 2) {
      take(Vectors<4>{}, true, 0);
      continue;
    }
    for (int s = steps[0]; s > 0; s--) take(Vectors<1>{}, false, 0);
    for (int s = steps[1]; s > 0; s--) take(Vectors<1>{}, false, 1);
  }
#pragma GCC unroll 10
  for (int r = 0; r < R; r++) {
    store_i(sums + r * kByteOutputs, acc[r][0]);
    store_i(sums + r * kByteOutputs + 16, acc[r][1]);
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
  const int64_t pieces = several ? min_of(t.groups, 8 * pool_threads()) : 1;
  parallel_if(several, pieces, [&](int64_t task) {
    for (int64_t group = task * t.groups / pieces; group < (task + 1) * t.groups / pieces; group++) {
      if (!t.sound(group, problem.count)) {
        __atomic_store_n(&failed, 1, __ATOMIC_RELAXED);
        return;
      }
      alignas(64) int32_t sums[10 * kByteOutputs];
      const int64_t col = group * kByteOutputs;
      for (int64_t row = 0, rows; row < p.m; row += rows) {
        const uint8_t* x = bytes + row * stride;
        const int64_t left = p.m - row;
        if (rows = 10; left >= rows) add_steps<10>(t, group, x, stride, sums);
        else if (rows = 5; left >= rows) add_steps<5>(t, group, x, stride, sums);
        else if (rows = 2; left >= rows) add_steps<2>(t, group, x, stride, sums);
        else if (rows = 1; left >= rows) add_steps<1>(t, group, x, stride, sums);
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
