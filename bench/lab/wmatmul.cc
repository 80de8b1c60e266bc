// The weight-only lab: `wmatmul check [threads [target]]` compares every target's cell with float64 loops,
// `wmatmul bench <target> <threads> <bits> <group> m n k ...` measures. It calls the cells directly.
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
static float unit() { return static_cast<float>(static_cast<int32_t>(next())) * 0x1p-31f; }
static int g_cases = 0, g_failures = 0;

struct Weights {
  std::vector<uint8_t> codes;
  std::vector<float> scale;
  std::vector<int32_t> zero;
  int64_t n, k, groups;
  WeightFormat format;

  Weights(int64_t n_, int64_t k_, WeightFormat f) : n(n_), k(k_), groups((k_ + f.group - 1) / f.group), format(f) {
    codes.resize(static_cast<size_t>(n * (f.bits == 8 ? k : (k + 1) / 2)) + 1);
    for (auto& x : codes) x = static_cast<uint8_t>(next() >> 8);
    scale.resize(static_cast<size_t>(n * groups) + 1);
    for (auto& x : scale) x = 0.01f * unit();
    zero.resize(static_cast<size_t>(n * groups) + 1);
    const int levels = 1 << f.bits;
    for (auto& x : zero) x = static_cast<int32_t>(next() >> 8) % levels - (f.is_signed ? levels / 2 : 0);
  }
  double at(int64_t j, int64_t q) const {
    const uint8_t* row = codes.data() + j * (format.bits == 8 ? k : (k + 1) / 2);
    int code = format.bits == 8 ? row[q] : q % 2 ? row[q / 2] >> 4 : row[q / 2] & 15;
    const int half = 1 << (format.bits - 1);
    if (format.is_signed && code >= half) code -= 2 * half;
    const size_t g = static_cast<size_t>(j * groups + q / format.group);
    return (code - (format.zeros ? zero[g] : 0)) * static_cast<double>(scale[g]);
  }
};

static void check_one(const WMatmulCell& cell, int64_t m, int64_t n, int64_t k, WeightFormat f, bool bias, bool spread) {
  Weights w(n, k, f);
  std::vector<char> packed(static_cast<size_t>(cell.packed_bytes(k, n, f)) + 1, 0x33);
  cell.pack(packed.data(), w.codes.data(), w.scale.data(), f.zeros ? w.zero.data() : nullptr, k, n, f);
  std::vector<float> a(static_cast<size_t>(m * k) + 1), vbias(static_cast<size_t>(n) + 1);
  for (auto& x : a) x = unit() * (spread && next() % 50 == 0 ? 1000.0f : 1.0f);
  for (auto& x : vbias) x = unit();
  std::vector<float> c(static_cast<size_t>((m + 1) * (n + 3)), 77.0f);
  WMatmulProblem p{m, n, k, a.data(), DType::float32_, k, 1, packed.data(), f, c.data(), n + 3, DType::float32_, bias ? vbias.data() : nullptr, bias ? Activation::relu : Activation::none};
  bool good = cell.run(p) && packed.back() == 0x33;
  g_cases++;
  double worst = 0;
  for (int64_t i = 0; i <= m && good; i++)
    for (int64_t j = 0; j < n + 3 && good; j++) {
      const float got = c[static_cast<size_t>(i * (n + 3) + j)];
      if (i == m || j >= n) { good = got == 77.0f; continue; }
      double sum = 0, magnitude = 0, rounding = 0;
      double largest = 0;
      for (int64_t q = 0; q < k; q++) largest = std::max(largest, std::fabs(static_cast<double>(a[static_cast<size_t>(i * k + q)])));
      for (int64_t q = 0; q < k; q++) {
        const double x = a[static_cast<size_t>(i * k + q)], y = w.at(j, q);
        sum += x * y;
        magnitude += std::fabs(x * y);
        rounding += std::fabs(y) * largest * 0x1p-16;
      }
      // float32: the products of scales, and the sum over chunks, whose magnitude codes * scale bounds
      const double codes = 256.0 * 0.01 * largest * k;
      double tolerance = rounding + 0x1p-23 * (magnitude + 4) + 4 * 0x1p-24 * codes;
      if (bias) sum = std::max(0.0, sum + vbias[static_cast<size_t>(j)]);
      worst = std::max(worst, std::fabs(got - sum) / tolerance);
      good = std::fabs(got - sum) <= tolerance;
    }
  if (!good && g_failures++ < 20)
    printf("FAIL %s m %ld n %ld k %ld bits %ld group %ld signed %d zeros %d: %.3g\n", cell.name, m, n, k, f.bits, f.group, f.is_signed, f.zeros, worst);
}

static void* huge(size_t bytes) {
  void* p = aligned_alloc(2 << 20, (bytes + (2 << 20) - 1) / (2 << 20) * (2 << 20));
  madvise(p, bytes, MADV_HUGEPAGE);
  memset(p, 1, bytes);
  return p;
}

