// C = activation(A W^T + bias) where W [n, k] is sparse: packing, and products of a batch of rows and of one row.
//
// Packed W ("panels") is cut into groups of kGroupRows outputs, a group into blocks of inputs, a power of two wide:
//
//   int32   start[groups + 1]                   of a group's non-zeros
//   uint16  counts[groups][blocks][kGroupRows]  non-zeros of each output in each block
//   uint16  columns[count]                      within the block
//   float   values[count]
//
// A batch: lanes are rows of A, transposed once into [k][V W] floats. A non-zero is then one broadcast and V multiply-adds
// whose operand is loaded from that row of the transpose: 2 loads a cycle from L1, 1 from L2, so a block's rows of the
// transpose are meant to stay in L1 while the outputs of a group pass by. Sums of a group wait in scratch between blocks.
// An output's sum is added up in the order of its inputs, in one task: results depend on neither threads nor groups.
//
// Counts and columns come from packed bytes that a caller may have forged: columns are masked to the block, and a group's
// counts are added up before they are trusted.
#pragma once
#include "matmul_epilogue.h"
#include "matmul_pack.h"
#include "vectors.h"

namespace kerf::KERF_TARGET {

constexpr int64_t kGroupRows = 256;
constexpr int64_t kMaxVectors = 4;        // of rows of A at a time
constexpr double kNonZerosInBlock = 12;   // of an output: with fewer, loading and storing its sums costs more than L1 saves

// Hands out the parts of packed weights one after the other, each at a multiple of 64 bytes.
struct Parts {
  char* at;

  template <class T>
  T* take(int64_t count) {
    auto* here = reinterpret_cast<T*>(at);
    at += ceil_div(count * static_cast<int64_t>(sizeof(T)), 64) * 64;
    return here;
  }
};

struct Panels {
  int64_t groups, blocks, block;
  int32_t* start;
  uint16_t* counts;
  uint16_t* columns;
  float* values;
  int64_t bytes;

  Panels(void* packed, int64_t n, int64_t k, int64_t count) {
    const double density = n > 0 && k > 0 ? static_cast<double>(count) / (static_cast<double>(n) * static_cast<double>(k)) : 1;
    block = 128;
    while (block < k && block < 32768 && static_cast<double>(block) * density < kNonZerosInBlock) block *= 2;
    groups = ceil_div(n, kGroupRows);
    blocks = ceil_div(k, block);
    Parts parts{static_cast<char*>(packed)};
    start = parts.take<int32_t>(groups + 1);
    counts = parts.take<uint16_t>(groups * blocks * kGroupRows);
    columns = parts.take<uint16_t>(count);
    values = parts.take<float>(count);
    bytes = parts.at - static_cast<char*>(packed);
  }

  const uint16_t* counts_of(int64_t group) const { return counts + group * blocks * kGroupRows; }

