// One element of any dtype, made from a float64 and rounded once.
#pragma once
#include "view.h"

namespace kerf {

union Element {
  float f32;
  f16 h;
  bf16 b;
  int8_t i8;
  uint8_t u8;
  int32_t i32;
  int64_t i64;
};

// Rounded to odd: a second rounding to fewer bits then gives what a single one would have.
KERF_INLINE float to_odd_float(double value) {
  float f = static_cast<float>(value);
  if (static_cast<double>(f) == value || f != f) return f;
  uint32_t bits = float_to_bits(f);
  double magnitude = static_cast<double>(bits_to_float(bits & 0x7fffffffu));
  if (magnitude > (value < 0 ? -value : value)) bits--;  // truncate
  return bits_to_float(bits | 1u);
}

KERF_INLINE int64_t saturate(double value, int64_t low, int64_t high) {
  if (value != value) return 0;
  if (value <= static_cast<double>(low)) return low;
  if (value >= static_cast<double>(high)) return high;  // 2^63 - 1 reads as 2^63 here, which is right
  return static_cast<int64_t>(value);
}

KERF_INLINE Element make_element(DType dtype, double value) {
  Element e;
  e.i64 = 0;
  switch (dtype) {
    case DType::float32_: e.f32 = static_cast<float>(value); break;
    case DType::float16_: e.h = to_f16(to_odd_float(value)); break;
    case DType::bfloat16_: e.b = to_bf16(to_odd_float(value)); break;
    case DType::int8_: e.i8 = static_cast<int8_t>(saturate(value, INT8_MIN, INT8_MAX)); break;
    case DType::uint8_: e.u8 = static_cast<uint8_t>(saturate(value, 0, UINT8_MAX)); break;
    case DType::int32_: e.i32 = static_cast<int32_t>(saturate(value, INT32_MIN, INT32_MAX)); break;
    case DType::int64_: e.i64 = saturate(value, INT64_MIN, INT64_MAX); break;
    case DType::bool_: e.u8 = value != 0; break;
  }
  return e;
}

// The largest value of the dtype below `high`: rounding must not reach the open end.
static inline float last_below(DType dtype, double high) {
  if (dtype == DType::float32_) {
    float f = static_cast<float>(high);
    return static_cast<double>(f) < high ? f : __builtin_nextafterf(f, -__builtin_inff());
  }
  auto value = [&](uint16_t bits) { return dtype == DType::float16_ ? to_float(f16{bits}) : to_float(bf16{bits}); };
  float rounded = static_cast<float>(high);
  uint16_t bits = dtype == DType::float16_ ? to_f16(rounded).bits : to_bf16(rounded).bits;
  if (static_cast<double>(value(bits)) < high) return value(bits);
  if (value(bits) == 0) return value(0x8001);
  return value(static_cast<uint16_t>(bits & 0x8000 ? bits + 1 : bits - 1));
}

// The element of an integer dtype as a number.
KERF_INLINE int64_t integer_of(DType dtype, Element e) {
  return dtype == DType::int8_ ? e.i8 : dtype == DType::int32_ ? e.i32 : dtype == DType::int64_ ? e.i64 : e.u8;
}

}  // namespace kerf
