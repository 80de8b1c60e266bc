#include "../elementwise.cuh"

#include <type_traits>

#include "../../core/element.h"
#include "launch.h"

namespace kerf {
namespace cuda {
namespace ops {
namespace {

template <class F, class Out, class In>
Status launch1(Gpu& gpu, const char* op, const View& out, const View& a, Out to, In from, F f) {
  const int64_t n = count(out);
  if (n == 0) return Status{};
  if (!fits(n)) return too_many(op, n);
  const Layout<2> layout = layout_of<2>({&out, &a});
  const auto size = static_cast<uint32_t>(n);
  CU_LAUNCH((map1<F, Out, In>), blocks_for(n), threads_for(n), 0, gpu.stream(), size, layout, to, from, f);
  return gpu.launched(op);
}

template <class F, class Out, class In>
Status launch2(Gpu& gpu, const char* op, const View& out, const View& a, const View& b, Out to, In first, In second, F f) {
  const int64_t n = count(out);
  if (n == 0) return Status{};
  if (!fits(n)) return too_many(op, n);
  const Layout<3> layout = layout_of<3>({&out, &a, &b});
  const auto size = static_cast<uint32_t>(n);
  CU_LAUNCH((map2<F, Out, In>), blocks_for(n), threads_for(n), 0, gpu.stream(), size, layout, to, first, second, f);
  return gpu.launched(op);
}

template <class F>
Status unary(Gpu& gpu, const char* op, const View& out, const View& a) {
  REQUIRE(same_shape(out, a) && out.dtype == a.dtype);
  if constexpr (!std::is_same_v<decltype(F()(int64_t{})), float>)  // it has a form for integers
    if (!is_floating(a.dtype) && a.dtype != DType::bool_)
      return launch1(gpu, op, out, a, Integers{out.data, out.dtype}, Integers{a.data, a.dtype}, F());
  return with_floats(op, a.dtype, [&](auto type) {
    using T = decltype(type);
    return launch1(gpu, op, out, a, T{out.data}, T{a.data}, F());
  });
}

template <class F>
Status binary(Gpu& gpu, const char* op, const View& out, const View& a, const View& b) {
  REQUIRE(same_shape(out, a) && same_shape(out, b) && a.dtype == b.dtype && out.dtype == a.dtype);
  if constexpr (!std::is_same_v<decltype(F()(int64_t{}, int64_t{})), float>)
    if (!is_floating(a.dtype))
      return launch2(gpu, op, out, a, b, Integers{out.data, out.dtype}, Integers{a.data, a.dtype},
                     Integers{b.data, b.dtype}, F());
  return with_floats(op, a.dtype, [&](auto type) {
    using T = decltype(type);
    return launch2(gpu, op, out, a, b, T{out.data}, T{a.data}, T{b.data}, F());
  });
}

template <class F>
Status compare(Gpu& gpu, const char* op, const View& out, const View& a, const View& b) {
  REQUIRE(same_shape(out, a) && same_shape(out, b) && a.dtype == b.dtype && out.dtype == DType::bool_);
  const Integers to{out.data, out.dtype};
  if (!is_floating(a.dtype))
    return launch2(gpu, op, out, a, b, to, Integers{a.data, a.dtype}, Integers{b.data, b.dtype}, F());
  return with_floats(op, a.dtype, [&](auto type) {
    using T = decltype(type);
    return launch2(gpu, op, out, a, b, to, T{a.data}, T{b.data}, F());
  });
}

template <class T>
Status select_as(Gpu& gpu, const View& out, const View& condition, const View& a, const View& b) {
  const int64_t n = count(out);
  if (n == 0) return Status{};
  if (!fits(n)) return too_many("where", n);
  const Layout<4> layout = layout_of<4>({&out, &condition, &a, &b});
  const auto size = static_cast<uint32_t>(n);
  T* const to = static_cast<T*>(out.data);
  const auto* const test = static_cast<const uint8_t*>(condition.data);
  const T *const first = static_cast<const T*>(a.data), *const second = static_cast<const T*>(b.data);
  CU_LAUNCH((select<T>), blocks_for(n), threads_for(n), 0, gpu.stream(), size, layout, to, test, first, second);
  return gpu.launched("where");
}

}  // namespace

#define UNARY(name, F) \
  Status name(Gpu& gpu, View out, View a) { return unary<F>(gpu, #name, out, a); }
UNARY(neg, Neg)
UNARY(abs, Abs)
UNARY(sign, Sign)
UNARY(floor, Floor)
UNARY(ceil, Ceil)
UNARY(round, Round)
UNARY(exp, Exp)
UNARY(log, Log)
UNARY(log1p, Log1p)
UNARY(sqrt, Sqrt)
UNARY(rsqrt, Rsqrt)
UNARY(sin, Sin)
UNARY(cos, Cos)
UNARY(tanh, Tanh)
UNARY(sigmoid, Sigmoid)
UNARY(relu, Relu)
UNARY(gelu, Gelu)
UNARY(silu, Silu)
UNARY(erf, Erf)
#undef UNARY

#define BINARY(name, F) \
  Status name(Gpu& gpu, View out, View a, View b) { return binary<F>(gpu, #name, out, a, b); }
BINARY(add, Add)
BINARY(sub, Sub)
BINARY(mul, Mul)
BINARY(div, Div)
BINARY(pow, Pow)
BINARY(maximum, Maximum)
BINARY(minimum, Minimum)
BINARY(reluGrad, ReluGrad)
BINARY(geluGrad, GeluGrad)
BINARY(siluGrad, SiluGrad)
BINARY(sigmoidGrad, SigmoidGrad)
BINARY(tanhGrad, TanhGrad)
#undef BINARY

#define COMPARE(name, F) \
  Status name(Gpu& gpu, View out, View a, View b) { return compare<F>(gpu, #name, out, a, b); }
COMPARE(eq, Eq)
COMPARE(ne, Ne)
COMPARE(lt, Lt)
COMPARE(le, Le)
COMPARE(gt, Gt)
COMPARE(ge, Ge)
#undef COMPARE

Status where(Gpu& gpu, View out, View condition, View a, View b) {
  REQUIRE(same_shape(out, condition) && same_shape(out, a) && same_shape(out, b));
  REQUIRE(condition.dtype == DType::bool_ && out.dtype == a.dtype && out.dtype == b.dtype);
  switch (element_bytes(out.dtype)) {
    case 1: return select_as<uint8_t>(gpu, out, condition, a, b);
    case 2: return select_as<uint16_t>(gpu, out, condition, a, b);
    case 4: return select_as<uint32_t>(gpu, out, condition, a, b);
    default: return select_as<unsigned long long>(gpu, out, condition, a, b);
  }
}

Status clamp(Gpu& gpu, View out, View a, f64 low, f64 high) {
  REQUIRE(same_shape(out, a) && out.dtype == a.dtype);
  if (is_floating(a.dtype))
    return with_floats("clamp", a.dtype, [&](auto type) {
      using T = decltype(type);
      return launch1(gpu, "clamp", out, a, T{out.data}, T{a.data}, Clamp<float>{static_cast<float>(low), static_cast<float>(high)});
    });
  // The integer bounds inside [low, high], within the dtype's range.
  const Element bottom = make_element(a.dtype, __builtin_ceil(low)), top = make_element(a.dtype, __builtin_floor(high));
  const Clamp<int64_t> f{integer_of(a.dtype, bottom), integer_of(a.dtype, top)};
  return launch1(gpu, "clamp", out, a, Integers{out.data, out.dtype}, Integers{a.data, a.dtype}, f);
}

}  // namespace ops
}  // namespace cuda
}  // namespace kerf
