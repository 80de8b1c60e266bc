// The int8 lab: `qmatmul check [threads [target]]` compares every target's cell with int64 and float64 loops,
// `qmatmul bench <target> <threads> <mode> m n k ...` measures (mode: i8 = int32 result, fused = float A quantized per row, with
// bias and relu). It calls the cells directly: no driver, no stream, no JavaScript.
#include <sys/mman.h>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>
#include "../../native/core/kernels.h"
#include "../../native/core/pool.h"
#include "ceilings.h"

namespace kerf {
namespace generic { void install_qmatmul(Kernels&); }
namespace avx2 { void install_qmatmul(Kernels&); }
namespace avx_vnni { void install_qmatmul(Kernels&); }
namespace avx512 { void install_qmatmul(Kernels&); }
namespace avx512_vnni { void install_qmatmul(Kernels&); }
}  // namespace kerf

using namespace kerf;

static const struct { const char* name; void (*install)(Kernels&); } kTargets[] = {
  {"generic", generic::install_qmatmul}, {"avx2", avx2::install_qmatmul}, {"avx_vnni", avx_vnni::install_qmatmul},
  {"avx512", avx512::install_qmatmul}, {"avx512_vnni", avx512_vnni::install_qmatmul}};

static uint64_t g_seed = 1;
static uint32_t next() { return static_cast<uint32_t>((g_seed = g_seed * 6364136223846793005ull + 1442695040888963407ull) >> 32); }
static int g_cases = 0, g_failures = 0;

static int64_t at(DType t, const std::vector<uint8_t>& v, int64_t i) { return t == DType::int8_ ? static_cast<int8_t>(v[static_cast<size_t>(i)]) : v[static_cast<size_t>(i)]; }

