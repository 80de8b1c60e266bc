// Which row of kernels runs: chosen once, when the addon is loaded.
#pragma once
#include "../core/kernels.h"

namespace kerf {

const Kernels& kernels();  // the chosen row

// Chooses the strongest row that this CPU has, or the one named. Returns null and leaves the choice when the name is
// unknown or the CPU lacks it; `why` then says so in one line.
const char* choose_target(const char* wanted, char* why, int why_bytes);

// For info() and `kerf doctor`: row i's name, whether this binary and this CPU have it, and the features it needs.
struct TargetInfo {
  const char* name;
  const char* features;
  bool compiled;
  bool supported;
};
int target_count();
TargetInfo target_info(int i);

}  // namespace kerf
