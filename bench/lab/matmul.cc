// The matmul lab: `matmul check` compares every target's cells with a float64 loop nest, `matmul bench [target]` measures.
// It calls the cells directly: no driver, no stream, no JavaScript.
#include <sys/mman.h>
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>
#include "../../native/core/kernels.h"
#include "../../native/core/pool.h"
#include "ceilings.h"

namespace kerf {
namespace generic { void install_matmul(Kernels&); }
namespace avx2 { void install_matmul(Kernels&); }
namespace avx512 { void install_matmul(Kernels&); }
namespace avx512_bf16 { void install_matmul(Kernels&); }
}  // namespace kerf

using namespace kerf;

static const struct { const char* name; void (*install)(Kernels&); } kTargets[] = {
  {"generic", generic::install_matmul},
  {"avx2", avx2::install_matmul},
  {"avx512", avx512::install_matmul},
  {"avx512_bf16", avx512_bf16::install_matmul},
};
static const struct { const char* name; DType dtype; double eps; } kTypes[] = {
  {"f32", DType::float32_, 0x1p-24}, {"f16", DType::float16_, 0x1p-11}, {"bf16", DType::bfloat16_, 0x1p-8}};

static uint64_t g_seed = 1;
static float random_unit() {
  g_seed = g_seed * 6364136223846793005ull + 1442695040888963407ull;
  return static_cast<float>(static_cast<int64_t>(g_seed >> 40)) * 0x1p-23f - 1.0f;
}

static size_t bytes_of(DType d) { return static_cast<size_t>(element_bytes(d)); }

static void put(DType d, void* p, int64_t i, float x) {
  if (d == DType::float32_) static_cast<float*>(p)[i] = x;
  if (d == DType::float16_) static_cast<f16*>(p)[i] = to_f16(x);
  if (d == DType::bfloat16_) static_cast<bf16*>(p)[i] = to_bf16(x);
}
static float get(DType d, const void* p, int64_t i) {
  if (d == DType::float32_) return static_cast<const float*>(p)[i];
  if (d == DType::float16_) return to_float(static_cast<const f16*>(p)[i]);
  return to_float(static_cast<const bf16*>(p)[i]);
}

static double activated(Activation a, double x) {
  switch (a) {
    case Activation::none: return x;
    case Activation::relu: return x < 0 ? 0 : x;
    case Activation::gelu: return 0.5 * x * std::erfc(-x / std::sqrt(2.0));
    case Activation::silu: return x / (1 + std::exp(-x));
    case Activation::sigmoid: return 1 / (1 + std::exp(-x));
    case Activation::tanh: return std::tanh(x);
  }
  return x;
}

// Memory that ends at an inaccessible page would be better still; guard bytes find stray writes, valgrind and ASan reads.
struct Matrix {
  std::vector<char> bytes;
  DType dtype;
  int64_t row, col, origin;
  void* at0() { return bytes.data() + origin * static_cast<int64_t>(bytes_of(dtype)); }
};

enum Layout { row_major, col_major, strided, negative, broadcast_rows, layouts };

static Matrix make(DType d, int64_t rows, int64_t cols, Layout layout) {
  Matrix m;
  m.dtype = d;
  m.origin = 0;
  if (layout == row_major) { m.row = cols; m.col = 1; }
  if (layout == col_major) { m.row = 1; m.col = rows; }
  if (layout == strided) { m.row = 3 * cols + 5; m.col = 3; }
  if (layout == negative) { m.row = -(cols + 1); m.col = 1; m.origin = std::max<int64_t>(rows - 1, 0) * (cols + 1); }
  if (layout == broadcast_rows) { m.row = 0; m.col = 1; }
  int64_t size = 1 + std::max<int64_t>(0, rows - 1) * std::abs(m.row) + std::max<int64_t>(0, cols - 1) * std::abs(m.col);
  m.bytes.resize(static_cast<size_t>(size) * bytes_of(d));
  for (int64_t i = 0; i < size; i++) put(d, m.bytes.data(), i, random_unit());
  return m;
}

static int g_failures = 0, g_cases = 0;

