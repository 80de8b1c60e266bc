// What elementwise_check.cc and create_check.cc share: strided tensors between guard bytes, float64 comparison, the run
// over targets. checks.test.ts links them with the objects of the addon's build. A program exits 1 when anything failed.
#pragma once
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "../../native/core/pool.h"
#include "../../native/ops/ops.h"
#include "../../native/ops/targets.h"

using namespace kerf;

inline Stream* g_stream;
inline int g_checks = 0, g_failures = 0;
inline std::string g_where;

inline void fail(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  printf("not ok %s: ", g_where.c_str());
  vprintf(format, arguments);
  printf("\n");
  va_end(arguments);
  if (++g_failures > 20) exit(1);
}

inline uint64_t g_state = 1;
inline uint32_t next_bits() {
  return static_cast<uint32_t>((g_state = g_state * 6364136223846793005ull + 1442695040888963407ull) >> 32);
}

inline const char* const kNames[] = {"float32", "float16", "bfloat16", "int8", "uint8", "int32", "int64", "bool"};
inline bool floating(DType d) { return is_floating(d); }

// A value of any dtype: floats as double, integers as int64.
struct Value {
  double f;
  int64_t i;
};
inline bool same(Value a, Value b) { return (a.f == b.f || (a.f != a.f && b.f != b.f)) && a.i == b.i; }

enum class Layout { contiguous, permuted, negative, stepped, broadcast_first, broadcast_last, scalar, count };

struct Tensor {
  std::vector<char> memory;
  View view{};
  std::vector<int64_t> shape;
  static constexpr char kGuard = 0x5b;

  Tensor(DType dtype, std::vector<int64_t> shape_, Layout layout = Layout::contiguous) : shape(shape_) {
    int rank = static_cast<int>(shape.size());
    view.dtype = dtype;
    view.rank = rank;
    int64_t expected = 1, low = 0, high = 0;
    for (int k = 0; k < rank; k++) {
      int i = layout == Layout::permuted ? k : rank - 1 - k;
      view.shape[i] = shape[i];
      int64_t stride = expected;
      if (layout == Layout::stepped) stride *= 2;
      if (layout == Layout::negative && i % 2 == (rank - 1) % 2) stride = -stride;
      if (layout == Layout::scalar || (layout == Layout::broadcast_first && i == 0) ||
          (layout == Layout::broadcast_last && i == rank - 1))
        stride = 0;
      view.stride[i] = stride;
      if (stride) expected *= shape[i] ? shape[i] : 1;
      if (shape[i]) (stride < 0 ? low : high) += stride * (shape[i] - 1);
    }
    int64_t bytes = element_bytes(dtype);
    memory.assign(static_cast<size_t>((high - low + 1) * bytes + 128), kGuard);
    view.data = memory.data() + 64 - low * bytes;
  }

  int64_t size() const { return count(view); }
  char* at(int64_t i) const {
    int64_t offset = 0;
    for (int k = view.rank - 1; k >= 0; k--) offset += i % view.shape[k] * view.stride[k], i /= view.shape[k];
    return static_cast<char*>(view.data) + offset * element_bytes(view.dtype);
  }
  Value get(int64_t i) const {
    const char* p = at(i);
    switch (view.dtype) {
      case DType::float32_: {
        float f;
        memcpy(&f, p, 4);
        return {f, 0};
      }
      case DType::float16_: {
        f16 h;
        memcpy(&h, p, 2);
        return {to_float(h), 0};
      }
      case DType::bfloat16_: {
        bf16 h;
        memcpy(&h, p, 2);
        return {to_float(h), 0};
      }
      case DType::int8_: return {0, *reinterpret_cast<const int8_t*>(p)};
      case DType::int32_: {
        int32_t v;
        memcpy(&v, p, 4);
        return {0, v};
      }
      case DType::int64_: {
        int64_t v;
        memcpy(&v, p, 8);
        return {0, v};
      }
      default: return {0, *reinterpret_cast<const uint8_t*>(p)};
    }
  }
  // Rounds floats once to the dtype (the double is a float here or the rounding is the caller's).
  void set(int64_t i, Value v) {
    char* p = at(i);
    float f = static_cast<float>(v.f);
    switch (view.dtype) {
      case DType::float32_: memcpy(p, &f, 4); break;
      case DType::float16_: {
        f16 h = to_f16(f);
        memcpy(p, &h, 2);
        break;
      }
      case DType::bfloat16_: {
        bf16 h = to_bf16(f);
        memcpy(p, &h, 2);
        break;
      }
      case DType::int32_: {
        int32_t x = static_cast<int32_t>(v.i);
        memcpy(p, &x, 4);
        break;
      }
      case DType::int64_: memcpy(p, &v.i, 8); break;
      case DType::bool_: *p = v.i != 0; break;
      default: *p = static_cast<char>(v.i); break;
    }
  }
  // kind 0: numbers around one and every special; 1: positive; for integers any bits, extremes included.
  void randomize(int kind) {
    static const double special[] = {0.0,  -0.0, INFINITY, -INFINITY, NAN,   1,      -1,   0.5,
                                     -2.5, 3.5,  1e-6,     -1e-6,     70000, -70000, 1e-40};
    for (int64_t i = 0; i < size(); i++) {
      uint32_t bits = next_bits();
      double x = (static_cast<double>(next_bits()) / 4294967296.0 - 0.5) * std::exp2(static_cast<int>(bits % 12) - 5);
      if (kind == 0 && bits % 7 == 0) x = special[(bits >> 8) % 15];
      if (kind == 1) x = std::fabs(x) + 1e-3;
      int64_t n = static_cast<int64_t>(static_cast<uint64_t>(next_bits()) << 32 | next_bits());
      if (bits % 3 == 0) n %= 5;
      if (bits % 31 == 0) n = INT64_MIN;
      set(i, {x, n});
    }
  }
  void check_guards() const {
    for (size_t i = 0; i < 64; i++)
      if (memory[i] != kGuard || memory[memory.size() - 1 - i] != kGuard) return fail("wrote outside the output");
  }
};

