// What this CPU and this operating system can run.
#pragma once

namespace kerf {

// True when every feature of the space-separated list is there: cpuid says the CPU has it *and* xgetbv says that the
// operating system saves its registers. Names are Linux's /proc/cpuinfo names.
bool cpu_has(const char* features);

// The CPU's brand string, or "unknown".
const char* cpu_model();

}  // namespace kerf
