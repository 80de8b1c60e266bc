// What drivers do with axes (core/axes.h): share tasks out, find elements.
#pragma once
#include "../core/axes.h"
#include "../core/pool.h"

namespace kerf {

// Waking the pool takes several microseconds: less work than this stays on one thread. The split into tasks is the
// same either way, so results are too.
constexpr double kParallelNs = 30'000;

template <class Body>
static inline void run_tasks(double ns, int64_t tasks, Body&& body) {
  if (ns < kParallelNs)
    for (int64_t i = 0; i < tasks; i++) body(i);
  else
    parallel(tasks, static_cast<Body&&>(body));
}

// An empty view has no memory, and arithmetic on its null pointer would be undefined.
static inline char* element(const View& v, int64_t offset) {
  return v.data ? static_cast<char*>(v.data) + offset * element_bytes(v.dtype) : nullptr;
}

static inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace kerf
