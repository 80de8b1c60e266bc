#include "../batch_norm.cuh"

#include "../../core/image_contracts.h"
#include "launch.h"

namespace kerf {
namespace cuda {
namespace ops {
namespace {

float* floats_of(const View& v) { return static_cast<float*>(v.data); }
float* floats_of(const OptView& v) { return present(v) ? static_cast<float*>(v.data) : nullptr; }

Channels channels_of(const View& a) {
  return {static_cast<uint32_t>(a.shape[0]), static_cast<uint32_t>(a.shape[1]), static_cast<uint32_t>(a.shape[2])};
}

// Calls body(team, grid, block) for what a channel of this shape wants: as reduce.cuh, lines of neighbours or neighbouring lines.
template <class Body>
void with_team(const Channels& shape, Body&& body) {
  const uint32_t size = shape.n * shape.s;
  if (shape.s == 1 && (shape.c >= 32 || size <= 32))
    body(ThreadTeam{}, blocks_for(shape.c), threads_for(shape.c));
  else
    body(BlockTeam{}, row_blocks(shape.c), row_threads(size));
}

}  // namespace

Status batchNorm(Gpu& gpu, View out, View mean, View rstd, View a, OptView weight, OptView bias, OptView runningMean,
                 OptView runningVar, f64 momentum, f64 eps, i64 training) {
  REQUIRE(is_channels_of_images(a) && same_shape(out, a) && contiguous(out) && out.dtype == a.dtype);
  REQUIRE(is_channel_vector(mean, a) && is_channel_vector(rstd, a));
  REQUIRE(may_be_channel_vector(weight, a) && may_be_channel_vector(bias, a));
  REQUIRE(may_be_channel_vector(runningMean, a) && may_be_channel_vector(runningVar, a));
  REQUIRE(present(runningMean) == present(runningVar) && (training || present(runningMean)));
  if (a.shape[1] == 0) return Status{};
  if (!fits(count(a))) return too_many("batchNorm", count(a));
  return with_floats("batchNorm", a.dtype, [&](auto type) {
    using T = decltype(type);
    const Channels shape = channels_of(a);
    const auto n = static_cast<uint32_t>(count(a));
    const T to{out.data}, from{a.data};
    const ChannelStatistics found{floats_of(mean), floats_of(rstd), floats_of(runningMean), floats_of(runningVar)};
    const ChannelTerms by{found.mean, found.rstd, floats_of(weight), floats_of(bias)};
    if (training)
      with_team(shape, [&](auto team, dim3 grid, dim3 block) {
        CU_LAUNCH((channel_statistics<decltype(team), T>), grid, block, kFoldBytes, gpu.stream(), shape, from, found, momentum, eps);
      });
    else
      CU_LAUNCH(given_statistics, blocks_for(shape.c), threads_for(shape.c), 0, gpu.stream(), shape.c, found, eps);
    if (n) CU_LAUNCH((normalize_channels<T>), blocks_for(n), threads_for(n), 0, gpu.stream(), n, shape, to, from, by);
    return gpu.launched("batchNorm");
  });
}

Status batchNormGrad(Gpu& gpu, View da, OptView dweight, OptView dbias, View grad, View a, View mean, View rstd, OptView weight,
                     i64 training) {
  REQUIRE(is_channels_of_images(a) && same_shape(da, a) && contiguous(da) && da.dtype == a.dtype);
  REQUIRE(same_shape(grad, a) && contiguous(grad) && grad.dtype == a.dtype);
  REQUIRE(is_channel_vector(mean, a) && is_channel_vector(rstd, a));
  REQUIRE(may_be_channel_vector(weight, a) && may_be_channel_vector(dweight, a) && may_be_channel_vector(dbias, a));
  if (a.shape[1] == 0) return Status{};
  if (!fits(count(a))) return too_many("batchNormGrad", count(a));
  void* memory;
  const Status status = gpu.scratch(static_cast<size_t>(a.shape[1]) * 2 * sizeof(float), &memory);
  if (!status.ok()) return status;
  return with_floats("batchNormGrad", a.dtype, [&](auto type) {
    using T = decltype(type);
    const Channels shape = channels_of(a);
    const auto n = static_cast<uint32_t>(count(a));
    const T to{da.data}, g{grad.data}, from{a.data};
    const ChannelTerms by{floats_of(mean), floats_of(rstd), floats_of(weight), nullptr};
    float *const mean_grad = static_cast<float*>(memory), *const slope = mean_grad + shape.c;
    const ChannelSums sums{floats_of(dweight), floats_of(dbias), mean_grad, slope};
    with_team(shape, [&](auto team, dim3 grid, dim3 block) {
      CU_LAUNCH((channel_sums<decltype(team), T>), grid, block, kFoldBytes, gpu.stream(), shape, g, from, by, sums);
    });
    if (n && training)
      CU_LAUNCH((channel_grad<false, T>), blocks_for(n), threads_for(n), 0, gpu.stream(), n, shape, to, g, from, by, mean_grad, slope);
    else if (n)
      CU_LAUNCH((channel_grad<true, T>), blocks_for(n), threads_for(n), 0, gpu.stream(), n, shape, to, g, from, by, mean_grad, slope);
    return gpu.launched("batchNormGrad");
  });
}

}  // namespace ops
}  // namespace cuda
}  // namespace kerf
