// Blocks: C = activation(A W^T + bias) where the non-zeros of W come in runs of kRun inputs, for batches.
//
// Lanes are rows of A. kRun inputs of V vectors of rows stand in registers while all outputs of a group that have a run there
// pass by: a run is kRun broadcasts, V loads and stores of the output's sums and kRun V multiply-adds, which no load
// accompanies. Packed:
//
//   int32   start[groups + 1]        of a group's runs; a group is 128 outputs
//   uint8   counts[groups][k / 8]    outputs that have a run there
//   uint8   output[count]            within the group
//   float   values[count][kRun]
//
// Outputs are taken modulo the group and counts are added up before they are trusted.
#pragma once
#include "sparse_types.h"

namespace kerf::KERF_TARGET {

constexpr int64_t kRun = 8, kRunOutputs = 128;
constexpr int kRunVectors = W == 16 ? 3 : 1;  // 8 V registers of A, V sums and a broadcast, of 32 or 16

struct Runs {
  int64_t groups, places;
  int32_t* start;
  uint8_t* counts;
  uint8_t* output;
  float* values;
  int64_t bytes;

  Runs(void* packed, int64_t n, int64_t k, int64_t count) : groups(ceil_div(n, kRunOutputs)), places(ceil_div(k, kRun)) {
    Parts parts{static_cast<char*>(packed)};
    start = parts.take<int32_t>(groups + 1);
    counts = parts.take<uint8_t>(groups * places);
    output = parts.take<uint8_t>(count);
    values = parts.take<float>(count * kRun);
    bytes = parts.at - static_cast<char*>(packed);
  }