inline double ulp_of(DType d, double x) {
  int digits = d == DType::float32_ ? 23 : d == DType::float16_ ? 10 : 7, smallest = d == DType::float16_ ? -14 : -126;
  int e = x == 0 || !std::isfinite(x) ? smallest : std::max(std::ilogb(x), smallest);
  return std::ldexp(1.0, e - digits);
}

inline void call(const Status& status) {
  if (!status.ok()) fail("%s", status.what);
  g_stream->wait(g_stream->queued());
}

// Compares with a float64 result: within `ulps` of float32 before the one rounding to the dtype.
inline void compare_float(const Tensor& out, int64_t i, double want, double ulps) {
  g_checks++;
  DType d = out.view.dtype;
  double got = out.get(i).f;
  if (std::isnan(want) || std::isnan(got)) {
    if (std::isnan(want) != std::isnan(got)) fail("[%lld] is %.9g, want %.17g", static_cast<long long>(i), got, want);
    return;
  }
  double largest = d == DType::float16_ ? 65504 : 0x1.fffffep127;
  if (std::isinf(got) || std::isinf(want)) {
    if (got == want || (std::isinf(got) && std::fabs(want) >= largest && (got > 0) == (want > 0))) return;
    return fail("[%lld] is %.9g, want %.17g", static_cast<long long>(i), got, want);
  }
  double tolerance = ulps * ulp_of(DType::float32_, want) +
                     0.5000001 * ulp_of(d, want) * (d == DType::float32_ && ulps == 0 ? 1 : d != DType::float32_);
  if (ulps == 80) tolerance += 1e-36;  // gelu's far tail, where its factors are subnormal
  if (std::fabs(got - want) > tolerance) fail("[%lld] is %.9g, want %.17g", static_cast<long long>(i), got, want);
}

inline const std::vector<std::vector<int64_t>> kShapes = {
    {0}, {}, {1}, {3}, {7}, {8}, {15}, {16}, {17}, {33}, {1023}, {5, 7}, {2, 3, 37}, {4, 0, 3}, {3, 1, 64}, {70, 41}};

inline int64_t narrow(DType d, int64_t x) {
  Tensor t(d, {1});
  t.set(0, {0, x});
  return t.get(0).i;
}

inline std::string describe(const char* name, DType d, const std::vector<int64_t>& shape, Layout a, Layout b,
                            Layout out) {
  std::string s = std::string(kernels().target) + " " + name + " " + kNames[static_cast<int>(d)] + " [";
  for (int64_t n : shape) s += std::to_string(n) + ",";
  return s + "] layouts " + std::to_string(static_cast<int>(a)) + std::to_string(static_cast<int>(b)) +
         std::to_string(static_cast<int>(out));
}

// Runs `checks` on every target that this CPU has.
inline int run_checks(void (*checks)()) {
  Stream stream;
  g_stream = &stream;
  for (int target = 0; target < target_count(); target++) {
    TargetInfo info = target_info(target);
    char why[200];
    if (!info.supported || !choose_target(info.name, why, sizeof why)) continue;
    int before = g_checks;
    checks();
    printf("%s: %d comparisons, %d failures so far\n", info.name, g_checks - before, g_failures);
  }
  stream.stop();
  pool_shutdown();
  return g_failures != 0 || g_checks == 0;
}
