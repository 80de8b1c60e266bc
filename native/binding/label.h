// Describes a call for KERF_DEBUG=kernels: "name@target dtype[shape] ...", cut where the buffer ends.
#pragma once
#include <cstdio>

#include "../core/debug.h"
#include "../core/view.h"

namespace kerf {

struct Label {
  char* next;
  char* end;

  template <class... Arguments>
  void add(const char* format, Arguments... arguments) {
    int n = snprintf(next, static_cast<size_t>(end - next), format, arguments...);
    next += n < 0 ? 0 : n < end - next ? n : end - next - 1;
  }

  void add(const View& v) {
    if (v.rank < 0) return;  // an absent optional view
    static constexpr const char* kNames[] = {
#define DTYPE(name, shorthand, type, bytes, kind) #name,
#include "../core/dtypes.def"
#undef DTYPE
    };
    add(" %s[", kNames[static_cast<int>(v.dtype)]);
    for (int i = 0; i < v.rank; i++) add(i ? ", %lld" : "%lld", static_cast<long long>(v.shape[i]));
    add("%s", "]");
  }

  void add(double) {}
  void add(i64) {}
};

}  // namespace kerf
