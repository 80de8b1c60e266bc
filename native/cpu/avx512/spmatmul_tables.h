// Few rows of A times sparse weights, without gathering: 64 outputs x 64 inputs of W at a time. The row's 64 inputs stand in
// four registers, a table for vpermi2ps; lanes are outputs, a step is one non-zero of each of 16 outputs. The outputs of a
// tile are sorted by their number of non-zeros, so that the 16 that share steps end together: 90 % of 4096^2 fills 82 % of
// the lanes, and 5 bytes a lane (3 of a 16-bit dtype) are all that is read.
//
//   int64   start[groups + 1]             of a group's steps; a group is 64 outputs
//   uint8   heads[groups][tiles][72]      steps of the four sixteens (4, then 4 of padding), then the lane of each output
//   uint8   index[steps][16]              which of the 64 inputs
//   W's     values[steps][16]                as they are, since these products wait for memory
//
// Indices are taken modulo 64 by the instruction; steps are added up before they are trusted.
#pragma once
#include "../sparse_types.h"

namespace kerf::KERF_TARGET {

constexpr int64_t kTile = 64, kHead = 8 + kTile;
constexpr int kSixteens = 4;

// Where a group's tile begins and ends in each of its outputs, and the outputs sorted by their counts.
struct TileOutputs {
  int32_t begin[kTile], count[kTile];
  uint8_t order[kTile];

  // `at` moves past the tile's non-zeros.
  TileOutputs(const CsrMatrix& w, int32_t (&at)[kTile], int64_t row0, int64_t to) {
    int32_t many[kTile + 2] = {};  // a counting sort, the largest first
    for (int64_t r = 0; r < kTile; r++) {
      begin[r] = at[r];
      if (row0 + r < w.n)
        while (at[r] < w.pointers[row0 + r + 1] && w.columns[at[r]] < to) at[r]++;
      count[r] = at[r] - begin[r];
      many[kTile - count[r] + 1]++;
    }
    for (int64_t c = 1; c <= kTile + 1; c++) many[c] += many[c - 1];
    for (int64_t r = 0; r < kTile; r++) order[many[kTile - count[r]]++] = static_cast<uint8_t>(r);
  }
};

template <class Body>
static void for_tiles(const CsrMatrix& w, Body body) {
  for (int64_t group = 0; group * kTile < w.n; group++) {
    int32_t at[kTile];
    for (int64_t r = 0; r < kTile; r++) at[r] = w.pointers[min_of(group * kTile + r, w.n)];
    for (int64_t tile = 0; tile * kTile < w.k; tile++) body(group, tile, TileOutputs(w, at, group * kTile, (tile + 1) * kTile));
  }
}

template <class T>
struct Tables {
  int64_t groups, tiles;
  int64_t* start;
  uint8_t* heads;
  uint8_t* index;
  T* values;
  int64_t bytes;

  Tables(void* packed, int64_t n, int64_t k, int64_t steps) : groups(ceil_div(n, kTile)), tiles(ceil_div(k, kTile)) {
    Parts parts{static_cast<char*>(packed)};
    start = parts.take<int64_t>(groups + 1);
    heads = parts.take<uint8_t>(groups * tiles * kHead);
    index = parts.take<uint8_t>(steps * W);
    values = parts.take<T>(steps * W);
    bytes = parts.at - static_cast<char*>(packed);
  }