static void check_one(const QMatmulCell& cell, int64_t m, int64_t n, int64_t k, DType ta, DType tb, bool b_columns, bool zeros, DType out, bool bias, bool extremes) {
  std::vector<uint8_t> a(static_cast<size_t>(m * k + 1)), b(static_cast<size_t>(k * n + 1));
  for (auto& x : a) x = extremes ? (next() & 1 ? 0x80 : next() & 1 ? 0x7f : 0xff) : static_cast<uint8_t>(next());
  for (auto& x : b) x = extremes ? (next() & 1 ? 0x80 : next() & 1 ? 0x7f : 0x00) : static_cast<uint8_t>(next());
  const int64_t b_row = b_columns ? 1 : n, b_col = b_columns ? k : 1;
  std::vector<char> packed(static_cast<size_t>(cell.packed_bytes(k, n)) + 1, 0x33);
  cell.pack(packed.data(), b.data(), tb, k, n, b_row, b_col);
  std::vector<int32_t> za(static_cast<size_t>(m)), zb(static_cast<size_t>(n));
  std::vector<float> sa(static_cast<size_t>(m)), sb(static_cast<size_t>(n)), vbias(static_cast<size_t>(n));
  for (auto& x : za) x = zeros ? static_cast<int32_t>(next() % 256) - (ta == DType::int8_ ? 128 : 0) : 0;
  for (auto& x : zb) x = zeros ? static_cast<int32_t>(next() % 256) - 128 : 0;
  for (auto& x : sa) x = 0.001f * static_cast<float>(next() % 100 + 1);
  for (auto& x : sb) x = 0.001f * static_cast<float>(next() % 100 + 1);
  for (auto& x : vbias) x = static_cast<float>(next() % 100) - 50;
  float sc = 0.37f * static_cast<float>(k + 1);
  int32_t zc = 3;
  const size_t e = static_cast<size_t>(element_bytes(out));
  std::vector<char> c(static_cast<size_t>((m + 1) * (n + 3)) * e, 0x55), guard = c;
  const bool shifted = tb == DType::uint8_;
  QMatmulProblem p{};
  p.m = m; p.n = n; p.k = k;
  p.a = a.data(); p.a_type = ta; p.a_row = k; p.a_col = 1;
  p.quantize = Quantize::none;
  p.a_scale = sa.data(); p.a_zero = zeros ? za.data() : nullptr; p.a_step = 1;
  p.packed = packed.data();
  p.b_scale = out == DType::int32_ ? nullptr : sb.data(); p.b_scale_step = 1;
  std::vector<int32_t> zb_packed = zb;
  for (auto& x : zb_packed) x -= shifted ? 0 : 0;
  if (shifted) for (auto& x : zb_packed) x = zeros ? x : -128;
  p.b_zero = zeros || shifted ? zb_packed.data() : nullptr; p.b_zero_step = 1;
  p.c = c.data(); p.c_row = n + 3; p.c_type = out; p.c_scale = &sc; p.c_zero = &zc;
  p.bias = bias ? vbias.data() : nullptr;
  p.activation = bias ? Activation::relu : Activation::none;
  bool good = cell.run(p) && packed.back() == 0x33;
  g_cases++;
  double worst = 0;
  for (int64_t i = 0; i <= m && good; i++)
    for (int64_t j = 0; j < n + 3 && good; j++) {
      const size_t pos = static_cast<size_t>(i * (n + 3) + j) * e;
      if (i == m || j >= n) { good = memcmp(&c[pos], &guard[pos], e) == 0; continue; }
      int64_t sum = 0;
      // zb_packed is the zero point of the packed int8 values: those are b, or b - 128 for uint8
      for (int64_t q = 0; q < k; q++)
        sum += (at(ta, a, i * k + q) - (zeros ? za[static_cast<size_t>(i)] : 0)) *
               (at(tb, b, q * b_row + j * b_col) - (shifted ? 128 : 0) - (p.b_zero ? zb_packed[static_cast<size_t>(j)] : 0));
      if (out == DType::int32_) {
        int32_t got; memcpy(&got, &c[pos], 4);
        good = got == sum;
        if (!good) printf("got %d want %ld at %ld %ld\n", got, static_cast<long>(sum), static_cast<long>(i), static_cast<long>(j));
        continue;
      }
      double x = static_cast<double>(sum) * sa[static_cast<size_t>(i)] * sb[static_cast<size_t>(j)];
      if (bias) x = std::max(0.0, x + vbias[static_cast<size_t>(j)]);
      if (out == DType::float32_) {
        float got; memcpy(&got, &c[pos], 4);
        double tolerance = 4 * 0x1p-24 * (std::fabs(static_cast<double>(sum)) * sa[static_cast<size_t>(i)] * sb[static_cast<size_t>(j)] + 60);
        worst = std::max(worst, std::fabs(got - x) / tolerance);
        good = std::fabs(got - x) <= tolerance;
      } else {
        double want = x / sc + zc;
        want = std::min(std::max(want, out == DType::int8_ ? -128.0 : 0.0), out == DType::int8_ ? 127.0 : 255.0);
        int got = out == DType::int8_ ? static_cast<int8_t>(c[pos]) : static_cast<uint8_t>(c[pos]);
        good = std::fabs(got - want) <= 0.5 + 1e-3;
      }
    }
  if (!good && g_failures++ < 20)
    printf("FAIL %s m %ld n %ld k %ld a %d b %d columns %d zeros %d out %d bias %d extremes %d: %.3g\n", cell.name, m, n, k, static_cast<int>(ta), static_cast<int>(tb), b_columns, zeros, static_cast<int>(out), bias, extremes, worst);
}

static void* huge(size_t bytes) {
  void* p = aligned_alloc(2 << 20, (bytes + (2 << 20) - 1) / (2 << 20) * (2 << 20));
  madvise(p, bytes, MADV_HUGEPAGE);
  memset(p, 1, bytes);
  return p;
}