static void check_one(const MatmulCell& cell, int type, int64_t m, int64_t n, int64_t k, Layout la, Layout lb,
                      bool packed, bool to_f32, bool with_bias, Activation activation) {
  DType d = kTypes[type].dtype, out = to_f32 ? DType::float32_ : d;
  Matrix a = make(d, m, k, la), b = make(d, k, n, lb);
  const int64_t c_row = n + 3;
  std::vector<char> c(static_cast<size_t>((m + 1) * c_row) * bytes_of(out), 0x55), guard = c;
  std::vector<float> bias(static_cast<size_t>(n));
  for (auto& x : bias) x = random_unit();
  std::vector<char> blob(packed ? static_cast<size_t>(cell.packed_bytes(k, n)) + 1 : 1, 0x33);
  MatmulProblem p{m, n, k, a.at0(), a.row, a.col, packed ? nullptr : b.at0(), b.row, b.col, packed ? blob.data() : nullptr,
                  c.data(), c_row, out, with_bias ? bias.data() : nullptr, activation};
  if (packed) cell.pack(blob.data(), b.at0(), k, n, b.row, b.col);
  bool ran = cell.run(p);
  g_cases++;
  bool good = ran && blob.back() == 0x33;
  std::vector<double> wide_a(static_cast<size_t>(m * k)), wide_b(static_cast<size_t>(k * n));  // b transposed
  for (int64_t i = 0; i < m; i++)
    for (int64_t q = 0; q < k; q++) wide_a[static_cast<size_t>(i * k + q)] = get(d, a.at0(), i * a.row + q * a.col);
  for (int64_t j = 0; j < n; j++)
    for (int64_t q = 0; q < k; q++) wide_b[static_cast<size_t>(j * k + q)] = get(d, b.at0(), q * b.row + j * b.col);
  double worst = 0;
  const double eps_out = to_f32 ? 0x1p-24 : kTypes[type].eps;
  for (int64_t i = 0; i <= m && good; i++) {
    for (int64_t j = 0; j < c_row && good; j++) {
      const int64_t at = i * c_row + j;
      if (i == m || j >= n) {
        good = memcmp(c.data() + at * static_cast<int64_t>(bytes_of(out)), guard.data(), bytes_of(out)) == 0;
        continue;
      }
      double sum = 0, magnitude = 0;
      for (int64_t q = 0; q < k; q++) {
        double product = wide_a[static_cast<size_t>(i * k + q)] * wide_b[static_cast<size_t>(j * k + q)];
        sum += product;
        magnitude += std::fabs(product);
      }
      if (with_bias) { sum += bias[static_cast<size_t>(j)]; magnitude += std::fabs(bias[static_cast<size_t>(j)]); }
      double want = activated(activation, sum);
      // activations have slopes up to 1.13; their own error is a few float32 roundings
      double tolerance = 1.2 * (k + 2) * 0x1p-23 * magnitude + (eps_out + 4 * 0x1p-24) * std::fabs(want) + 0x1p-25;
      if (d != DType::float32_ && !to_f32) tolerance += 0x1p-25;
      double error = std::fabs(get(out, c.data(), at) - want);
      worst = std::max(worst, error / tolerance);
      if (!(error <= tolerance)) good = false;
    }
  }
  if (!good && g_failures++ < 20)
    printf("FAIL %s m %ld n %ld k %ld layouts %d %d packed %d f32out %d bias %d act %d: error/tolerance %.3g\n", cell.name,
           m, n, k, la, lb, packed, to_f32, with_bias, static_cast<int>(activation), worst);
}

static int check(const char* target) {
  const int64_t sizes[] = {0, 1, 2, 3, 7, 8, 13, 14, 15, 17, 29, 31, 32, 33, 65};
  for (auto& t : kTargets) {
    if (target && strcmp(t.name, target)) continue;
    Kernels row{};
    t.install(row);
    for (int type = 0; type < 3; type++) {
      const MatmulCell& cell = row.matmul[static_cast<int>(kTypes[type].dtype)];
      if (!cell.run) continue;
      int before = g_cases;
      int turn = 0;
      for (int64_t m : sizes) for (int64_t n : sizes) for (int64_t k : sizes) {
        turn++;
        for (int packed = 0; packed < 2; packed++)
          check_one(cell, type, m, n, k, static_cast<Layout>(turn % layouts), static_cast<Layout>(turn / layouts % layouts), packed,
                    turn % 3 == 0, turn % 2 == 0, static_cast<Activation>(turn % 7 % 6));
      }
      for (int la = 0; la < layouts; la++) for (int lb = 0; lb < layouts; lb++) for (int packed = 0; packed < 2; packed++) for (int f32 = 0; f32 < 2; f32++)
        for (auto& s : {std::array<int64_t, 3>{150, 131, 700}, {37, 1100, 1203}, {3, 700, 129}, {200, 40, 1500}, {1, 300, 2049}, {8, 1024, 64}, {129, 257, 1031}})
          check_one(cell, type, s[0], s[1], s[2], static_cast<Layout>(la), static_cast<Layout>(lb), packed, f32, la & 1, Activation::none);
      printf("%s: %d cases\n", cell.name, g_cases - before);
      fflush(stdout);
    }
  }
  printf("%d cases, %d failures\n", g_cases, g_failures);
  return g_failures != 0;
}

struct Shape { int64_t m, n, k; };

static void* huge(size_t bytes) {
  void* p = aligned_alloc(2 << 20, (bytes + (2 << 20) - 1) / (2 << 20) * (2 << 20));
  madvise(p, bytes, MADV_HUGEPAGE);
  memset(p, 0, bytes);
  return p;
}