  bool sound(int64_t group, int64_t steps) const {
    int64_t sum = 0;
    for (int64_t tile = 0; tile < tiles; tile++) {
      const uint8_t* head = heads + (group * tiles + tile) * kHead;
      sum += head[0] + head[1] + head[2] + head[3];
    }
    return is_share(start, group, sum, steps);
  }
};

static int64_t count_steps(const CsrMatrix& w) {
  if (!csr_sound(w)) return -1;
  int64_t steps = 0;
  for_tiles(w, [&](int64_t, int64_t, const TileOutputs& t) {
    for (int g = 0; g < kSixteens; g++) steps += t.count[t.order[16 * g]];
  });
  return steps;
}

template <class T>
static int64_t tables_bytes(int64_t n, int64_t k, int64_t steps) { return Tables<T>(nullptr, n, k, steps).bytes; }

template <class T>
static bool tables_pack(void* packed, const CsrMatrix& w, int64_t steps) {
  if (count_steps(w) != steps) return false;
  const Tables<T> t(packed, w.n, w.k, steps);
  int64_t step = 0;
  t.start[0] = 0;
  for_tiles(w, [&](int64_t group, int64_t tile, const TileOutputs& o) {
    uint8_t* head = t.heads + (group * t.tiles + tile) * kHead;
    memset(head, 0, 8);
    for (int lane = 0; lane < kTile; lane++) head[8 + o.order[lane]] = static_cast<uint8_t>(lane);
    for (int g = 0; g < kSixteens; g++) {
      head[g] = static_cast<uint8_t>(o.count[o.order[16 * g]]);
      for (int s = 0; s < head[g]; s++, step++) {
        for (int lane = 0; lane < W; lane++) {
          const int r = o.order[16 * g + lane];
          const bool there = s < o.count[r];
          t.index[step * W + lane] = there ? static_cast<uint8_t>(w.columns[o.begin[r] + s] - tile * kTile) : 0;
          t.values[step * W + lane] = there ? static_cast<const T*>(w.values)[o.begin[r] + s] : T{};
        }
      }
    }
    t.start[group + 1] = step;
  });
  if (t.tiles == 0) memset(t.start, 0, static_cast<size_t>(t.groups + 1) * sizeof(int64_t));
  return true;
}

// Lanes of a table of 64 floats: bit 5 of an index chooses the half.
KERF_INLINE vf look_up(const vf (&table)[4], vi index) {
  const __mmask16 high = _mm512_test_epi32_mask(index, _mm512_set1_epi32(32));
  return _mm512_mask_blend_ps(high, _mm512_permutex2var_ps(table[0], index, table[1]),
                              _mm512_permutex2var_ps(table[2], index, table[3]));
}
KERF_INLINE vi sixteen(const uint8_t* p) { return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }

// 64 outputs of one row. A lane that fills up a step multiplies the tile's first input by 0: where that may be infinite or
// NaN it is left out (`masked`), since zeros of W count as zero whatever they meet.
template <class T, bool masked>
static void table_group(const Tables<T>& t, int64_t group, const float* x, float* sums) {
  const uint8_t *head = t.heads + group * t.tiles * kHead, *index = t.index + t.start[group] * W;
  const T* value = t.values + t.start[group] * W;
  vf total[kSixteens] = {set1(0.0f), set1(0.0f), set1(0.0f), set1(0.0f)};
  for (int64_t tile = 0; tile < t.tiles; tile++, head += kHead) {
    const float* from = x + tile * kTile;
    const vf table[4] = {load(from), load(from + 16), load(from + 32), load(from + 48)};
    vf sorted[kSixteens];
#pragma GCC unroll 4
    for (int g = 0; g < kSixteens; g++) {
      vf a = set1(0.0f), b = a;
      auto step = [&](vf acc) {
        __builtin_prefetch(reinterpret_cast<const char*>(value) + 4096);
        __builtin_prefetch(reinterpret_cast<const char*>(index) + 1024);
        const vf weights = load(value), inputs = look_up(table, sixteen(index));
        acc = masked ? _mm512_mask3_fmadd_ps(inputs, weights, acc, ne(weights, set1(0.0f))) : fma(inputs, weights, acc);
        index += W;
        value += W;
        return acc;
      };
      int steps = head[g];
      for (; steps >= 2; steps -= 2) {
        a = step(a);
        b = step(b);
      }
      if (steps) a = step(a);
      sorted[g] = add(a, b);
    }
#pragma GCC unroll 4
    for (int g = 0; g < kSixteens; g++) total[g] = add(total[g], look_up(sorted, sixteen(head + 8 + 16 * g)));
  }
  for (int g = 0; g < kSixteens; g++) store(sums + 16 * g, total[g]);
}

template <class T>
static bool tables_run(const SparseProblem& p) {
  if (p.m == 0 || p.n == 0) return true;
  const Tables<T> t(const_cast<void*>(p.packed), p.n, p.k, p.count);
  const int64_t padded = max_of(t.tiles * kTile, kTile);
  bool finite = true;
  const float* x = widen_rows(p, padded, &finite);
  if (!x) return false;
  int32_t failed = 0;
  const double ns = static_cast<double>(p.m * p.count) * 1.2;
  const int64_t tasks = ns > kSerialNs ? min_of(t.groups, 8 * pool_threads()) : 1;
  parallel_if(tasks > 1, tasks, [&](int64_t task) {
    for (int64_t group = task * t.groups / tasks; group < (task + 1) * t.groups / tasks; group++) {
      if (!t.sound(group, p.count)) {
        __atomic_store_n(&failed, 1, __ATOMIC_RELAXED);
        return;
      }
      for (int64_t r = 0; r < p.m; r++) {
        alignas(64) float sums[kTile];
        if (finite) table_group<T, false>(t, group, x + r * padded, sums);
        else table_group<T, true>(t, group, x + r * padded, sums);
        finish_few(p, r, group * kTile, min_of(kTile, p.n - group * kTile), sums);
      }
    }
  });
  return !failed;
}

template <class T>
static SparseCell<SparseProblem> tables_cell(const char* name) {
  return {name, 6, count_steps, tables_bytes<T>, tables_pack<T>, tables_run<T>};
}

}  // namespace kerf::KERF_TARGET
