// What a driver answers. No exceptions, no abort: a Status travels back to TypeScript, which throws.
#pragma once
#include <cstdarg>
#include <cstdint>

namespace kerf {

enum class Code : int32_t { ok = 0, bug = 1, unsupported = 2, out_of_memory = 3, range = 4, device = 5 };

struct Status {
  Code code = Code::ok;
  char what[244] = {};

  bool ok() const { return code == Code::ok; }
  static Status error(Code code, const char* format, ...) __attribute__((format(printf, 2, 3)));
};

// In a driver: TypeScript has already validated what the user passed, so a failed REQUIRE is a bug in lib/.
#define REQUIRE(condition)                                                                                  \
  do {                                                                                                      \
    if (!(condition)) return ::kerf::Status::error(::kerf::Code::bug, "%s:%d: %s", __func__, __LINE__, #condition); \
  } while (0)

}  // namespace kerf
