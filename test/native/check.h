// What the native self-checks share: tensors in every layout that a driver must accept, their values in float64, and a
// comparison that says which case failed. Buffers have guard bands, checked after every op.
#pragma once
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "../../native/core/stream.h"
#include "../../native/core/view.h"
#include "../../native/ops/ops.h"
#include "../../native/ops/scalar.h"
#include "../../native/ops/targets.h"

namespace check {

using namespace kerf;
using Shape = std::vector<int64_t>;

enum class Layout { contiguous, permuted, spaced, reversed, broadcast };
inline const char* const kLayoutNames[] = {"contiguous", "permuted", "spaced", "reversed", "broadcast"};

inline int g_failures = 0;
inline long g_compared = 0;

inline uint64_t g_random = 88172645463325252ull;
inline double uniform() {  // [-1, 1)
  g_random ^= g_random << 13;
  g_random ^= g_random >> 7;
  g_random ^= g_random << 17;
  return static_cast<double>(g_random >> 11) * 0x1p-52 - 1;
}

inline double epsilon(DType d) { return d == DType::float16_ ? 0x1p-11 : d == DType::bfloat16_ ? 0x1p-8 : 0x1p-24; }
inline double tiny(DType d) { return d == DType::float16_ ? 0x1p-25 : 0x1p-130; }  // half the smallest step

class Tensor {
 public:
  Tensor(DType dtype, Shape shape, Layout layout = Layout::contiguous) {
    int rank = static_cast<int>(shape.size());
    view.dtype = dtype;
    view.rank = rank;
    int64_t span = 1;
    for (int k = rank - 1; k >= 0; k--) {
      int i = layout == Layout::permuted ? rank - 1 - k : k;  // the first axis becomes the densest
      view.shape[i] = shape[static_cast<size_t>(i)];
      view.stride[i] = span;
      if (layout == Layout::spaced && k == rank - 1) view.stride[i] = span = 2;
      if (layout == Layout::broadcast && k == 0 && rank > 1)
        view.stride[i] = 0;
      else
        span *= view.shape[i] > 0 ? view.shape[i] : 1;
      if (layout == Layout::spaced) span += 3;
    }
    int64_t bytes = element_bytes(dtype);
    memory_.assign(static_cast<size_t>((span + 2 * kGuard) * bytes), '\x5b');
    char* origin = memory_.data() + kGuard * bytes;
    if (layout == Layout::reversed)
      for (int i = 0; i < rank; i++) {
        if (view.shape[i] > 0) origin += (view.shape[i] - 1) * view.stride[i] * bytes;
        view.stride[i] = -view.stride[i];
      }
    view.data = origin;
  }

  OptView optional() const {
    OptView o;
    static_cast<View&>(o) = view;
    return o;
  }

  int64_t size() const { return count(view); }
  int64_t offset(int64_t number) const {
    int64_t at = 0;
    for (int i = view.rank - 1; i >= 0; i--) {
      at += number % view.shape[i] * view.stride[i];
      number /= view.shape[i];
    }
    return at;
  }

  double get(int64_t number) const {
    int64_t at = offset(number);
    switch (view.dtype) {
      case DType::int8_: return static_cast<const int8_t*>(view.data)[at];
      case DType::uint8_:
      case DType::bool_: return static_cast<const uint8_t*>(view.data)[at];
      case DType::int32_: return static_cast<const int32_t*>(view.data)[at];
      case DType::int64_: return static_cast<double>(static_cast<const int64_t*>(view.data)[at]);
      default: return static_cast<double>(get_float(view.dtype, view.data, at));
    }
  }

  void set(int64_t number, double value) {
    int64_t at = offset(number);
    switch (view.dtype) {
      case DType::int8_: static_cast<int8_t*>(view.data)[at] = static_cast<int8_t>(value); break;
      case DType::uint8_:
      case DType::bool_: static_cast<uint8_t*>(view.data)[at] = static_cast<uint8_t>(value); break;
      case DType::int32_: static_cast<int32_t*>(view.data)[at] = static_cast<int32_t>(value); break;
      case DType::int64_: static_cast<int64_t*>(view.data)[at] = static_cast<int64_t>(value); break;
      default: put_float(view.dtype, view.data, at, value);
    }
  }