static void bench(const char* target, const char* type_name, Shape s, bool packed, const char* layout) {
  for (auto& t : kTargets) {
    if (strcmp(t.name, target)) continue;
    Kernels row{};
    t.install(row);
    for (auto& type : kTypes) {
      if (strcmp(type.name, type_name)) continue;
      const MatmulCell& cell = row.matmul[static_cast<int>(type.dtype)];
      if (!cell.run) return;
      size_t e = bytes_of(type.dtype);
      char* a = static_cast<char*>(huge(static_cast<size_t>(s.m * s.k) * e));
      char* b = static_cast<char*>(huge(static_cast<size_t>(s.n * s.k) * e));
      char* c = static_cast<char*>(huge(static_cast<size_t>(s.m * s.n) * e));
      for (int64_t i = 0; i < s.m * s.k; i++) put(type.dtype, a, i, random_unit());
      for (int64_t i = 0; i < s.n * s.k; i++) put(type.dtype, b, i, random_unit());
      const size_t packed_size = static_cast<size_t>(cell.packed_bytes(s.k, s.n));
      void* blob = packed ? huge(packed_size) : nullptr;
      bool ta = layout[0] == 't', tb = layout[1] == 't';
      MatmulProblem p{s.m, s.n, s.k, a, ta ? 1 : s.k, ta ? s.m : 1, packed ? nullptr : b, tb ? 1 : s.n, tb ? s.k : 1, blob, c, s.n, type.dtype, nullptr, Activation::none};
      if (packed) cell.pack(blob, b, s.k, s.n, tb ? 1 : s.n, tb ? s.k : 1);
      const double flops = 2.0 * s.m * s.n * s.k;
      const bool dot = !strcmp(type_name, "bf16") && !strcmp(target, "avx512_bf16");
      const bool ymm = !strcmp(target, "avx2");
      int rounds = static_cast<int>(std::clamp(2.5e8 / (flops / 200 + 1000), 4.0, 2000.0)), inner = flops < 1e6 ? 20 : 1;
      std::vector<double> times, peaks, reads;
      const bool memory_bound = s.m <= 8 && s.n * s.k > 100000;
      for (int i = 0; i < rounds; i++) {
        if (i % std::max(rounds / 8, 1) == 0) peaks.push_back(dot ? lab::peak_bf16_zmm() : ymm ? lab::peak_f32_ymm() : lab::peak_f32_zmm());
        if (memory_bound) {
          static double total;
          const int threads = pool_threads();
          size_t part = packed_size / static_cast<size_t>(threads);
          double start = lab::now_ns();
          parallel(threads, [&](int64_t w) { lab::read_gbps(static_cast<char*>(blob ? blob : b) + static_cast<size_t>(w) * part, part); });
          total = static_cast<double>(part) * threads / (lab::now_ns() - start);
          reads.push_back(total);
        }
        double start = lab::now_ns();
        for (int r = 0; r < inner; r++) cell.run(p);
        times.push_back((lab::now_ns() - start) / inner);
      }
      std::sort(times.begin(), times.end());
      std::sort(peaks.begin(), peaks.end());
      std::sort(reads.begin(), reads.end());
      double best = times[0], median = times[times.size() / 2], peak = peaks.back() * pool_threads();
      printf("%s %s %s %ldx%ldx%ld t%d: best %.2f us, median %.2f us; %.0f / %.0f GFLOP/s, %.1f %% / %.1f %% of peak %.0f", cell.name, layout, packed ? "packed" : "unpacked", s.m, s.n, s.k, pool_threads(), best / 1e3, median / 1e3, flops / best, flops / median,
             flops / best / peak * 100, flops / median / peak * 100, peak);
      if (memory_bound) {
        double bytes = static_cast<double>(packed_size);
        printf("; %.1f / %.1f GB/s of read best %.1f median %.1f = %.1f %% / %.1f %%", bytes / best, bytes / median, reads.back(), reads[reads.size() / 2],
               bytes / best / reads.back() * 100, bytes / median / reads[reads.size() / 2] * 100);
      }
      printf("%s\n", lab::sink());
      fflush(stdout);
      free(a); free(b); free(c); free(blob);
    }
  }
}

int main(int argc, char** argv) {
  if (argc >= 2 && !strcmp(argv[1], "check")) {
    if (argc > 2) pool_set_threads(atoi(argv[2]));
    return check(argc > 3 ? argv[3] : nullptr);
  }
  if (argc >= 8 && !strcmp(argv[1], "bench")) {
    // bench target dtype threads layout packed m n k [m n k ...]
    pool_set_threads(atoi(argv[4]));
    for (int i = 7; i + 2 < argc; i += 3)
      bench(argv[2], argv[3], {atol(argv[i]), atol(argv[i + 1]), atol(argv[i + 2])}, atoi(argv[6]) != 0, argv[5]);
    return 0;
  }
  printf("matmul check [threads [target]] | matmul bench <target> <f32|f16|bf16> <threads> <nn|nt|tn|tt> <packed 0|1> m n k ...\n");
  return 2;
}
