// qconv2d: conv2d's kernel on int8, on what qpack() packed of the [R * S * C, O] matrix of weights.
#include "../conv_bytes.cuh"

#include "bytes.h"
#include "conv_plan.h"
#include "products.h"
#include "quantize.h"

namespace kerf {
namespace cuda {
namespace ops {
namespace {

// Bytes with their border, channels last.
Status lay_bytes_last(Gpu& gpu, const QConvProblem& p, int chunks, const uint8_t** laid) {
  const ConvShape& s = p.shape;
  ByteImages images{};
  images.from = {{const_cast<void*>(p.x), p.x_type}, p.quantize};
  images.planes = static_cast<uint32_t>(s.images * s.channels);
  images.h = static_cast<uint32_t>(s.in_h), images.w = static_cast<uint32_t>(s.in_w);
  images.pad_h = static_cast<uint32_t>(s.pad_h), images.pad_w = static_cast<uint32_t>(s.pad_w);
  images.scale = p.x_scale, images.zero = p.x_zero;
  const int64_t pixels = int64_t{images.laid_h()} * images.laid_w(), n = images.planes * pixels;
  void *planes, *last;
  Status status = gpu.scratch(static_cast<size_t>(n), &planes);
  if (status.ok()) status = gpu.scratch(static_cast<size_t>(s.images * pixels * chunks * 16), &last);
  if (!status.ok()) return status;
  images.out = static_cast<uint8_t*>(planes);
  const auto size = static_cast<uint32_t>(n);
  CU_LAUNCH(lay_byte_images, blocks_for(n), threads_for(n), 0, gpu.stream(), size, images);
  status = gpu.launched("qconv2d");
  if (!status.ok()) return status;
  *laid = static_cast<const uint8_t*>(last);
  const Turn turn{static_cast<uint32_t>(s.images), 1, static_cast<uint32_t>(s.channels), static_cast<uint32_t>(chunks * 16),
                  static_cast<uint32_t>(pixels)};
  return turn_as<uint8_t>(gpu, turn, last, planes);
}

// Rows [tap][channel], the channels padded to whole chunks; as they are packed where they are such.
Status lay_packed(Gpu& gpu, const ConvShape& s, const uint8_t* packed, int64_t row, int chunks, PlainRows* rows) {
  const int64_t taps = s.kernel_h * s.kernel_w, padded = chunks * 16;
  *rows = {packed, static_cast<int>(s.out_channels), static_cast<int>(taps * padded)};
  if (s.channels == padded) return Status{};
  void* memory;
  Status status = gpu.scratch(static_cast<size_t>(s.out_channels * taps * padded), &memory);
  if (!status.ok()) return status;
  rows->data = static_cast<const uint8_t*>(memory);
  status = fill(gpu, matrix(memory, DType::uint8_, s.out_channels, taps * padded, taps * padded, 1), 0);
  if (!status.ok()) return status;
  View from{}, to{};
  from.dtype = to.dtype = DType::uint8_;
  from.rank = to.rank = 3;
  const int64_t shape[3] = {s.out_channels, taps, s.channels}, source[3] = {row, s.channels, 1}, target[3] = {taps * padded, padded, 1};
  for (int i = 0; i < 3; i++) from.shape[i] = to.shape[i] = shape[i], from.stride[i] = source[i], to.stride[i] = target[i];
  from.data = const_cast<uint8_t*>(packed);
  to.data = memory;
  return copy(gpu, to, from);
}

template <class C>
Status run(Gpu& gpu, const Patches& patches, const PlainRows& weights, const ByteImageEpilogue& epilogue) {
  using E = ByteImageEpilogue;
  const Status status = allow_shared<conv_mma<C, E>>("qconv2d", C::kSharedBytes);
  if (!status.ok()) return status;
  CU_LAUNCH((conv_mma<C, E>), tiles_of(patches.rows(), C::BM, weights.rows, C::BN, 1), dim3(C::kThreads), C::kSharedBytes,
            gpu.stream(), patches, weights, epilogue);
  return gpu.launched("qconv2d");
}

// The range of all of x, in scratch memory.
Status find_scale(Gpu& gpu, QConvProblem& p, const View& x) {
  void* found;
  Status status = gpu.scratch(8, &found);
  if (!status.ok()) return status;
  float* const scale = static_cast<float*>(found);
  int32_t* const zero = reinterpret_cast<int32_t*>(scale + 1);
  status = dynamic_scales(gpu, x, nullptr, false, scale, zero);
  p.x_scale = scale, p.x_zero = zero;
  p.quantize = Quantize::to_uint8;
  return status;
}

}  // namespace

Status qconv2d(Gpu& gpu, View out, View x, i64 quantize, OptView x_scale, OptView x_zero, View packed, OptView w_scale, OptView w_zero,
               OptView bias, i64 activation, i64 kernelH, i64 kernelW, i64 strideH, i64 strideW, i64 padH, i64 padW, i64 dilationH,
               i64 dilationW) {
  QConvProblem p;
  const Geometry geometry{1, strideH, strideW, padH, padW, dilationH, dilationW, 1, 1};
  Status status =
      describe_conv_of_bytes(p, out, x, quantize, x_scale, x_zero, kernelH, kernelW, w_scale, w_zero, bias, activation, geometry);
  if (!status.ok()) return status;
  ConvShape bordered = p.shape;  // what the kernel sees
  bordered.in_h += 2 * padH, bordered.in_w += 2 * padW;
  bordered.pad_h = bordered.pad_w = 0;
  const PackedBytes size(p.shape.channels * kernelH * kernelW, p.shape.out_channels);
  REQUIRE(holds_packed(packed, size.bytes()));
  if (count(out) == 0) return Status{};
  const double laid = static_cast<double>(p.shape.images * p.shape.channels) * static_cast<double>(bordered.in_h) * static_cast<double>(bordered.in_w);
  if (!countable_conv(bordered, DType::int8_) || !fits(count(out)) || laid >= 4e9) return too_many("qconv2d", count(out));
  if (p.quantize == Quantize::per_tensor) status = find_scale(gpu, p, x);
  const int chunks = chunks_of(p.shape.channels, DType::int8_);
  const auto* const weights = static_cast<const uint8_t*>(packed.data);
  const uint8_t* image = nullptr;
  PlainRows rows{};
  if (status.ok()) status = lay_bytes_last(gpu, p, chunks, &image);
  if (status.ok()) status = lay_packed(gpu, p.shape, weights, size.padded, chunks, &rows);
  if (!status.ok()) return status;
  return for_phases(bordered, [&](const DirectShape& phase) {  // there is one: nothing is put between pixels
    const Patches patches = patches_of(image, phase, chunks);
    int32_t* sums = nullptr;
    if (p.w_zero) {
      void* memory;
      Status status = gpu.scratch(static_cast<size_t>(patches.rows()) * 4, &memory);
      if (!status.ok()) return status;
      sums = static_cast<int32_t*>(memory);
      const auto n = static_cast<uint32_t>(patches.rows());
      CU_LAUNCH(window_sums, blocks_for(n), threads_for(n), 0, gpu.stream(), n, patches, sums);
      status = gpu.launched("qconv2d");
      if (!status.ok()) return status;
    }
    return with_result(gpu, out, p.activation, [&](const View& result, Activation fused) {
      ByteImageEpilogue e{};
      e.weight_scale = p.w_scale, e.x_scale = p.x_scale, e.bias = p.bias;
      e.weight_sum = reinterpret_cast<const int32_t*>(weights + size.sums());
      e.weight_zero = p.w_zero, e.x_zero = p.x_zero, e.window_sum = sums;
      e.one_weight_scale = p.w_scale_step == 0, e.one_weight_zero = p.w_zero_step == 0;
      e.shift = shift_of(p.quantize, p.x_type);
      e.k = static_cast<int32_t>(p.shape.channels * kernelH * kernelW);
      e.activation = fused;
      e.type = result.dtype;
      e.out = result.data;
      e.places = places_of(phase, result);
      return phase.out_channels <= 16 ? run<MmaConfig<cu::s8, 128, 16, 32, 16, 4>>(gpu, patches, rows, e)
                                      : run<MmaConfig<cu::s8, 128, 64, 64, 32, 3>>(gpu, patches, rows, e);
    });
  });
}

}  // namespace ops
}  // namespace cuda
}  // namespace kerf
