// probe(kind, amount[, buffer, offset]): one run of a probe of the chosen row on all threads of the pool. Answers what was
// done, operations or bytes, or -1 where the row has no such probe; the caller takes the time.
//   'fma', 'bf16dot', 'int8dot'  `amount` rounds on every thread
//   'read'            `amount` bytes of the ArrayBuffer, from byte `offset`, shared out among the threads
#pragma once
#include <napi.h>

namespace kerf {

Napi::Value probe(const Napi::CallbackInfo& info);

}  // namespace kerf