static void bench(const char* target, int64_t bits, int64_t group, int64_t m, int64_t n, int64_t k) {
  for (auto& t : kTargets) {
    if (strcmp(t.name, target)) continue;
    Kernels row{};
    t.install(row);
    const WMatmulCell& cell = row.wmatmul;
    const WeightFormat f{bits, group ? group : k, true, false};
    Weights w(n, k, f);
    const size_t bytes = static_cast<size_t>(cell.packed_bytes(k, n, f));
    void* packed = huge(bytes);
    cell.pack(packed, w.codes.data(), w.scale.data(), nullptr, k, n, f);
    float* a = static_cast<float*>(huge(static_cast<size_t>(m * k) * 4));
    float* c = static_cast<float*>(huge(static_cast<size_t>(m * n) * 4));
    for (int64_t i = 0; i < m * k; i++) a[i] = unit();
    WMatmulProblem p{m, n, k, a, DType::float32_, k, 1, packed, f, c, n, DType::float32_, nullptr, Activation::none};
    const double ops = 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
    const int rounds = static_cast<int>(std::clamp(4e8 / (ops / 300 + 100000), 5.0, 2000.0));
    std::vector<double> times, reads;
    for (int i = 0; i < rounds; i++) {
      if (i % 4 == 0) {
        const int threads = pool_threads();
        const size_t part = bytes / static_cast<size_t>(threads);
        double start = lab::now_ns();
        parallel(threads, [&](int64_t j) { lab::read_gbps(static_cast<char*>(packed) + static_cast<size_t>(j) * part, part); });
        reads.push_back(static_cast<double>(bytes) / (lab::now_ns() - start));
      }
      double start = lab::now_ns();
      cell.run(p);
      times.push_back(lab::now_ns() - start);
    }
    std::sort(times.begin(), times.end());
    std::sort(reads.begin(), reads.end());
    const double best = times[0], median = times[times.size() / 2];
    printf("%s %ld bits group %ld %ldx%ldx%ld t%d: best %.1f us, median %.1f us; %.0f / %.0f GOP/s; %.1f / %.1f GB/s of read %.1f / %.1f\n", cell.name, bits, f.group, m, n, k, pool_threads(),
           best / 1e3, median / 1e3, ops / best, ops / median, static_cast<double>(bytes) / best, static_cast<double>(bytes) / median, reads.back(), reads[reads.size() / 2]);
    free(a); free(c); free(packed);
  }
}

int main(int argc, char** argv) {
  if (argc >= 2 && !strcmp(argv[1], "check")) {
    if (argc > 2) pool_set_threads(atoi(argv[2]));
    for (auto& t : kTargets) {
      if (argc > 3 && strcmp(t.name, argv[3])) continue;
      Kernels row{};
      t.install(row);
      const int before = g_cases;
      const int64_t ms[] = {0, 1, 2, 3, 4, 5, 7, 8, 9, 16, 33}, ns[] = {0, 1, 15, 16, 17, 31, 33, 64, 65, 200}, ks[] = {1, 3, 7, 8, 9, 32, 100, 257, 600};
      int turn = 0;
      for (int64_t m : ms) for (int64_t n : ns) for (int64_t k : ks) {
        turn++;
        const int64_t groups[] = {k, 32, 128, 7, 300, 1};
        const int64_t group = std::min(groups[turn % 6], k);
        check_one(row.wmatmul, m, n, k, {turn & 1 ? 4 : 8, group, (turn & 2) != 0, (turn & 4) != 0}, turn % 3 == 0, turn % 5 == 0);
      }
      for (int64_t bits : {4, 8}) for (int sign = 0; sign < 2; sign++) for (int zeros = 0; zeros < 2; zeros++) for (int64_t group : {32, 128, 1024, 1000})
        for (int64_t m : {1, 8, 20}) check_one(row.wmatmul, m, 150, 1024, {bits, std::min<int64_t>(group, 1024), sign != 0, zeros != 0}, zeros, sign);
      printf("%s: %d cases\n", row.wmatmul.name, g_cases - before);
      fflush(stdout);
    }
    printf("%d cases, %d failures\n", g_cases, g_failures);
    return g_failures != 0;
  }
  if (argc >= 8 && !strcmp(argv[1], "bench")) {
    pool_set_threads(atoi(argv[3]));
    for (int i = 6; i + 2 < argc; i += 3) bench(argv[2], atol(argv[4]), atol(argv[5]), atol(argv[i]), atol(argv[i + 1]), atol(argv[i + 2]));
    return 0;
  }
  printf("wmatmul check [threads [target]] | wmatmul bench <target> <threads> <bits> <group, 0 for k> m n k ...\n");
  return 2;
}
