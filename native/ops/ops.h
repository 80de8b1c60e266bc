// The drivers: one function per line of ops.def, same name, same parameters, behind the stream that runs it.
#pragma once
#include "../core/status.h"
#include "../core/stream.h"
#include "../core/view.h"

namespace kerf::ops {

#define OP(name, parameters) OP_DECLARE(name, OP_EXPAND parameters)
#define OP_EXPAND(...) __VA_ARGS__
#define OP_DECLARE(name, ...) Status name(Stream& stream, __VA_ARGS__);
#include "../core/ops.def"
#undef OP_DECLARE
#undef OP_EXPAND
#undef OP

}  // namespace kerf::ops
