// quantize, dequantize, fakeQuantize, dynamicQuantize and pairs of 4-bit values.
#include "../quantize.cuh"

#include "../../core/quantize_contracts.h"
#include "launch.h"
#include "quantize.h"

namespace kerf {
namespace cuda {
namespace ops {
namespace {

Steps steps_of(const View& scale, const OptView& zero, f64 low, f64 high) {
  return {static_cast<const float*>(scale.data), data_of<int32_t>(zero), static_cast<float>(low), static_cast<float>(high)};
}

// Of elements of `views`, all of the first one's shape: kernel(number of elements, layout, values...).
template <int N, class Kernel, class... Values>
Status launch(Gpu& gpu, const char* op, const View* const (&views)[N], Kernel kernel, Values... values) {
  const int64_t n = count(*views[0]);
  if (n == 0) return Status{};
  if (!fits(n)) return too_many(op, n);
  const Layout<N> layout = layout_of<N>(views);
  const auto size = static_cast<uint32_t>(n);
  CU_LAUNCH(kernel, blocks_for(n), threads_for(n), 0, gpu.stream(), size, layout, values...);
  return gpu.launched(op);
}

// One of `v` for all of a, or one a row, as a view of a's shape.
View along_rows(const View& v, const View& a) {
  View spread = a;
  spread.data = v.data;
  spread.dtype = v.dtype;
  spread.stride[a.rank - 1] = 0;
  int64_t step = count(v) == 1 ? 0 : 1;
  for (int i = a.rank - 2; i >= 0; step *= a.shape[i--]) spread.stride[i] = step;
  return spread;
}

// Of a tensor's elements, a block gets 16 a thread or more.
dim3 range_blocks(int64_t n) {
  const int64_t blocks = n / (16 * kThreads);
  return dim3(static_cast<unsigned>(blocks < 1 ? 1 : blocks < kMostBlocks ? blocks : kMostBlocks));
}

// kernel(bytes, pairs, to, from, rest...) on the bytes that hold the values.
template <class Kernel, class... Rest>
Status launch_pairs(Gpu& gpu, const char* op, const View& packed, const View& values, Kernel kernel, void* to, const void* from, Rest... rest) {
  const int64_t n = count(packed);
  if (n == 0) return Status{};
  if (!fits(count(values))) return too_many(op, count(values));
  const Pairs pairs{static_cast<uint32_t>(values.shape[values.rank - 1]), static_cast<uint32_t>(packed.shape[packed.rank - 1])};
  const auto size = static_cast<uint32_t>(n);
  auto* const out = static_cast<uint8_t*>(to);
  const auto* const a = static_cast<const uint8_t*>(from);
  CU_LAUNCH(kernel, blocks_for(n), threads_for(n), 0, gpu.stream(), size, pairs, out, a, rest...);
  return gpu.launched(op);
}

}  // namespace

Status quantize(Gpu& gpu, View out, View a, View scale, OptView zero, f64 low, f64 high) {
  REQUIRE(quantizes(out, a, low, high) && scales_of(out, scale, zero));
  return with_floats("quantize", a.dtype, [&](auto type) {
    using T = decltype(type);
    return launch<4>(gpu, "quantize", {&out, &a, &scale, &or_scale(zero, scale)}, quantize_elements<T>,
                     static_cast<uint8_t*>(out.data), T{a.data}, steps_of(scale, zero, low, high));
  });
}

Status dequantize(Gpu& gpu, View out, View a, View scale, OptView zero) {
  REQUIRE(dequantizes(out, a) && scales_of(out, scale, zero));
  return with_floats("dequantize", out.dtype, [&](auto type) {
    using T = decltype(type);
    return launch<4>(gpu, "dequantize", {&out, &a, &scale, &or_scale(zero, scale)}, dequantize_elements<T>, T{out.data},
                     Integers{a.data, a.dtype}, steps_of(scale, zero, 0, 0));
  });
}

Status fakeQuantize(Gpu& gpu, View out, View a, View scale, OptView zero, f64 low, f64 high) {
  REQUIRE(same_shape(out, a) && out.dtype == a.dtype && low <= high && scales_of(out, scale, zero));
  return with_floats("fakeQuantize", a.dtype, [&](auto type) {
    using T = decltype(type);
    return launch<4>(gpu, "fakeQuantize", {&out, &a, &scale, &or_scale(zero, scale)}, fake_quantize_elements<T>, T{out.data},
                     T{a.data}, steps_of(scale, zero, low, high));
  });
}

Status fakeQuantizeGrad(Gpu& gpu, View out, View grad, View a, View scale, OptView zero, f64 low, f64 high) {
  REQUIRE(same_shape(out, a) && out.dtype == a.dtype && low <= high && scales_of(out, scale, zero));
  REQUIRE(same_shape(out, grad) && out.dtype == grad.dtype);
  return with_floats("fakeQuantizeGrad", a.dtype, [&](auto type) {
    using T = decltype(type);
    return launch<5>(gpu, "fakeQuantizeGrad", {&out, &grad, &a, &scale, &or_scale(zero, scale)}, fake_quantize_grad_elements<T>,
                     T{out.data}, T{grad.data}, T{a.data}, steps_of(scale, zero, low, high));
  });
}

Status dynamic_scales(Gpu& gpu, const View& a, const float* multiplier, bool by_row, float* scale, int32_t* zero) {
  REQUIRE(a.rank >= 1 && contiguous(a));
  const int64_t n = count(a), columns = a.shape[a.rank - 1];
  if (!fits(n)) return too_many("dynamicQuantize", n);
  if (by_row && n == 0) return Status{};
  const dim3 blocks = range_blocks(n);
  void* memory = nullptr;
  if (!by_row)
    if (const Status status = gpu.scratch(blocks.x * 2 * sizeof(float), &memory); !status.ok()) return status;
  return with_floats("dynamicQuantize", a.dtype, [&](auto type) {
    using T = decltype(type);
    const Multiplied<T> from{{a.data}, multiplier, static_cast<uint32_t>(columns)};
    const auto size = static_cast<uint32_t>(n), rows = static_cast<uint32_t>(by_row ? n / columns : 1);
    const Parts parts{static_cast<float*>(memory), gpu.counters()};
    if (by_row)
      CU_LAUNCH((row_scales<T>), row_blocks(rows), row_threads(columns), kFoldBytes, gpu.stream(), rows, from, scale, zero);
    else
      CU_LAUNCH((tensor_scale<T>), blocks, dim3(kThreads), kScaleBytes, gpu.stream(), size, from, parts, scale, zero);
    return gpu.launched("dynamicQuantize");
  });
}

Status dynamicQuantize(Gpu& gpu, View out, View scale, View zero, View a) {
  REQUIRE(quantizes_by_range(out, scale, zero, a));
  auto* const scales = static_cast<float*>(scale.data);
  auto* const zeros = static_cast<int32_t*>(zero.data);
  if (count(scale) == 0) return Status{};
  const Status status = dynamic_scales(gpu, a, nullptr, count(scale) > 1, scales, zeros);
  if (!status.ok()) return status;
  return quantize(gpu, out, a, along_rows(scale, a), OptView{along_rows(zero, a)}, 0, 255);
}

Status packInt4(Gpu& gpu, View out, View a) {
  REQUIRE(holds_pairs(out, a));
  return launch_pairs(gpu, "packInt4", out, a, pack_pairs, out.data, a.data);
}

Status unpackInt4(Gpu& gpu, View out, View a) {
  REQUIRE(holds_pairs(a, out));
  const uint32_t sign = out.dtype == DType::int8_ ? 8 : 0;
  return launch_pairs(gpu, "unpackInt4", a, out, unpack_pairs, out.data, a.data, sign);
}

}  // namespace ops
}  // namespace cuda
}  // namespace kerf
