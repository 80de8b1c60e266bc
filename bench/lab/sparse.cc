// The sparse lab: how fast y = x W^T can be on AVX-512 when W is sparse, before any of it is a kernel of the library.
// `sparse <out> <in>` prints each idea with its ratio to the dense product at `kDense`. Not checked against an oracle beyond
// the spot checks below, no tails: sizes are multiples of 128.
//
//   tables   one row of x: 64 outputs x 64 inputs at a time; x in four registers is a table for vpermi2ps, lanes are
//            outputs, sorted by their count of non-zeros so that lanes of a vector end together. No gather at all.
//   blocked  a batch: lanes are rows of x (transposed), each non-zero is a load and a multiply-add for each vector;
//            blocks of inputs whose activations fit L1 (2 loads a cycle) instead of L2 (1 a cycle).
//   2:4      lanes are outputs; vpermilps picks among four inputs by the 2-bit index, vpshufb for int8.
//   1x16     a block's 8 columns of x for 48 rows stand in 24 registers while all outputs that have the block pass by.
#include <immintrin.h>
#include <sys/mman.h>
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>
#include "ceilings.h"

namespace {

constexpr double kDense = 258, kDenseInt8 = 1030, kDenseRead = 62;  // GFLOP/s, GOP/s, GB/s: what our dense kernels reach

uint64_t g_seed = 1;
uint32_t next() { return static_cast<uint32_t>((g_seed = g_seed * 6364136223846793005ull + 1442695040888963407ull) >> 32); }
float small() { return static_cast<float>(next() % 200) * 0.01f - 1; }

template <class T>
T* huge(size_t count) {
  const size_t bytes = (count * sizeof(T) >> 21 << 21) + (4 << 20);
  void* p = aligned_alloc(2 << 20, bytes);
  madvise(p, bytes, MADV_HUGEPAGE);
  memset(p, 0, bytes);
  return static_cast<T*>(p);
}

struct Csr {
  int n, k;
  std::vector<int> row{0}, column;
  std::vector<float> value;
  Csr(int n_, int k_, double density) : n(n_), k(k_) {
    for (int i = 0; i < n; i++) {
      for (int j = 0; j < k; j++)
        if (next() < density * 4294967296.0) column.push_back(j), value.push_back(small());
      row.push_back(static_cast<int>(column.size()));
    }
  }
};

template <class Run>
double fastest(int times, Run run) {
  double best = 1e30;
  for (int i = 0; i < times; i++) {
    const double start = lab::now_ns();
    run();
    best = std::min(best, lab::now_ns() - start);
  }
  return best;
}

void report(const char* what, double ns, double dense_ns, double error) {
  printf("%-28s %9.1f us, dense %9.1f us: %5.2fx, error %.1e\n", what, ns / 1e3, dense_ns / 1e3, dense_ns / ns, error);
}

// ---- one row of x: register tables

struct Tables {
  std::vector<uint8_t> head;  // a tile: steps of its 4 groups (8 bytes), then of each output the lane that has it (64)
  uint8_t* index;             // a step: 16 inputs of the 64
  float* value;
  size_t steps = 0;
};

Tables pack_tables(const Csr& w) {
  Tables t;
  std::vector<uint8_t> index;
  std::vector<float> value;
  for (int o = 0; o < w.n; o += 64) {
    int at[64];
    for (int r = 0; r < 64; r++) at[r] = w.row[static_cast<size_t>(o + r)];
    for (int c = 0; c < w.k; c += 64) {
      int count[64], begin[64], order[64];
      for (int r = 0; r < 64; r++) {
        order[r] = r;
        begin[r] = at[r];
        while (at[r] < w.row[static_cast<size_t>(o + r + 1)] && w.column[static_cast<size_t>(at[r])] < c + 64) at[r]++;
        count[r] = at[r] - begin[r];
      }
      std::stable_sort(order, order + 64, [&](int a, int b) { return count[a] > count[b]; });
      uint8_t head[72] = {};
      for (int g = 0; g < 4; g++) head[g] = static_cast<uint8_t>(count[order[16 * g]]);
      for (int lane = 0; lane < 64; lane++) head[8 + order[lane]] = static_cast<uint8_t>(lane);
      t.head.insert(t.head.end(), head, head + 72);
      for (int g = 0; g < 4; g++)
        for (int step = 0; step < head[g]; step++)
          for (int lane = 0; lane < 16; lane++) {
            const int r = order[16 * g + lane], from = begin[r] + step;
            const bool there = step < count[r];
            index.push_back(there ? static_cast<uint8_t>(w.column[static_cast<size_t>(from)] - c) : 0);
            value.push_back(there ? w.value[static_cast<size_t>(from)] : 0);
          }
    }
  }
  t.steps = index.size() / 16;
  t.index = huge<uint8_t>(index.size());
  t.value = huge<float>(value.size());
  memcpy(t.index, index.data(), index.size());
  memcpy(t.value, value.data(), value.size() * 4);
  return t;
}

// Lanes of a table of 64 floats: bit 5 of an index chooses the half.
inline __m512 look_up(const __m512 (&table)[4], __m512i index) {
  const __mmask16 high = _mm512_test_epi32_mask(index, _mm512_set1_epi32(32));
  return _mm512_mask_blend_ps(high, _mm512_permutex2var_ps(table[0], index, table[1]),
                              _mm512_permutex2var_ps(table[2], index, table[3]));
}
inline __m512i sixteen(const uint8_t* p) { return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }

void run_tables(const Tables& t, int n, int k, const float* x, float* y) {
  const uint8_t *index = t.index, *head = t.head.data();
  const float* value = t.value;
  for (int o = 0; o < n; o += 64) {
    __m512 sums[4] = {};
    for (int c = 0; c < k; c += 64, head += 72) {
      const __m512 table[4] = {_mm512_loadu_ps(x + c), _mm512_loadu_ps(x + c + 16), _mm512_loadu_ps(x + c + 32), _mm512_loadu_ps(x + c + 48)};
      __m512 sorted[4];
#pragma GCC unroll 4
      for (int g = 0; g < 4; g++) {
        __m512 a = _mm512_setzero_ps(), b = a;
        auto step = [&](__m512 acc) {
          _mm_prefetch(reinterpret_cast<const char*>(value) + 4096, _MM_HINT_T0);
          _mm_prefetch(reinterpret_cast<const char*>(index) + 1024, _MM_HINT_T0);
          acc = _mm512_fmadd_ps(look_up(table, sixteen(index)), _mm512_loadu_ps(value), acc);
          index += 16;
          value += 16;
          return acc;
        };
        int steps = head[g];
        for (; steps >= 2; steps -= 2) a = step(a), b = step(b);
        if (steps) a = step(a);
        sorted[g] = _mm512_add_ps(a, b);
      }
#pragma GCC unroll 4
      for (int g = 0; g < 4; g++) sums[g] = _mm512_add_ps(sums[g], look_up(sorted, sixteen(head + 8 + 16 * g)));
    }
    for (int g = 0; g < 4; g++) _mm512_storeu_ps(y + o + 16 * g, sums[g]);
  }
}

void tables(const Csr& w) {
  const Tables t = pack_tables(w);
  float *x = huge<float>(static_cast<size_t>(w.k)), *y = huge<float>(static_cast<size_t>(w.n));
  for (int i = 0; i < w.k; i++) x[i] = small();
  const double ns = fastest(200, [&] { run_tables(t, w.n, w.k, x, y); });
  double error = 0;
  for (int i = 0; i < w.n; i++) {
    double sum = 0;
    for (int j = w.row[static_cast<size_t>(i)]; j < w.row[static_cast<size_t>(i + 1)]; j++) sum += static_cast<double>(w.value[static_cast<size_t>(j)]) * x[w.column[static_cast<size_t>(j)]];
    error = std::max(error, std::fabs(sum - y[i]));
  }
  report("tables, one row", ns, 4.0 * w.n * w.k / kDenseRead, error);
  printf("    %.1f MB at %.0f GB/s; lanes used %.0f %%\n", static_cast<double>(t.steps) * 80 / 1e6, static_cast<double>(t.steps) * 80 / ns,
         100.0 * static_cast<double>(w.value.size()) / (16 * static_cast<double>(t.steps)));
}

// ---- a batch: V vectors of rows, blocks of `block` inputs

template <int V, int U>
void blocked(const Csr& w, int block) {
  std::vector<int> count;
  std::vector<uint16_t> column;
  std::vector<float> value;
  std::vector<int> at(w.row.begin(), w.row.end() - 1);
  for (int k0 = 0; k0 < w.k; k0 += block)
    for (size_t r = 0; r < at.size(); r++) {
      const int begin = at[r];
      for (; at[r] < w.row[r + 1] && w.column[static_cast<size_t>(at[r])] < k0 + block; at[r]++) {
        column.push_back(static_cast<uint16_t>((w.column[static_cast<size_t>(at[r])] - k0) * V));
        value.push_back(w.value[static_cast<size_t>(at[r])]);
      }
      count.push_back(at[r] - begin);
    }
  const size_t batch = 16 * V;
  float *x = huge<float>(static_cast<size_t>(w.k) * batch), *y = huge<float>(static_cast<size_t>(w.n) * batch);
  for (size_t i = 0; i < static_cast<size_t>(w.k) * batch; i++) x[i] = small();
  const double ns = fastest(20, [&] {
    const uint16_t* c = column.data();
    const float* v = value.data();
    const int* counts = count.data();
    for (int k0 = 0; k0 < w.k; k0 += block) {
      const float* from = x + static_cast<size_t>(k0) * batch;
      for (int r = 0; r < w.n; r++) {
        float* to = y + static_cast<size_t>(r) * batch;
        __m512 acc[U][V];
#pragma GCC unroll 8
        for (int i = 0; i < V; i++) acc[0][i] = k0 ? _mm512_load_ps(to + 16 * i) : _mm512_setzero_ps();
#pragma GCC unroll 8
        for (int u = 1; u < U; u++)
#pragma GCC unroll 8
          for (int i = 0; i < V; i++) acc[u][i] = _mm512_setzero_ps();
        auto add = [&](int u) {
          const __m512 weight = _mm512_set1_ps(v[u]);
#pragma GCC unroll 8
          for (int i = 0; i < V; i++) acc[u][i] = _mm512_fmadd_ps(weight, _mm512_load_ps(from + size_t{16} * c[u] + 16 * i), acc[u][i]);
        };
        int left = *counts++;
        for (; left >= U; left -= U, c += U, v += U)
#pragma GCC unroll 8
          for (int u = 0; u < U; u++) add(u);
        for (; left > 0; left--, c++, v++) add(0);
#pragma GCC unroll 8
        for (int i = 0; i < V; i++) {
          __m512 sum = acc[0][i];
#pragma GCC unroll 8
          for (int u = 1; u < U; u++) sum = _mm512_add_ps(sum, acc[u][i]);
          _mm512_store_ps(to + 16 * i, sum);
        }
      }
    }
  });
  double error = 0;
  for (int i = 0; i < w.n; i += 7) {
    double sum = 0;
    for (int j = w.row[static_cast<size_t>(i)]; j < w.row[static_cast<size_t>(i + 1)]; j++) sum += static_cast<double>(w.value[static_cast<size_t>(j)]) * x[static_cast<size_t>(w.column[static_cast<size_t>(j)]) * batch + 5];
    error = std::max(error, std::fabs(sum - y[static_cast<size_t>(i) * batch + 5]));
  }
  char what[64];
  snprintf(what, sizeof what, "blocks of %d, batch %zu", block, batch);
  report(what, ns, 2.0 * static_cast<double>(batch) * w.n * w.k / kDense, error);
  free(x);
  free(y);
}

// ---- 2:4, lanes are outputs; random indices, so nothing to check but the time

template <int NV>
void two_of_four(int n, int k) {
  const size_t panel = static_cast<size_t>(k / 4 * 2 + k / 32) * 32;  // of 32 outputs: values, and 16 indices in each 32 bits
  float *w = huge<float>(panel * static_cast<size_t>(n / 32) + 65536), *x = huge<float>(static_cast<size_t>(k)), *y = huge<float>(static_cast<size_t>(n));
  const double ns = fastest(100, [&] {
    for (int p = 0; p < n / 32; p += NV / 2) {
      __m512 acc[NV][2] = {};
      const float* at = w + static_cast<size_t>(p) * panel;
      for (int g8 = 0; g8 < k / 32; g8++) {
        __m512i index[NV];
#pragma GCC unroll 8
        for (int v = 0; v < NV; v++) index[v] = _mm512_loadu_si512(at + static_cast<size_t>(v / 2) * panel + (v % 2) * 16);
        at += 32;
#pragma GCC unroll 8
        for (int g = 0; g < 8; g++, at += 64) {
          const __m512 four = _mm512_broadcast_f32x4(_mm_loadu_ps(x + (g8 * 8 + g) * 4));
#pragma GCC unroll 8
          for (int v = 0; v < NV; v++)
#pragma GCC unroll 2
            for (int i = 0; i < 2; i++) {
              const float* from = at + static_cast<size_t>(v / 2) * panel + (v % 2) * 16 + 32 * i;
              _mm_prefetch(reinterpret_cast<const char*>(from + 4096 / NV), _MM_HINT_T0);
              acc[v][i] = _mm512_fmadd_ps(_mm512_permutevar_ps(four, index[v]), _mm512_loadu_ps(from), acc[v][i]);
              index[v] = _mm512_srli_epi32(index[v], 2);
            }
        }
      }
      for (int v = 0; v < NV; v++) _mm512_storeu_ps(y + p * 32 + v * 16, _mm512_add_ps(acc[v][0], acc[v][1]));
    }
  });
  report("2:4, one row", ns, 4.0 * n * k / kDenseRead, 0);
}

template <int MR>
void two_of_four_int8(int n, int k, int m) {
  const size_t panel = static_cast<size_t>(k / 8 + k / 32) * 128;
  uint8_t *w = huge<uint8_t>(panel * static_cast<size_t>(n / 32)), *x = huge<uint8_t>(static_cast<size_t>(m) * static_cast<size_t>(k));
  int32_t* y = huge<int32_t>(static_cast<size_t>(m) * static_cast<size_t>(n));
  const __m512i three = _mm512_set1_epi32(0x03030303), four = _mm512_set1_epi32(0x04040000);
  const double ns = fastest(10, [&] {
    for (int p = 0; p < n / 32; p++)
      for (int r0 = 0; r0 + MR <= m; r0 += MR) {
        __m512i acc[MR][2] = {};
        const uint8_t* at = w + static_cast<size_t>(p) * panel;
        for (int u4 = 0; u4 < k / 32; u4++) {
          __m512i index[2] = {_mm512_loadu_si512(at), _mm512_loadu_si512(at + 64)};
          at += 128;
#pragma GCC unroll 4
          for (int u = 0; u < 4; u++, at += 128) {
            __m512i pick[2];
            for (int v = 0; v < 2; v++) {
              pick[v] = _mm512_or_si512(_mm512_and_si512(index[v], three), four);  // values 2 and 3 lie in the second four
              index[v] = _mm512_srli_epi32(index[v], 2);
            }
            const __m512i w0 = _mm512_loadu_si512(at), w1 = _mm512_loadu_si512(at + 64);
#pragma GCC unroll 16
            for (int r = 0; r < MR; r++) {
              int64_t eight;
              memcpy(&eight, x + static_cast<size_t>(r0 + r) * static_cast<size_t>(k) + (u4 * 4 + u) * 8, 8);
              const __m512i all = _mm512_set1_epi64(eight);
              acc[r][0] = _mm512_dpbusd_epi32(acc[r][0], _mm512_shuffle_epi8(all, pick[0]), w0);
              acc[r][1] = _mm512_dpbusd_epi32(acc[r][1], _mm512_shuffle_epi8(all, pick[1]), w1);
            }
#pragma GCC unroll 16
            for (int r = 0; r < MR; r++)
              for (int v = 0; v < 2; v++) asm volatile("" : "+v"(acc[r][v]));
          }
        }
        for (int r = 0; r < MR; r++)
          for (int v = 0; v < 2; v++) _mm512_storeu_si512(y + static_cast<size_t>(r0 + r) * static_cast<size_t>(n) + p * 32 + v * 16, acc[r][v]);
      }
  });
  report("2:4 int8, batch 60", ns, 2.0 * m * n * k / kDenseInt8, 0);
}

// ---- blocks of 1 x 16 at 80 % sparsity, batch 48

void blocks_1x16(int n, int k) {
  std::vector<int> counts;
  std::vector<uint8_t> rows;
  for (int o = 0; o < n; o += 128)
    for (int b = 0; b < k / 16; b++) {
      const size_t before = rows.size();
      for (int r = 0; r < 128; r++)
        if (next() < 0.2 * 4294967296.0) rows.push_back(static_cast<uint8_t>(r));
      counts.push_back(static_cast<int>(rows.size() - before));
    }
  float *value = huge<float>(rows.size() * 16), *x = huge<float>(static_cast<size_t>(k) * 48), *y = huge<float>(static_cast<size_t>(n) * 48);
  const double ns = fastest(10, [&] {
    const int* count = counts.data();
    const uint8_t* row = rows.data();
    const float* v = value;
    for (int o = 0; o < n; o += 128)
      for (int b = 0; b < k / 16; b++) {
        const int blocks = *count++;
        for (int half = 0; half < 2; half++) {
          __m512 tile[8][3];
#pragma GCC unroll 8
          for (int j = 0; j < 8; j++)
#pragma GCC unroll 3
            for (int i = 0; i < 3; i++) tile[j][i] = _mm512_loadu_ps(x + static_cast<size_t>(b * 16 + half * 8 + j) * 48 + 16 * i);
          for (int r = 0; r < blocks; r++) {
            float* to = y + static_cast<size_t>(o + row[r]) * 48;
            const float* weights = v + r * 16 + half * 8;
            __m512 acc[3];
#pragma GCC unroll 3
            for (int i = 0; i < 3; i++) acc[i] = _mm512_loadu_ps(to + 16 * i);
#pragma GCC unroll 8
            for (int j = 0; j < 8; j++)
#pragma GCC unroll 3
              for (int i = 0; i < 3; i++) acc[i] = _mm512_fmadd_ps(_mm512_set1_ps(weights[j]), tile[j][i], acc[i]);
#pragma GCC unroll 3
            for (int i = 0; i < 3; i++) _mm512_storeu_ps(to + 16 * i, acc[i]);
          }
        }
        row += blocks;
        v += blocks * 16;
      }
  });
  report("1x16 at 80 %, batch 48", ns, 2.0 * 48 * n * k / kDense, 0);
}

}  // namespace

int main(int argc, char** argv) {
  const int n = argc > 2 ? atoi(argv[1]) : 1024, k = argc > 2 ? atoi(argv[2]) : 1024;
  for (double density : {0.05, 0.1, 0.2, 0.35}) {
    printf("%dx%d, %.0f %% zeros\n", n, k, 100 * (1 - density));
    const Csr w(n, k, density);
    tables(w);
    blocked<2, 4>(w, k);
    blocked<2, 4>(w, 256);
    blocked<4, 2>(w, 128);
  }
  two_of_four<8>(n, k);
  two_of_four_int8<10>(n, k, 60);
  blocks_1x16(n, k);
}
