#include "status.h"

#include <cstdio>

namespace kerf {

Status Status::error(Code code, const char* format, ...) {
  Status status;
  status.code = code;
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(status.what, sizeof status.what, format, arguments);
  va_end(arguments);
  return status;
}

}  // namespace kerf
