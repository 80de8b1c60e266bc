#include "debug.h"

#include <chrono>
#include <cstdio>
#include <cstring>

namespace kerf {
namespace {

struct Running {
  std::chrono::steady_clock::time_point since;
  const char* kernel;
  double operations;
};

thread_local Running t_running;

}  // namespace

std::atomic<bool> g_debug_kernels{false};

void set_debug_kernels(bool on) { g_debug_kernels = on; }

void debug_begin() { t_running = {std::chrono::steady_clock::now(), nullptr, 0}; }

void debug_kernel(const char* name, double operations) {
  t_running.kernel = name;
  t_running.operations = operations;
}

void debug_end(const char* label) {
  double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - t_running.since).count();
  const char* rest = t_running.kernel ? strchr(label, ' ') : nullptr;
  char rate[40] = "";
  if (t_running.operations > 0 && seconds > 0) snprintf(rate, sizeof rate, ", %.1f GFLOP/s", t_running.operations / seconds * 1e-9);
  fprintf(stderr, "kerf: %s%s: %.4f ms%s\n", rest ? t_running.kernel : "", rest ? rest : label, seconds * 1e3, rate);
}

}  // namespace kerf