  // Whether the group's counts are what its share of the non-zeros is.
  bool sound(int64_t group, int64_t count) const {
    const uint16_t* c = counts_of(group);
    int64_t sum = 0;
    for (int64_t i = 0; i < blocks * kGroupRows; i++) sum += c[i];
    return start[group] >= 0 && start[group] + sum == start[group + 1] && start[group + 1] <= count;
  }
};

static int64_t sppacked_bytes(int64_t n, int64_t k, int64_t count) { return Panels(nullptr, n, k, count).bytes; }

// False when the matrix is not what CSR must be: pointers that grow from 0 to count, columns that grow within each row.
static bool csr_sound(const CsrMatrix& w) {
  if (w.pointers[0] != 0 || w.pointers[w.n] != w.count) return false;
  for (int64_t r = 0; r < w.n; r++)
    if (w.pointers[r] > w.pointers[r + 1]) return false;
  for (int64_t r = 0; r < w.n; r++) {
    int32_t last = -1;
    for (int32_t i = w.pointers[r]; i < w.pointers[r + 1]; i++) {
      if (w.columns[i] <= last || w.columns[i] >= w.k) return false;
      last = w.columns[i];
    }
  }
  return true;
}

static bool sppack(void* packed, const CsrMatrix& w) {
  if (!csr_sound(w)) return false;
  const Panels p(packed, w.n, w.k, w.count);
  memset(p.counts, 0, static_cast<size_t>(p.groups * p.blocks * kGroupRows * 2));
  int32_t out = 0;
  for (int64_t group = 0; group < p.groups; group++) {
    p.start[group] = out;
    const int64_t row0 = group * kGroupRows, rows = min_of(kGroupRows, w.n - row0);
    int32_t at[kGroupRows];
    for (int64_t r = 0; r < rows; r++) at[r] = w.pointers[row0 + r];
    uint16_t* counts = p.counts + group * p.blocks * kGroupRows;
    for (int64_t b = 0; b < p.blocks; b++, counts += kGroupRows) {
      const int64_t from = b * p.block, to = from + p.block;
      for (int64_t r = 0; r < rows; r++) {
        const int32_t begin = at[r], end = w.pointers[row0 + r + 1];
        for (; at[r] < end && w.columns[at[r]] < to; at[r]++, out++) {
          p.columns[out] = static_cast<uint16_t>(w.columns[at[r]] - from);
          p.values[out] = w.values[at[r]];
        }
        counts[r] = static_cast<uint16_t>(at[r] - begin);
      }
    }
  }
  p.start[p.groups] = out;
  return true;
}

// ---- a batch

// Rows [row, row + rows) of A as [k rounded up to blocks][V W] floats; lanes beyond the rows hold copies of the last.
template <class In>
static void transpose_rows(float* out, const In* a, int64_t a_row, int64_t rows, int64_t vectors, int64_t k) {
  for (int64_t v = 0; v < vectors; v++) {
    for (int64_t q = 0; q < k; q += W) {
      const int64_t there = min_of(W, k - q);
      vf lanes[W];
#pragma GCC unroll 16
      for (int r = 0; r < W; r++) {
        const In* from = a + min_of(v * W + r, rows - 1) * a_row + q;
        lanes[r] = there == W ? load(from) : load_n(from, there);
      }
      transpose(lanes);
      for (int64_t i = 0; i < there; i++) store(out + ((q + i) * vectors + v) * W, lanes[i]);
    }
  }
}

// One block of inputs for the outputs of a group: sums [kGroupRows][V W] += .
template <int V>
static void add_block(float* sums, const float* x, const uint16_t* counts, int64_t rows, uint32_t mask, bool first,
                      const uint16_t*& column, const float*& value) {
  constexpr int U = V >= 4 ? 2 : V == 1 ? 8 : 4;  // chains: 8 multiply-adds in flight
  const uint16_t* c = column;
  const float* w = value;
  for (int64_t r = 0; r < rows; r++, sums += V * W) {
    int left = counts[r];
    if (left == 0 && !first) continue;
    vf acc[U][V];
#pragma GCC unroll 8
    for (int i = 0; i < V; i++) acc[0][i] = first ? set1(0.0f) : load(sums + i * W);
#pragma GCC unroll 8
    for (int u = 1; u < U; u++)
#pragma GCC unroll 8
      for (int i = 0; i < V; i++) acc[u][i] = set1(0.0f);
    auto add_one = [&](int u) {  // the u-th from here
      const vf weight = set1(w[u]);
      const float* from = x + static_cast<size_t>(c[u] & mask) * (V * W);
#pragma GCC unroll 8
      for (int i = 0; i < V; i++) acc[u][i] = fma(weight, load(from + i * W), acc[u][i]);
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
      for (int u = 1; u < U; u++) sum = add(sum, acc[u][i]);
      store(sums + i * W, sum);
    }
  }
  column = c;
  value = w;
}

// Sums [kGroupRows][V W] to rows of C, with bias and activation.
template <class Out>
static void finish_group(const SparseProblem& p, const float* sums, int64_t vectors, int64_t row, int64_t rows, int64_t col,
                         int64_t cols) {
  for (int64_t v = 0; v * W < rows; v++) {
    for (int64_t j = 0; j < cols; j += W) {
      vf lanes[W];
#pragma GCC unroll 16
      for (int i = 0; i < W; i++) lanes[i] = load(sums + ((j + i) * vectors + v) * W);
      transpose(lanes);
      const int64_t width = min_of(W, cols - j), height = min_of(W, rows - v * W);
      const vf bias = p.bias ? load_n(p.bias + col + j, width) : set1(0.0f);
      Out* to = static_cast<Out*>(p.c) + (row + v * W) * p.c_row + col + j;
      for (int64_t r = 0; r < height; r++, to += p.c_row) {
        const vf x = activate(p.activation, p.bias ? add(lanes[r], bias) : lanes[r]);
        if (width == W) store(to, x);
        else store_n(to, x, width);
      }
    }
  }
}

static void finish_group(const SparseProblem& p, const float* sums, int64_t vectors, int64_t row, int64_t rows, int64_t col,
                         int64_t cols) {
  switch (p.c_type) {
    case DType::float32_: return finish_group<float>(p, sums, vectors, row, rows, col, cols);
    case DType::float16_: return finish_group<f16>(p, sums, vectors, row, rows, col, cols);
    case DType::bfloat16_: return finish_group<bf16>(p, sums, vectors, row, rows, col, cols);
    default: return;
  }
}

static void transpose_rows(const SparseProblem& p, float* out, int64_t row, int64_t rows, int64_t vectors) {
  switch (p.a_type) {
    case DType::float32_: return transpose_rows(out, static_cast<const float*>(p.a) + row * p.a_row, p.a_row, rows, vectors, p.k);
    case DType::float16_: return transpose_rows(out, static_cast<const f16*>(p.a) + row * p.a_row, p.a_row, rows, vectors, p.k);
    case DType::bfloat16_: return transpose_rows(out, static_cast<const bf16*>(p.a) + row * p.a_row, p.a_row, rows, vectors, p.k);
    default: return;
  }
}

// Where a chunk of rows begins: kMaxVectors W rows each but for the last.
struct Chunk {
  int64_t row, rows, vectors;
  Chunk(int64_t i, int64_t m) : row(i * kMaxVectors * W), rows(min_of(kMaxVectors * W, m - row)), vectors(ceil_div(rows, W)) {}
};

static bool spmatmul(const SparseProblem& p) {
  if (p.m == 0 || p.n == 0) return true;
  const Panels w(const_cast<void*>(p.packed), p.n, p.k, p.count);
  const int64_t chunks = ceil_div(p.m, kMaxVectors * W), padded = max_of(w.blocks * w.block, 1);
  const int64_t chunk_floats = padded * kMaxVectors * W;
  auto* x = static_cast<float*>(scratch(Scratch::pack_a, static_cast<size_t>(chunks * chunk_floats) * sizeof(float)));
  if (!x) return false;
  const double ns = static_cast<double>(p.count) * static_cast<double>(ceil_div(p.m, W)) / 4 + static_cast<double>(p.m * (p.k + p.n)) / 8;
  const bool several = ns > kSerialNs;
  constexpr int64_t kSlice = 16 * W;  // inputs that a task transposes
  const int64_t slices = ceil_div(p.k, kSlice);
  parallel_if(several, chunks * slices, [&](int64_t task) {
    const Chunk chunk(task / slices, p.m);
    const int64_t q = task % slices * kSlice;
    SparseProblem part = p;
    part.k = min_of(kSlice, p.k - q);
    part.a = static_cast<const char*>(p.a) + q * static_cast<int64_t>(element_bytes(p.a_type));
    transpose_rows(part, x + task / slices * chunk_floats + q * chunk.vectors * W, chunk.row, chunk.rows, chunk.vectors);
  });
  int32_t failed = 0;
  parallel_if(several, chunks * w.groups, [&](int64_t task) {
    const Chunk chunk(task / w.groups, p.m);
    const int64_t group = task % w.groups, col = group * kGroupRows, cols = min_of(kGroupRows, p.n - col);
    auto* sums = static_cast<float*>(scratch(Scratch::convert, static_cast<size_t>(kGroupRows * chunk.vectors * W) * sizeof(float)));
    if (!sums || !w.sound(group, p.count)) {
      __atomic_store_n(&failed, 1, __ATOMIC_RELAXED);
      return;
    }
    const uint16_t* column = w.columns + w.start[group];
    const float* value = w.values + w.start[group];
    const auto mask = static_cast<uint32_t>(w.block - 1);
    for (int64_t b = 0; b < w.blocks; b++) {
      const float* from = x + task / w.groups * chunk_floats + b * w.block * chunk.vectors * W;
      const uint16_t* counts = w.counts_of(group) + b * kGroupRows;
      switch (chunk.vectors) {
        case 1: add_block<1>(sums, from, counts, kGroupRows, mask, b == 0, column, value); break;
        case 2: add_block<2>(sums, from, counts, kGroupRows, mask, b == 0, column, value); break;
        case 3: add_block<3>(sums, from, counts, kGroupRows, mask, b == 0, column, value); break;
        default: add_block<4>(sums, from, counts, kGroupRows, mask, b == 0, column, value); break;
      }
    }
    if (w.blocks == 0) memset(sums, 0, static_cast<size_t>(kGroupRows * chunk.vectors * W) * sizeof(float));
    finish_group(p, sums, chunk.vectors, chunk.row, chunk.rows, col, cols);
  });
  return !failed;
}

}  // namespace kerf::KERF_TARGET
