// What each Node environment (the main thread, every worker_thread) has of its own.
#pragma once
#include <node_api.h>

#include "../core/stream.h"

namespace kerf {

// Two pages of doubles shared with TypeScript, because reading and writing a Float64Array costs a nanosecond and an
// N-API number costs five: `arguments` carries the numbers of a call (layout in read_view.h), `state` carries
// {queued, finished, stream failed, status of the last call}.
struct Environment {
  static constexpr int kArguments = 256;
  static constexpr int kState = 8;

  Stream stream;
  double* arguments = nullptr;
  double* state = nullptr;
  napi_ref pages[2] = {};
  napi_threadsafe_function finished = nullptr;  // wakes JavaScript when a watched command is done
  Status last;                                  // of the last call, when state[3] is not 0

  napi_value report(const Status& status) {
    state[3] = static_cast<double>(status.code);
    if (!status.ok()) last = status;
    return nullptr;
  }
};

}  // namespace kerf
