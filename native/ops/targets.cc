// The only file that names every target: lays the rows over each other and chooses one.
#include "targets.h"

#include <atomic>
#include <cstdio>
#include <cstring>
#include <memory>
#include <mutex>

#include "../core/features.h"

namespace kerf {

#define TARGET(name, parent, features) \
  namespace name {                     \
  void install(Kernels&);              \
  }
#include "../core/targets.def"
#undef TARGET

#ifdef KERF_HAVE_GENERIC
constexpr bool kHave_generic = true;
#else
#error "the generic row is always compiled"
#endif
#ifdef KERF_HAVE_AVX2
constexpr bool kHave_avx2 = true;
#else
constexpr bool kHave_avx2 = false;
namespace avx2 { void install(Kernels&) {} }
#endif
#ifdef KERF_HAVE_AVX_VNNI
constexpr bool kHave_avx_vnni = true;
#else
constexpr bool kHave_avx_vnni = false;
namespace avx_vnni { void install(Kernels&) {} }
#endif
#ifdef KERF_HAVE_AVX512
constexpr bool kHave_avx512 = true;
#else
constexpr bool kHave_avx512 = false;
namespace avx512 { void install(Kernels&) {} }
#endif
#ifdef KERF_HAVE_AVX512_VNNI
constexpr bool kHave_avx512_vnni = true;
#else
constexpr bool kHave_avx512_vnni = false;
namespace avx512_vnni { void install(Kernels&) {} }
#endif
#ifdef KERF_HAVE_AVX512_BF16
constexpr bool kHave_avx512_bf16 = true;
#else
constexpr bool kHave_avx512_bf16 = false;
namespace avx512_bf16 { void install(Kernels&) {} }
#endif
#ifdef KERF_HAVE_AMX
constexpr bool kHave_amx = true;
#else
constexpr bool kHave_amx = false;
namespace amx { void install(Kernels&) {} }
#endif

namespace {

struct Row {
  const char* name;
  const char* parent;
  const char* features;
  bool compiled;
  void (*install)(Kernels&);
};

constexpr Row kRows[] = {
#define TARGET(name, parent, features) {#name, #parent, features, kHave_##name, name::install},
#include "../core/targets.def"
#undef TARGET
};
constexpr int kRowCount = sizeof kRows / sizeof kRows[0];

int find(const char* name) {
  for (int i = 0; i < kRowCount; i++)
    if (strcmp(kRows[i].name, name) == 0) return i;
  return -1;
}

bool runs(int i) {
  if (!kRows[i].compiled || !cpu_has(kRows[i].features)) return false;
  int parent = find(kRows[i].parent);
  return parent == i || runs(parent);
}

void lay(int i, Kernels& row) {
  int parent = find(kRows[i].parent);
  if (parent != i) lay(parent, row);
  kRows[i].install(row);
  row.target = kRows[i].name;
}

// Rows are laid once and never changed, so commands in flight may go on reading one while another is chosen.
std::unique_ptr<Kernels> g_rows[kRowCount];
std::atomic<const Kernels*> g_chosen{nullptr};
std::mutex g_mutex;

const Kernels* row(int i) {
  if (!g_rows[i]) {
    g_rows[i] = std::make_unique<Kernels>();
    lay(i, *g_rows[i]);
  }
  return g_rows[i].get();
}

}  // namespace

const Kernels& kernels() { return *g_chosen.load(std::memory_order_acquire); }

const char* choose_target(const char* wanted, char* why, int why_bytes) {
  std::lock_guard lock(g_mutex);
  if (wanted && *wanted) {
    int i = find(wanted);
    if (i < 0) {
      snprintf(why, static_cast<size_t>(why_bytes), "no target is called '%s'", wanted);
      return nullptr;
    }
    if (!runs(i)) {
      snprintf(why, static_cast<size_t>(why_bytes), kRows[i].compiled ? "this CPU cannot run it (needs %s)" : "this binary was built without it",
               kRows[i].features);
      return nullptr;
    }
    g_chosen = row(i);
    return kRows[i].name;
  }
  for (int i = kRowCount - 1; i >= 0; i--) {
    if (!runs(i)) continue;
    g_chosen = row(i);
    return kRows[i].name;
  }
  return nullptr;
}

int target_count() { return kRowCount; }

TargetInfo target_info(int i) { return {kRows[i].name, kRows[i].features, kRows[i].compiled, runs(i)}; }

}  // namespace kerf
