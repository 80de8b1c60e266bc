// Drivers of the elementwise ops. A cell writes contiguous runs; a strided output goes through a small buffer.
#include "iterate.h"
#include "ops.h"
#include "scalar.h"

namespace kerf::ops {
namespace {

// What an element costs beyond moving its bytes (ns, one core), to an order of magnitude: it only decides between
// inline, queued and parallel.
constexpr double kMove = 0.03, kFunction = 0.4, kHeavy = 1.0;
constexpr double kBytesPerNs = 20;

constexpr double unary_ns(Unary op) {
  switch (op) {
    case Unary::neg:
    case Unary::abs:
    case Unary::sign:
    case Unary::floor:
    case Unary::ceil:
    case Unary::round:
    case Unary::relu:
    case Unary::sqrt:
    case Unary::rsqrt: return kMove;
    case Unary::gelu:
    case Unary::sin:
    case Unary::cos:
    case Unary::log1p: return kHeavy;
    default: return kFunction;
  }
}

constexpr double binary_ns(Binary op) {
  return op == Binary::pow ? 2 * kHeavy : op == Binary::geluGrad ? kHeavy : op == Binary::siluGrad ? kFunction : kMove;
}

Status run_unary(Stream& stream, const char* name, UnaryCell cell, double op_ns, const View& out, const View& a) {
  REQUIRE(same_shape(out, a) && out.dtype == a.dtype);
  if (!cell) return no_kernel(name, a.dtype);
  int64_t n = count(out);
  if (n == 0) return Status{};
  double ns = op_ns + static_cast<double>(2 * element_bytes(out.dtype)) / kBytesPerNs;
  if (static_cast<double>(n) * ns < kParallelNs && contiguous(out) && contiguous(a))
    return stream.run(static_cast<double>(n) * ns, [cell, n, o = out.data, p = a.data] { cell(n, o, p, 1); });
  Runs<2> r = make_runs<2>({&out, &a});
  return stream.run(static_cast<double>(n) * ns, [r, ns, cell, copy_out = copy_cell(out.dtype)] {
    apply(r, ns, copy_out, [&](int64_t m, char* o, char* const* p) { cell(m, o, p[0], r.step[1]); });
  });
}

// out's dtype is that of a and b, or bool for a comparison.
Status run_binary(Stream& stream, const char* name, BinaryCell cell, double op_ns, const View& out, const View& a,
                  const View& b) {
  REQUIRE(same_shape(out, a) && same_shape(out, b) && a.dtype == b.dtype);
  if (!cell) return no_kernel(name, a.dtype);
  int64_t n = count(out);
  if (n == 0) return Status{};
  double ns = op_ns + static_cast<double>(3 * element_bytes(a.dtype)) / kBytesPerNs;
  if (static_cast<double>(n) * ns < kParallelNs && contiguous(out) && contiguous(a) && contiguous(b)) {
    return stream.run(static_cast<double>(n) * ns,
                      [cell, n, o = out.data, p = a.data, q = b.data] { cell(n, o, p, 1, q, 1); });
  }
  Runs<3> r = make_runs<3>({&out, &a, &b});
  return stream.run(static_cast<double>(n) * ns, [r, ns, cell, copy_out = copy_cell(out.dtype)] {
    apply(r, ns, copy_out, [&](int64_t m, char* o, char* const* p) { cell(m, o, p[0], r.step[1], p[1], r.step[2]); });
  });
}

}  // namespace

#define UNARY(name)                                                                             \
  Status name(Stream& stream, View out, View a) {                                               \
    UnaryCell cell = kernels().unary[static_cast<int>(Unary::name)][static_cast<int>(a.dtype)]; \
    return run_unary(stream, #name, cell, unary_ns(Unary::name), out, a);                       \
  }
UNARY(neg)
UNARY(abs)
UNARY(sign)
UNARY(floor)
UNARY(ceil)
UNARY(round)
UNARY(exp)
UNARY(log)
UNARY(log1p)
UNARY(sqrt)
UNARY(rsqrt)
UNARY(sin)
UNARY(cos)
UNARY(tanh)
UNARY(sigmoid)
UNARY(relu)
UNARY(gelu)
UNARY(silu)
UNARY(erf)
#undef UNARY

#define BINARY(name)                                                                               \
  Status name(Stream& stream, View out, View a, View b) {                                          \
    REQUIRE(out.dtype == a.dtype);                                                                 \
    BinaryCell cell = kernels().binary[static_cast<int>(Binary::name)][static_cast<int>(a.dtype)]; \
    return run_binary(stream, #name, cell, binary_ns(Binary::name), out, a, b);                    \
  }
BINARY(add)
BINARY(sub)
BINARY(mul)
BINARY(div)
BINARY(maximum)
BINARY(minimum)
BINARY(reluGrad)
BINARY(geluGrad)
BINARY(siluGrad)
BINARY(sigmoidGrad)
BINARY(tanhGrad)
#undef BINARY

Status pow(Stream& stream, View out, View a, View b) {
  REQUIRE(out.dtype == a.dtype);
  BinaryCell cell = kernels().binary[static_cast<int>(Binary::pow)][static_cast<int>(a.dtype)];
  return run_binary(stream, "pow", cell, binary_ns(Binary::pow), out, a, b);
}

#define COMPARE(name)                                                                                \
  Status name(Stream& stream, View out, View a, View b) {                                            \
    REQUIRE(out.dtype == DType::bool_);                                                              \
    BinaryCell cell = kernels().compare[static_cast<int>(Compare::name)][static_cast<int>(a.dtype)]; \
    return run_binary(stream, #name, cell, kMove, out, a, b);                                        \
  }
COMPARE(eq)
COMPARE(ne)
COMPARE(lt)
COMPARE(le)
COMPARE(gt)
COMPARE(ge)
#undef COMPARE

Status where(Stream& stream, View out, View condition, View a, View b) {
  REQUIRE(same_shape(out, condition) && same_shape(out, a) && same_shape(out, b));
  REQUIRE(condition.dtype == DType::bool_ && out.dtype == a.dtype && out.dtype == b.dtype);
  WhereCell cell = kernels().where[static_cast<int>(out.dtype)];
  if (!cell) return no_kernel("where", out.dtype);
  if (count(out) == 0) return Status{};
  double ns = kMove + static_cast<double>(1 + 3 * element_bytes(out.dtype)) / kBytesPerNs;
  Runs<4> r = make_runs<4>({&out, &condition, &a, &b});
  return stream.run(static_cast<double>(count(out)) * ns, [r, ns, cell, copy_out = copy_cell(out.dtype)] {
    apply(r, ns, copy_out, [&](int64_t m, char* o, char* const* p) {
      cell(m, o, reinterpret_cast<const uint8_t*>(p[0]), r.step[1], p[1], r.step[2], p[2], r.step[3]);
    });
  });
}

Status clamp(Stream& stream, View out, View a, f64 low, f64 high) {
  REQUIRE(same_shape(out, a) && out.dtype == a.dtype);
  ClampCell cell = kernels().clamp[static_cast<int>(a.dtype)];
  if (!cell) return no_kernel("clamp", a.dtype);
  if (count(out) == 0) return Status{};
  double ns = kMove + static_cast<double>(2 * element_bytes(out.dtype)) / kBytesPerNs;
  Runs<2> r = make_runs<2>({&out, &a});
  return stream.run(static_cast<double>(count(out)) * ns, [r, ns, low, high, cell, copy_out = copy_cell(out.dtype)] {
    apply(r, ns, copy_out, [&](int64_t m, char* o, char* const* p) { cell(m, o, p[0], r.step[1], low, high); });
  });
}

}  // namespace kerf::ops
