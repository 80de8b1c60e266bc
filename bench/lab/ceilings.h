// What this machine could do at best, measured in bursts of about 4 ms.
#pragma once
#include <cstddef>

namespace lab {

double now_ns();
double peak_f32_zmm();   // GFLOP/s, one thread
double peak_f32_ymm();
double peak_bf16_zmm();
double peak_int8_zmm();   // vpdpbusd, GOP/s
double peak_int8_ymm();
double read_gbps(const void* data, size_t bytes);  // one pass, one thread
const char* sink();      // keeps the compiler honest

}  // namespace lab
