// copy: any dtype to any dtype, any strides. A transposition goes through tiles, so that both sides move whole cache
// lines.
#include <utility>

#include "iterate.h"
#include "ops.h"
#include "targets.h"

namespace kerf::ops {
namespace {

constexpr int kTile = 32;  // 32 x 32 elements of up to 8 bytes: 8 KiB, a fraction of any first-level cache

// out[j][i] = in[i][j] for a 16-byte square of elements (4 x 4 of four bytes, 8 x 8 of two...): log2(L) rounds that
// interleave row i with row i + L/2.
template <class U>
struct Square {
  static constexpr int L = 16 / sizeof(U);
  typedef U Row __attribute__((vector_size(16)));

  template <size_t... I>
  static Row low(Row a, Row b, std::index_sequence<I...>) {
    return __builtin_shufflevector(a, b, (I % 2 ? L + I / 2 : I / 2)...);
  }
  template <size_t... I>
  static Row high(Row a, Row b, std::index_sequence<I...>) {
    return __builtin_shufflevector(a, b, (I % 2 ? L + L / 2 + I / 2 : L / 2 + I / 2)...);
  }

  static void transpose(U* out, int64_t out_row, const U* in, int64_t in_row) {
    Row a[L], b[L];
    for (int i = 0; i < L; i++) memcpy(&a[i], in + i * in_row, 16);
    constexpr auto lanes = std::make_index_sequence<L>{};
    for (int round = 1; round < L; round *= 2) {
      for (int i = 0; i < L / 2; i++) {
        b[2 * i] = low(a[i], a[i + L / 2], lanes);
        b[2 * i + 1] = high(a[i], a[i + L / 2], lanes);
      }
      for (int i = 0; i < L; i++) a[i] = b[i];
    }
    for (int i = 0; i < L; i++) memcpy(out + i * out_row, &a[i], 16);
  }
};

// out[j][i] = tile[i][j] for i < n, j < m; the tile's rows are kTile long, out's columns contiguous.
template <class U>
void store_tile(char* out_, int64_t out_row, const void* tile_, int64_t n, int64_t m) {
  U* out = reinterpret_cast<U*>(out_);
  const U* tile = static_cast<const U*>(tile_);
  constexpr int L = Square<U>::L;
  int64_t full_n = n / L * L, full_m = m / L * L;
  for (int64_t j = 0; j < full_m; j += L)
    for (int64_t i = 0; i < full_n; i += L)
      Square<U>::transpose(out + j * out_row + i, out_row, tile + i * kTile + j, kTile);
  for (int64_t j = 0; j < m; j++)
    for (int64_t i = j < full_m ? full_n : 0; i < n; i++) out[j * out_row + i] = tile[i * kTile + j];
}

// A walk whose output runs are contiguous while the input is contiguous along outer axis `across`.
struct Transposition {
  Runs<2> r;
  int across;
  CopyCell cell;

  // Rows [first, first + m) of one plane: m output runs.
  void strip(char* out, const char* a, int64_t m) const {
    alignas(64) char tile[kTile * kTile * 8];
    int64_t out_bytes = r.bytes[0], out_row = r.stride[0][across] / out_bytes, a_step = r.step[1] * r.bytes[1];
    for (int64_t i = 0; i < r.n; i += kTile) {
      int64_t n = r.n - i < kTile ? r.n - i : kTile;
      for (int64_t k = 0; k < n; k++) cell(m, tile + k * kTile * out_bytes, 1, a + (i + k) * a_step, 1);
      char* to = out + i * out_bytes;
      switch (out_bytes) {
        case 1: store_tile<uint8_t>(to, out_row, tile, n, m); break;
        case 2: store_tile<uint16_t>(to, out_row, tile, n, m); break;
        case 4: store_tile<uint32_t>(to, out_row, tile, n, m); break;
        default: store_tile<uint64_t>(to, out_row, tile, n, m); break;
      }
    }
  }

  void run(double ns) const {
    int64_t rows = r.shape[across], strips = (rows + kTile - 1) / kTile, units = r.count / rows * strips;
    auto unit = [&](int64_t u) {
      int64_t plane = u / strips, first = u % strips * kTile;
      int64_t offset[2] = {first * r.stride[0][across], first * r.stride[1][across]};
      for (int i = r.rank - 1; i >= 0; i--) {
        if (i == across) continue;
        int64_t index = plane % r.shape[i];
        plane /= r.shape[i];
        for (int k = 0; k < 2; k++) offset[k] += index * r.stride[k][i];
      }
      strip(r.data[0] + offset[0], r.data[1] + offset[1], rows - first < kTile ? rows - first : kTile);
    };
    double unit_ns = static_cast<double>(kTile * r.n) * ns;
    int64_t group = 1 + static_cast<int64_t>(10'000 / unit_ns);  // pieces of about 10 us, as walk_parallel's
    if (static_cast<double>(units) * unit_ns < kParallelNs) group = units;
    parallel((units + group - 1) / group, [&](int64_t task) {
      for (int64_t u = task * group; u < units && u < (task + 1) * group; u++) unit(u);
    });
  }
};

// The outer axis along which the input is contiguous, or -1 when tiles would not pay.
int transposed_axis(const Runs<2>& r) {
  if (r.step[0] != 1 || r.n < 8 || (r.step[1] >= -1 && r.step[1] <= 1)) return -1;
  for (int i = 0; i < r.rank; i++)
    if (r.stride[1][i] == r.bytes[1] && r.shape[i] >= 8) return i;
  return -1;
}

// Short runs cost a call each: run along the longest axis instead, as copy cells take any strides.
void lengthen_runs(Runs<2>& r) {
  if (r.n >= 16) return;
  int longest = -1;
  for (int i = 0; i < r.rank; i++)
    if (r.shape[i] > (longest < 0 ? r.n : r.shape[longest])) longest = i;
  if (longest < 0) return;
  r.count = r.count / r.shape[longest] * r.n;
  std::swap(r.n, r.shape[longest]);
  for (int k = 0; k < 2; k++) {
    int64_t step = r.stride[k][longest] / r.bytes[k];
    r.stride[k][longest] = r.step[k] * r.bytes[k];
    r.step[k] = step;
  }
}

}  // namespace

Status copy(Stream& stream, View out, View a) {
  REQUIRE(same_shape(out, a));
  CopyCell cell = kernels().copy[static_cast<int>(a.dtype)][static_cast<int>(out.dtype)];
  REQUIRE(cell);
  int64_t n = count(out);
  if (n == 0) return Status{};
  double ns = 0.05 + static_cast<double>(element_bytes(out.dtype) + element_bytes(a.dtype)) / 20;
  Runs<2> r = make_runs<2>({&out, &a});
  int across = transposed_axis(r);
  if (across >= 0) {
    ns += 0.5;
    return stream.run(static_cast<double>(n) * ns, [t = Transposition{r, across, cell}, ns] { t.run(ns); });
  }
  lengthen_runs(r);
  if (r.step[0] != 1 || r.step[1] != 1) ns += 0.5;
  return stream.run(static_cast<double>(n) * ns, [r, ns, cell] {
    walk_parallel(r, ns, [&](int64_t, int64_t m, char* const(&at)[2]) { cell(m, at[0], r.step[0], at[1], r.step[1]); });
  });
}

}  // namespace kerf::ops
