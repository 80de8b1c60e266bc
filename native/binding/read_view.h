// Reads the arguments of a call. The ArrayBuffers of the views come as N-API arguments, everything else as doubles:
//   View     dtype, rank, offset in elements, shape[rank], stride[rank]
//   OptView  the same, or a single -1
//   i64, f64 one double
// This is the bounds check: a View that gets through reaches only bytes inside its ArrayBuffer, or inside its memory of a GPU,
// which comes as an external value in the ArrayBuffer's place (cuda.h).
#pragma once
#include <cmath>

#include "../core/view.h"
#include "cuda.h"
#include "environment.h"

namespace kerf {

struct Reader {
  napi_env env;
  const double* next;
  const double* end;
  const napi_value* buffers;
  size_t buffer_count;
  Status status;
  Place place = {};  // of the views so far

  double number() {
    if (next >= end) {
      fail("too few arguments");
      return 0;
    }
    return *next++;
  }

  int64_t integer() {
    double d = number();
    if (!(d >= -9007199254740992.0 && d <= 9007199254740992.0) || d != std::floor(d)) {
      fail("an argument is not a safe integer");
      return 0;
    }
    return static_cast<int64_t>(d);
  }

  void fail(const char* what) {
    if (status.ok()) status = Status::error(Code::bug, "%s", what);
  }

  View view() {
    View v;
    v.data = nullptr;
    v.rank = 0;
    v.dtype = DType::float32_;
    int64_t dtype = integer(), rank = integer(), offset = integer();
    if (dtype < 0 || dtype >= kDTypes || rank < 0 || rank > kMaxRank) {
      fail("a view has a bad dtype or rank");
      return v;
    }
    v.dtype = static_cast<DType>(dtype);
    v.rank = static_cast<int32_t>(rank);
    bool empty = false;
    for (int i = 0; i < rank; i++) {
      v.shape[i] = integer();
      if (v.shape[i] < 0) fail("a view has a negative size");
      if (v.shape[i] == 0) empty = true;
    }
    int64_t low = offset, high = offset;
    bool overflow = false;
    for (int i = 0; i < rank; i++) {
      v.stride[i] = integer();
      int64_t reach;
      overflow |= __builtin_mul_overflow(v.stride[i], v.shape[i] > 0 ? v.shape[i] - 1 : 0, &reach);
      overflow |= __builtin_add_overflow(reach < 0 ? low : high, reach, reach < 0 ? &low : &high);
    }
    if (buffer_count == 0) {
      fail("too few buffers");
      return v;
    }
    void* data = nullptr;
    size_t bytes = 0;
    int32_t device = kCpu;
    if (napi_get_arraybuffer_info(env, *buffers, &data, &bytes) != napi_ok) {
      const CudaMemory* memory = cuda_memory(env, *buffers);
      if (memory) {
        data = memory->data;
        bytes = memory->bytes;
        device = memory->device;
      } else {
        fail("a buffer is neither an ArrayBuffer nor memory of a device");
      }
    }
    place.add(device);
    buffers++;
    buffer_count--;
    if (empty) return v;
    if (overflow || low < 0 || high >= static_cast<int64_t>(bytes) / element_bytes(v.dtype)) {
      fail("a view reaches outside its buffer");
      return v;
    }
    v.data = static_cast<char*>(data) + offset * element_bytes(v.dtype);
    return v;
  }

  OptView optional() {
    OptView v;
    if (next < end && *next == -1) {
      next++;
      v.data = nullptr;
      v.rank = -1;
      v.dtype = DType::float32_;
      return v;
    }
    static_cast<View&>(v) = view();
    return v;
  }
};

template <class T> T read(Reader& reader);
template <> inline View read<View>(Reader& r) { return r.view(); }
template <> inline OptView read<OptView>(Reader& r) { return r.optional(); }
template <> inline i64 read<i64>(Reader& r) { return r.integer(); }
template <> inline f64 read<f64>(Reader& r) { return r.number(); }

}  // namespace kerf
