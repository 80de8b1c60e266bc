// What the emulated programs share: expectations, and numbers written in an operand's format.
#pragma once
#include <cmath>
#include <cstdio>
#include <string>

#include "native/core/elem.h"
#include "target.h"

namespace program {

inline int failures = 0, compared = 0;

inline void expect(const std::string& what, bool condition) {
  compared++;
  if (condition) return;
  failures++;
  printf("FAIL %s\n", what.c_str());
}

inline int finish() {
  printf("%d expectations, %d failed\n", compared, failures);
  return failures ? 1 : 0;
}

// Element i of `to` becomes `value` rounded to T; answers the rounded number.
template <class T>
double store(uint8_t* to, size_t i, double value) {
  if constexpr (std::is_same_v<T, cu::s8>) {
    reinterpret_cast<int8_t*>(to)[i] = static_cast<int8_t>(value);
    return static_cast<int8_t>(value);
  } else if constexpr (std::is_same_v<T, cu::f16>) {
    kerf::f16 h = kerf::to_f16(static_cast<float>(value));
    reinterpret_cast<kerf::f16*>(to)[i] = h;
    return static_cast<double>(kerf::to_float(h));
  } else if constexpr (std::is_same_v<T, cu::bf16>) {
    kerf::bf16 h = kerf::to_bf16(static_cast<float>(value));
    reinterpret_cast<kerf::bf16*>(to)[i] = h;
    return static_cast<double>(kerf::to_float(h));
  } else {
    reinterpret_cast<float*>(to)[i] = static_cast<float>(value);
    return static_cast<double>(static_cast<float>(value));
  }
}

}  // namespace program