  // Values spread over [-scale, scale) around `center`; small whole numbers for integers.
  Tensor& fill(double scale = 2, double center = 0) {
    for (int64_t i = 0; i < size(); i++) {
      double x = uniform();
      if (view.dtype == DType::bool_)
        set(i, x > 0);
      else if (view.dtype == DType::uint8_)
        set(i, std::floor((x + 1) * 100));
      else if (!is_floating(view.dtype))
        set(i, std::floor(x * 100));
      else
        set(i, x * scale + center);
    }
    return *this;
  }
  Tensor& fill_index(int64_t from, int64_t to) {
    for (int64_t i = 0; i < size(); i++)
      set(i, static_cast<double>(from) + std::floor((uniform() + 1) / 2 * static_cast<double>(to - from)));
    return *this;
  }

  std::vector<double> values() const {
    std::vector<double> r(static_cast<size_t>(size()));
    for (int64_t i = 0; i < size(); i++) r[static_cast<size_t>(i)] = get(i);
    return r;
  }

  bool guards_hold() const {
    size_t guard = static_cast<size_t>(kGuard * element_bytes(view.dtype));
    for (size_t i = 0; i < guard; i++)
      if (memory_[i] != '\x5b' || memory_[memory_.size() - 1 - i] != '\x5b') return false;
    return true;
  }

  View view{};

 private:
  static constexpr int64_t kGuard = 32;
  std::vector<char> memory_;
};

inline std::string describe(const char* op, const Tensor& a, Layout layout) {
  std::string s = std::string(op) + " " + dtype_name(a.view.dtype) + " [";
  for (int i = 0; i < a.view.rank; i++) s += (i ? "," : "") + std::to_string(a.view.shape[i]);
  return s + "] " + kLayoutNames[static_cast<int>(layout)] + " on " + kernels().target;
}

// |got - want| <= bound[i] + what rounding to the output's dtype costs. NaN matches NaN only.
inline void compare(const std::string& what, const Tensor& got, const std::vector<double>& want,
                    const std::vector<double>& bound) {
  if (!got.guards_hold()) {
    printf("FAIL %s: wrote outside its buffer\n", what.c_str());
    g_failures++;
  }
  for (int64_t i = 0; i < got.size(); i++) {
    size_t s = static_cast<size_t>(i);
    double g = got.get(i), w = want[s];
    g_compared++;
    bool floating = is_floating(got.view.dtype);
    double largest = got.view.dtype == DType::float16_ ? 65520 : 3.4028236e38;
    double allowed =
        floating ? bound[s] + epsilon(got.view.dtype) * (std::fabs(w) + bound[s]) + tiny(got.view.dtype) : 0;
    bool same = std::isnan(w)                                           ? std::isnan(g)
                : std::isinf(w) || (floating && std::fabs(w) > largest) ? g == (w > 0 ? INFINITY : -INFINITY)
                                                                        : std::fabs(g - w) <= allowed;
    if (same) continue;
    if (++g_failures <= 40)
      printf("FAIL %s: element %lld is %.9g, want %.9g, off by %.3g, allowed %.3g\n", what.c_str(),
             static_cast<long long>(i), g, w, std::fabs(g - w), allowed);
    return;
  }
}

inline void expect(const std::string& what, bool condition) {
  g_compared++;
  if (condition) return;
  g_failures++;
  printf("FAIL %s\n", what.c_str());
}

inline Stream& stream() {
  static Stream* s = new Stream;
  return *s;
}

// The driver must accept the call, and the command must finish without an error.
inline void done(const std::string& what, Status status) {
  stream().wait(stream().queued());
  Status later = stream().take_error();
  if (!status.ok() || !later.ok()) {
    g_failures++;
    printf("FAIL %s: %s%s\n", what.c_str(), status.what, later.what);
  }
}

// Answers the text of the error that a call leaves on the stream.
inline std::string error_of(Status status) {
  stream().wait(stream().queued());
  Status later = stream().take_error();
  return status.ok() ? later.what : status.what;
}

inline const std::vector<DType> kFloats = {DType::float32_, DType::float16_, DType::bfloat16_};
inline const std::vector<DType> kAll = {DType::float32_, DType::float16_, DType::bfloat16_, DType::int8_,
                                        DType::uint8_,   DType::int32_,   DType::int64_,    DType::bool_};
inline const std::vector<Layout> kInputs = {Layout::contiguous, Layout::permuted, Layout::spaced, Layout::reversed,
                                            Layout::broadcast};

}  // namespace check
