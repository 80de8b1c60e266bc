// The door between the addon and libkerf_cuda.so, which it loads when a program first asks for a CUDA device: plain data and
// plain functions, no exceptions, no CUDA symbol. An op crosses as its number and the arguments of its line in ops.def.
#pragma once
#include "status.h"
#include "tables.gen.h"
#include "view.h"

namespace kerf {

enum class OpCode : int32_t {
#define OP(name, parameters) name##_,
#include "ops.def"
#undef OP
  size
};

// A call: the views (an absent one has rank -1) and the numbers of ops.def's line, each in order. Views point into memory of
// the device and were checked against its bounds.
struct CudaCall {
  static constexpr int kViews = 12, kNumbers = 12;
  OpCode op;
  View views[kViews];
  double numbers[kNumbers];
};

struct CudaCard {
  char name[128];
  int64_t bytes;  // of memory
  int32_t major, minor;
};

// Every function may be called from any thread. After a device has failed (an illegal access, say) all answer Code::device.
struct CudaLibrary {
  const char* tables;                      // fingerprint of ops.def
  int32_t (*count)(char* why, size_t size);  // devices that can be used; with none, `why` says what is missing
  Status (*describe)(int32_t device, CudaCard* card);
  Status (*allocate)(int32_t device, size_t bytes, void** memory);  // 256-byte aligned
  void (*release)(int32_t device, void* memory);                    // after what is enqueued has run
  Status (*upload)(int32_t device, void* to, const void* from, size_t bytes);  // `from` may change after the call
  // `to` is complete once everything enqueued so far has run, and must live until then.
  Status (*download)(int32_t device, void* to, const void* from, size_t bytes);
  Status (*run)(int32_t device, const CudaCall* call);
  Status (*wait)(int32_t device);  // blocks until everything enqueued has run; answers what failed
  // Calls `done`, on a thread of the library, once everything enqueued so far has run; it must not block.
  Status (*watch)(int32_t device, void (*done)(void* context, const Status* status), void* context);
};

}  // namespace kerf

extern "C" {
// The library's only symbol.
using kerf_cuda_library_function = const kerf::CudaLibrary* (*)();
}