  bool sound(int64_t group, int64_t count) const {
    int64_t sum = 0;
    for (int64_t i = 0; i < places; i++) sum += counts[group * places + i];
    return is_share(start, group, sum, count);
  }
};

static int64_t count_runs(const CsrMatrix& w) {
  if (!csr_sound(w)) return -1;
  int64_t count = 0;
  for (int64_t r = 0; r < w.n; r++)
    for (int32_t at = w.pointers[r]; at < w.pointers[r + 1]; at++)
      count += at == w.pointers[r] || w.columns[at] / kRun != w.columns[at - 1] / kRun;
  return count;
}

static int64_t runs_bytes(int64_t n, int64_t k, int64_t count) { return Runs(nullptr, n, k, count).bytes; }

template <class T>
static bool runs_pack(void* packed, const CsrMatrix& w, int64_t count) {
  if (count_runs(w) != count) return false;
  const Runs p(packed, w.n, w.k, count);
  const auto* values = static_cast<const T*>(w.values);
  memset(p.values, 0, static_cast<size_t>(count * kRun) * sizeof(float));
  int32_t run = 0;
  for (int64_t group = 0; group < p.groups; group++) {
    p.start[group] = run;
    const int64_t row0 = group * kRunOutputs, rows = min_of(kRunOutputs, w.n - row0);
    int32_t at[kRunOutputs];
    for (int64_t r = 0; r < rows; r++) at[r] = w.pointers[row0 + r];
    for (int64_t place = 0; place < p.places; place++) {
      const int32_t first = run;
      for (int64_t r = 0; r < rows; r++) {
        const int32_t begin = at[r], end = w.pointers[row0 + r + 1];
        for (; at[r] < end && w.columns[at[r]] < (place + 1) * kRun; at[r]++)
          p.values[run * kRun + w.columns[at[r]] - place * kRun] = one(values[at[r]]);
        if (at[r] > begin) p.output[run++] = static_cast<uint8_t>(r);
      }
      p.counts[group * p.places + place] = static_cast<uint8_t>(run - first);
    }
  }
  p.start[p.groups] = run;
  return true;
}

// Sums [kRunOutputs][V W] of a group. Where A may be infinite or NaN, zeros that fill up a run are left out: they count as zero
// whatever they meet.
template <int V, bool skips>
static void add_runs(const Runs& w, int64_t group, float* sums, const float* x) {
  memset(sums, 0, static_cast<size_t>(kRunOutputs * V * W) * sizeof(float));
  const uint8_t *counts = w.counts + group * w.places, *output = w.output + w.start[group];
  const float* value = w.values + static_cast<int64_t>(w.start[group]) * kRun;
  for (int64_t place = 0; place < w.places; place++, x += kRun * V * W) {
    const int runs = counts[place];
    if (runs == 0) continue;
    vf tile[kRun][V];
#pragma GCC unroll 8
    for (int j = 0; j < kRun; j++)
#pragma GCC unroll 3
      for (int i = 0; i < V; i++) tile[j][i] = load(x + (j * V + i) * W);
    for (int r = 0; r < runs; r++, value += kRun) {
      __builtin_prefetch(value + 512);
      float* to = sums + (output[r] % kRunOutputs) * (V * W);
      vf acc[V];
#pragma GCC unroll 3
      for (int i = 0; i < V; i++) acc[i] = load(to + i * W);
#pragma GCC unroll 8
      for (int j = 0; j < kRun; j++) {
        if (skips && value[j] == 0) continue;
        const vf weight = set1(value[j]);
#pragma GCC unroll 3
        for (int i = 0; i < V; i++) acc[i] = fma(weight, tile[j][i], acc[i]);
      }
#pragma GCC unroll 3
      for (int i = 0; i < V; i++) store(to + i * W, acc[i]);
    }
    output += runs;
  }
}

template <int V>
static void add_runs(const Runs& w, int64_t group, float* sums, const float* x, bool finite) {
  if (finite) add_runs<V, false>(w, group, sums, x);
  else add_runs<V, true>(w, group, sums, x);
}

static bool runs_run(const SparseProblem& p) {
  if (p.m == 0 || p.n == 0) return true;
  const Runs w(const_cast<void*>(p.packed), p.n, p.k, p.count);
  const int64_t chunks = ceil_div(p.m, kRunVectors * W), chunk_floats = max_of(w.places * kRun, 1) * kRunVectors * W;
  auto* x = static_cast<float*>(scratch(Scratch::pack_a, static_cast<size_t>(chunks * chunk_floats) * sizeof(float)));
  if (!x) return false;
  const double ns = static_cast<double>(p.count) * static_cast<double>(ceil_div(p.m, W)) + static_cast<double>(p.m * (p.k + p.n)) / 8;
  const bool several = ns > kSerialNs;
  int32_t failed = 0, infinite = 0;
  parallel_if(several, chunks, [&](int64_t i) {
    const Chunk chunk(i, p.m, kRunVectors);
    float* to = x + i * chunk_floats;
    transpose_rows(p, to, chunk.row, chunk.rows, chunk.vectors);
    const int64_t there = p.k * chunk.vectors * W, whole = w.places * kRun * chunk.vectors * W;
    memset(to + there, 0, static_cast<size_t>(whole - there) * sizeof(float));
    if (!all_finite(to, whole)) __atomic_store_n(&infinite, 1, __ATOMIC_RELAXED);
  });
  parallel_if(several, chunks * w.groups, [&](int64_t task) {
    const Chunk chunk(task / w.groups, p.m, kRunVectors);
    const int64_t group = task % w.groups, col = group * kRunOutputs, cols = min_of(kRunOutputs, p.n - col);
    auto* sums = static_cast<float*>(scratch(Scratch::convert, static_cast<size_t>(kRunOutputs * kRunVectors * W) * sizeof(float)));
    if (!sums || !w.sound(group, p.count)) {
      __atomic_store_n(&failed, 1, __ATOMIC_RELAXED);
      return;
    }
    const float* from = x + task / w.groups * chunk_floats;
    switch (chunk.vectors) {
      case 1: add_runs<1>(w, group, sums, from, !infinite); break;
      case 2: add_runs<2>(w, group, sums, from, !infinite); break;
      default: add_runs<3>(w, group, sums, from, !infinite); break;
    }
    finish_lanes(p, sums, chunk.vectors, chunk.row, chunk.rows, col, cols);
  });
  return !failed;
}

template <class T>
static SparseCell<SparseProblem> blocks_cell(const char* name, int64_t rows = INT64_MAX) {
  return {name, rows, count_runs, runs_bytes, runs_pack<T>, runs_run};
}

}  // namespace kerf::KERF_TARGET
