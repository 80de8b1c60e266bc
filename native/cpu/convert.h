// Conversion of one element, PyTorch's casts made total: a float becomes an integer by truncation, saturating at the
// integer's range with NaN as 0 (C++ leaves both undefined); an integer wraps into a narrower one; anything but zero
// becomes true; an integer reaches a 16-bit float through float32, like there.
#pragma once
#include "../core/elem.h"
#include "../core/target.h"

namespace kerf::KERF_TARGET {

struct Bool {
  uint8_t value;
};  // tells bool from uint8, whose storage it shares

template <class T>
constexpr bool kIsFloat = false;
template <>
constexpr bool kIsFloat<float> = true;
template <>
constexpr bool kIsFloat<double> = true;
template <>
constexpr bool kIsFloat<f16> = true;
template <>
constexpr bool kIsFloat<bf16> = true;

// The arithmetic type that carries T's value exactly.
KERF_INLINE float value_of(f16 x) { return kerf::to_float(x); }
KERF_INLINE float value_of(bf16 x) { return kerf::to_float(x); }
KERF_INLINE uint8_t value_of(Bool x) { return x.value != 0; }
template <class T>
KERF_INLINE T value_of(T x) {
  return x;
}

template <class To>
struct Limits;
template <>
struct Limits<int8_t> {
  static constexpr double low = -0x1p7, end = 0x1p7;
  static constexpr int64_t top = INT8_MAX;
};
template <>
struct Limits<uint8_t> {
  static constexpr double low = 0, end = 0x1p8;
  static constexpr int64_t top = UINT8_MAX;
};
template <>
struct Limits<int32_t> {
  static constexpr double low = -0x1p31, end = 0x1p31;
  static constexpr int64_t top = INT32_MAX;
};
template <>
struct Limits<int64_t> {
  static constexpr double low = -0x1p63, end = 0x1p63;
  static constexpr int64_t top = INT64_MAX;
};

template <class To, class From>
KERF_INLINE To convert(From from) {
  auto x = value_of(from);
  if constexpr (__is_same(To, Bool))
    return Bool{static_cast<uint8_t>(x != 0)};
  else if constexpr (__is_same(To, float))
    return static_cast<float>(x);
  else if constexpr (__is_same(To, f16))
    return kerf::to_f16(static_cast<float>(x));
  else if constexpr (__is_same(To, bf16))
    return kerf::to_bf16(static_cast<float>(x));
  else if constexpr (kIsFloat<From>) {
    using L = Limits<To>;
    if (!(x > static_cast<decltype(x)>(L::low))) return x == x ? static_cast<To>(static_cast<int64_t>(L::low)) : To{0};
    if (x >= static_cast<decltype(x)>(L::end)) return static_cast<To>(L::top);
    return static_cast<To>(x);
  } else
    return static_cast<To>(x);
}

}  // namespace kerf::KERF_TARGET