static void bench(const char* target, const char* mode, int64_t m, int64_t n, int64_t k) {
  for (auto& t : kTargets) {
    if (strcmp(t.name, target)) continue;
    Kernels row{};
    t.install(row);
    const QMatmulCell& cell = row.qmatmul;
    const bool fused = !strcmp(mode, "fused");
    char* a = static_cast<char*>(huge(static_cast<size_t>(m * k) * (fused ? 4 : 1)));
    char* b = static_cast<char*>(huge(static_cast<size_t>(k * n)));
    char* c = static_cast<char*>(huge(static_cast<size_t>(m * n) * 4));
    const size_t packed_size = static_cast<size_t>(cell.packed_bytes(k, n));
    void* packed = huge(packed_size);
    for (int64_t i = 0; i < m * k; i++)
      if (fused) reinterpret_cast<float*>(a)[i] = static_cast<float>(next() % 1000) * 0.01f - 3; else a[i] = static_cast<char>(next());
    for (int64_t i = 0; i < k * n; i++) b[i] = static_cast<char>(next());
    cell.pack(packed, b, DType::int8_, k, n, 1, k);
    std::vector<float> sb(static_cast<size_t>(n), 0.01f), bias(static_cast<size_t>(n), 1.0f);
    QMatmulProblem p{};
    p.m = m; p.n = n; p.k = k;
    p.a = a; p.a_type = fused ? DType::float32_ : DType::uint8_; p.a_row = k; p.a_col = 1;
    p.quantize = fused ? Quantize::per_row : Quantize::none;
    p.packed = packed;
    p.c = c; p.c_row = n; p.c_type = DType::int32_;
    if (fused) { p.b_scale = sb.data(); p.b_scale_step = 1; p.c_type = DType::float32_; p.bias = bias.data(); p.activation = Activation::relu; }
    const double ops = 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
    const int rounds = static_cast<int>(std::clamp(2.5e8 / (ops / 800 + 1000), 4.0, 2000.0)), inner = ops < 4e6 ? 20 : 1;
    std::vector<double> times, peaks;
    for (int i = 0; i < rounds; i++) {
      if (i % std::max(rounds / 8, 1) == 0) peaks.push_back(strstr(target, "avx512") ? lab::peak_int8_zmm() : lab::peak_int8_ymm());
      double start = lab::now_ns();
      for (int r = 0; r < inner; r++) cell.run(p);
      times.push_back((lab::now_ns() - start) / inner);
    }
    std::sort(times.begin(), times.end());
    std::sort(peaks.begin(), peaks.end());
    const double best = times[0], median = times[times.size() / 2], peak = peaks.back() * pool_threads();
    printf("%s %s %ldx%ldx%ld t%d: best %.2f us, median %.2f us; %.0f / %.0f GOP/s, %.1f %% / %.1f %% of VNNI peak %.0f; weights %.1f GB/s\n", cell.name, mode, m, n, k, pool_threads(),
           best / 1e3, median / 1e3, ops / best, ops / median, ops / best / peak * 100, ops / median / peak * 100, peak, static_cast<double>(packed_size) / best);
    free(a); free(b); free(c); free(packed);
  }
}

int main(int argc, char** argv) {
  if (argc >= 2 && !strcmp(argv[1], "check")) {
    if (argc > 2) pool_set_threads(atoi(argv[2]));
    const int64_t sizes[] = {0, 1, 2, 3, 4, 5, 7, 13, 14, 15, 16, 29, 31, 32, 33, 65};
    const DType bytes[] = {DType::int8_, DType::uint8_};
    const DType outs[] = {DType::int32_, DType::float32_, DType::int8_, DType::uint8_};
    for (auto& t : kTargets) {
      if (argc > 3 && strcmp(t.name, argv[3])) continue;
      Kernels row{};
      t.install(row);
      const int before = g_cases;
      int turn = 0;
      for (int64_t m : sizes) for (int64_t n : sizes) for (int64_t k : sizes) {
        turn++;
        check_one(row.qmatmul, m, n, k, bytes[turn & 1], bytes[turn >> 1 & 1], turn >> 2 & 1, turn >> 3 & 1, outs[turn % 4], turn % 3 == 0, turn % 5 == 0);
      }
      for (DType ta : bytes) for (DType tb : bytes) for (int columns = 0; columns < 2; columns++) for (int zeros = 0; zeros < 2; zeros++) for (DType out : outs) for (int x = 0; x < 2; x++) {
        check_one(row.qmatmul, 37, 70, 4100, ta, tb, columns, zeros, out, x, x);
        check_one(row.qmatmul, 150, 131, 700, ta, tb, columns, zeros, out, x, x);
        check_one(row.qmatmul, 3, 300, 3333, ta, tb, columns, zeros, out, x, x);
      }
      printf("%s: %d cases\n", row.qmatmul.name, g_cases - before);
      fflush(stdout);
    }
    printf("%d cases, %d failures\n", g_cases, g_failures);
    return g_failures != 0;
  }
  if (argc >= 7 && !strcmp(argv[1], "bench")) {
    pool_set_threads(atoi(argv[3]));
    for (int i = 5; i + 2 < argc; i += 3) bench(argv[2], argv[4], atol(argv[i]), atol(argv[i + 1]), atol(argv[i + 2]));
    return 0;
  }
  printf("qmatmul check [threads [target]] | qmatmul bench <target> <threads> <i8|fused> m n k ...\n");
  return 2;
}
