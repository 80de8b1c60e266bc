// fill, arange, random numbers, copies. Compiled without contraction: random numbers have the bits of the CPU's.
#include "../create.cuh"

#include <cmath>

#include "launch.h"

namespace kerf {
namespace cuda {
namespace ops {
namespace {

template <class T>
Status move_as(Gpu& gpu, uint32_t n, const Layout<2>& layout, const View& out, const View& a) {
  T* const to = static_cast<T*>(out.data);
  const T* const from = static_cast<const T*>(a.data);
  CU_LAUNCH((move<T>), blocks_for(n), threads_for(n), 0, gpu.stream(), n, layout, to, from);
  return gpu.launched("copy");
}

template <class T>
Status fill_as(Gpu& gpu, uint32_t n, const Layout<1>& layout, const View& out, T value) {
  T* const to = static_cast<T*>(out.data);
  CU_LAUNCH((fill_with<T>), blocks_for(n), threads_for(n), 0, gpu.stream(), n, layout, to, value);
  return gpu.launched("fill");
}

template <class Make>
Status generate_with(Gpu& gpu, const char* op, const View& out, Make make) {
  const int64_t n = count(out);
  if (n == 0) return Status{};
  if (!fits(n)) return too_many(op, n);
  const Layout<1> layout = layout_of<1>({&out});
  const auto size = static_cast<uint32_t>(n);
  const Anything to{out.data, out.dtype};
  CU_LAUNCH((generate<Make>), blocks_for(n), threads_for(n), 0, gpu.stream(), size, layout, to, make);
  return gpu.launched(op);
}

template <class T>
Status triangle_as(Gpu& gpu, const View& out, const View& a, const Triangle& kept) {
  const int64_t n = count(out);
  if (n == 0) return Status{};
  if (!fits(n)) return too_many("tri", n);
  const Layout<2> layout = layout_of<2>({&out, &a});
  const auto size = static_cast<uint32_t>(n);
  T* const to = static_cast<T*>(out.data);
  const T* const from = static_cast<const T*>(a.data);
  CU_LAUNCH((triangle<T>), blocks_for(n), threads_for(n), 0, gpu.stream(), size, layout, to, from, kept);
  return gpu.launched("tri");
}

}  // namespace

Status copy(Gpu& gpu, View out, View a) {
  REQUIRE(same_shape(out, a));
  const int64_t n = count(out);
  if (n == 0) return Status{};
  if (!fits(n)) return too_many("copy", n);
  const Layout<2> layout = layout_of<2>({&out, &a});
  const auto size = static_cast<uint32_t>(n);
  if (out.dtype == a.dtype) switch (element_bytes(a.dtype)) {
      case 1: return move_as<uint8_t>(gpu, size, layout, out, a);
      case 2: return move_as<uint16_t>(gpu, size, layout, out, a);
      case 4: return move_as<uint32_t>(gpu, size, layout, out, a);
      default: return move_as<unsigned long long>(gpu, size, layout, out, a);
    }
  const Anything to{out.data, out.dtype}, from{a.data, a.dtype};
  CU_LAUNCH(convert, blocks_for(n), threads_for(n), 0, gpu.stream(), size, layout, to, from);
  return gpu.launched("copy");
}

Status fill(Gpu& gpu, View out, f64 value) {
  const int64_t n = count(out);
  if (n == 0) return Status{};
  if (!fits(n)) return too_many("fill", n);
  const Layout<1> layout = layout_of<1>({&out});
  const auto size = static_cast<uint32_t>(n);
  const auto bits = static_cast<unsigned long long>(make_element(out.dtype, value).i64);
  switch (element_bytes(out.dtype)) {
    case 1: return fill_as(gpu, size, layout, out, static_cast<uint8_t>(bits));
    case 2: return fill_as(gpu, size, layout, out, static_cast<uint16_t>(bits));
    case 4: return fill_as(gpu, size, layout, out, static_cast<uint32_t>(bits));
    default: return fill_as(gpu, size, layout, out, bits);
  }
}

Status arange(Gpu& gpu, View out, f64 start, f64 step) {
  const int64_t n = count(out);
  if (n == 0) return Status{};
  if (!fits(n)) return too_many("arange", n);
  auto whole = [](double x) { return x > -0x1p53 && x < 0x1p53 && x == static_cast<double>(static_cast<int64_t>(x)); };
  const Range range{start, step, !is_floating(out.dtype) && whole(start) && whole(step)};
  const Layout<1> layout = layout_of<1>({&out});
  const auto size = static_cast<uint32_t>(n);
  const Anything to{out.data, out.dtype};
  CU_LAUNCH(count_up, blocks_for(n), threads_for(n), 0, gpu.stream(), size, layout, to, range);
  return gpu.launched("arange");
}

Status tri(Gpu& gpu, View out, View a, i64 k, i64 upper) {
  REQUIRE(same_shape(out, a) && out.dtype == a.dtype && out.rank >= 2);
  const Triangle kept{static_cast<uint32_t>(out.shape[out.rank - 2]), static_cast<uint32_t>(out.shape[out.rank - 1]), k, upper != 0};
  switch (element_bytes(out.dtype)) {
    case 1: return triangle_as<uint8_t>(gpu, out, a, kept);
    case 2: return triangle_as<uint16_t>(gpu, out, a, kept);
    case 4: return triangle_as<uint32_t>(gpu, out, a, kept);
    default: return triangle_as<unsigned long long>(gpu, out, a, kept);
  }
}

Status oneHot(Gpu& gpu, View out, View index) {
  REQUIRE(out.rank == index.rank + 1 && index.dtype == DType::int64_);
  const int64_t n = count(out), classes = out.shape[index.rank];
  View spread = index;
  spread.rank = out.rank;
  spread.shape[index.rank] = classes;
  spread.stride[index.rank] = 0;
  REQUIRE(same_shape(spread, out));
  if (n == 0) return Status{};
  if (!fits(n)) return too_many("oneHot", n);
  const Layout<2> layout = layout_of<2>({&out, &spread});
  const auto size = static_cast<uint32_t>(n), width = static_cast<uint32_t>(classes);
  const Anything to{out.data, out.dtype};
  const auto* const at = static_cast<const long long*>(index.data);
  const Fault fault = gpu.may_fail("oneHot: the index at position %%llu is outside [0, %lld)", static_cast<long long>(classes));
  CU_LAUNCH(one_hot, blocks_for(n), threads_for(n), 0, gpu.stream(), size, layout, to, at, width, fault);
  return gpu.launched("oneHot");
}

Status randUniform(Gpu& gpu, View out, f64 low, f64 high, i64 seed_, i64 offset_) {
  const auto seed = static_cast<uint64_t>(seed_), offset = static_cast<uint64_t>(offset_);
  if (!is_floating(out.dtype)) {
    REQUIRE(out.dtype != DType::bool_ && high - low >= 0 && high - low <= 0x1p32 && low >= -0x1p53 && high <= 0x1p53);
    return generate_with(gpu, "randUniform", out,
                         UniformInteger{seed, offset, static_cast<int64_t>(low), static_cast<uint64_t>(high - low)});
  }
  const int bits = out.dtype == DType::float32_ ? 24 : out.dtype == DType::float16_ ? 11 : 8;
  return generate_with(gpu, "randUniform", out,
                       Uniform{seed, offset, bits, static_cast<float>(low), static_cast<float>(high - low),
                               last_below(out.dtype, high)});
}

Status randNormal(Gpu& gpu, View out, f64 mean, f64 std_, i64 seed, i64 offset) {
  REQUIRE(is_floating(out.dtype));
  return generate_with(gpu, "randNormal", out,
                       Normal{static_cast<uint64_t>(seed), static_cast<uint64_t>(offset), static_cast<float>(mean),
                              static_cast<float>(std_)});
}

Status dropout(Gpu& gpu, View out, View mask, View a, f64 p, i64 seed_, i64 offset_) {
  REQUIRE(same_shape(out, a) && same_shape(out, mask) && out.dtype == a.dtype && mask.dtype == DType::bool_);
  REQUIRE(is_floating(out.dtype) && p >= 0 && p <= 1);
  const int64_t n = count(out);
  if (n == 0) return Status{};
  if (!fits(n)) return too_many("dropout", n);
  const auto threshold = static_cast<uint32_t>(std::ceil(p * 0x1p24));
  const float scale = p < 1 ? static_cast<float>(1 / (1 - p)) : 0.0f;
  const Layout<3> layout = layout_of<3>({&out, &mask, &a});
  const auto size = static_cast<uint32_t>(n);
  const auto seed = static_cast<uint64_t>(seed_), offset = static_cast<uint64_t>(offset_);
  const Anything to{out.data, out.dtype}, from{a.data, a.dtype};
  auto* const kept = static_cast<uint8_t*>(mask.data);
  CU_LAUNCH(drop, blocks_for(n), threads_for(n), 0, gpu.stream(), size, layout, to, kept, from, seed, offset, threshold, scale);
  return gpu.launched("dropout");
}

}  // namespace ops
}  // namespace cuda
}  // namespace kerf
