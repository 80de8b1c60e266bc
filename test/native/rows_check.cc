// Checks the drivers and kernels of reductions, rows, norms, losses, indexing and optimizers against float64 loops, on
// every row of kernels that this machine can run, with one thread and with several; results must be the same bits for
// any number of threads. Prints failures; exits 1 when there are any. A name as argument runs that target only.
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

int main(int argc, char** argv) {
  using namespace check;
  setvbuf(stdout, nullptr, _IOLBF, 1 << 12);
  for (int i = 0; i < target_count(); i++) {
    TargetInfo info = target_info(i);
    if (!info.compiled || !info.supported || (argc > 1 && strcmp(argv[1], info.name) != 0)) continue;
    char why[200];
    if (!choose_target(info.name, why, sizeof why)) return 1;
    int before = g_failures;
    long compared = g_compared;
    for (int threads : {3, 1}) {
      pool_set_threads(threads);
      check_reductions();
      check_cumsum();
      check_rows();
      check_norms();
      check_loss();
      check_index();
      check_optim();
    }
    printf("%s: %ld values, %d failures\n", info.name, g_compared - compared, g_failures - before);
  }
  pool_shutdown();
  return g_failures ? 1 : 0;
}
