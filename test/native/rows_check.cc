// Checks the drivers and kernels of reductions, rows, norms, losses, indexing and optimizers against float64 loops, on
// every row of kernels that this machine can run, with several threads and with one. Prints failures; exits 1 when
// there are any. Arguments: a target (or "all"), then the sections to run; everything by default.
#include "../../native/core/pool.h"
#include "check.h"

namespace check {
void check_reductions();
void check_cumsum();
void check_rows();
void check_norms();
void check_loss();
void check_index();
void check_optim();
}  // namespace check

struct Section {
  const char* name;
  void (*run)();
};

constexpr Section kSections[] = {
    {"rows", check::check_rows},
    {"norms", check::check_norms},
    {"loss", check::check_loss},
    {"index", check::check_index},
    {"optim", check::check_optim},
    {"cumsum", check::check_cumsum},
    {"reductions", check::check_reductions},
};

static bool chosen(const char* name, int argc, char** argv) {
  if (argc < 3) return true;
  for (int i = 2; i < argc; i++)
    if (strcmp(argv[i], name) == 0) return true;
  return false;
}

int main(int argc, char** argv) {
  using namespace check;
  setvbuf(stdout, nullptr, _IOLBF, 1 << 12);
  for (int i = 0; i < target_count(); i++) {
    TargetInfo info = target_info(i);
    bool wanted = argc < 2 || strcmp(argv[1], "all") == 0 || strcmp(argv[1], info.name) == 0;
    if (!info.compiled || !info.supported || !wanted) continue;
    char why[200];
    if (!choose_target(info.name, why, sizeof why)) return 1;
    for (const Section& section : kSections) {
      if (!chosen(section.name, argc, argv)) continue;
      int failures = g_failures;
      long compared = g_compared;
      for (int threads : {3, 1}) {
        pool_set_threads(threads);
        section.run();
      }
      printf("%s %s: %ld values, %d failures\n", info.name, section.name, g_compared - compared, g_failures - failures);
    }
  }
  pool_shutdown();
  return g_failures ? 1 : 0;
}
