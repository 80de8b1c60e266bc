// indexSelect, gather, indexAdd, scatterAdd.
#include "../index.cuh"

#include "launch.h"

namespace kerf {
namespace cuda {
namespace ops {
namespace {

// The numbers of the indices as the user sees them: of a vector along the axis, else of every element.
View numbers_of(const View& index, int64_t axis, bool one_vector) {
  View r = contiguous_view(nullptr, DType::int64_, index);
  for (int i = 0; i < index.rank && one_vector; i++) r.stride[i] = i == axis ? 1 : 0;
  return r;
}

View without(const View& v, int64_t axis) {
  View r = v;
  if (v.rank) r.stride[axis] = 0;
  return r;
}

IndexedAxis axis_of(Gpu& gpu, const char* op, const View& v, int64_t axis) {
  const int64_t size = v.rank ? v.shape[axis] : 1, step = v.rank ? v.stride[axis] : 0;
  return {step, size,
          gpu.may_fail("%s: index number %%llu is outside [%lld, %lld)", op, static_cast<long long>(-size), static_cast<long long>(size))};
}

template <class T>
Status take_as(Gpu& gpu, const char* op, const View& out, const View& a, const View& index, const View& numbers, i64 axis) {
  const int64_t n = count(out);
  if (n == 0) return Status{};
  if (!fits(n)) return too_many(op, n);
  const View rest = without(a, axis);
  const Layout<4> layout = layout_of<4>({&out, &rest, &index, &numbers});
  const auto size = static_cast<uint32_t>(n);
  T* const to = static_cast<T*>(out.data);
  const T* const from = static_cast<const T*>(a.data);
  const auto* const at = static_cast<const long long*>(index.data);
  const IndexedAxis along = axis_of(gpu, op, a, axis);
  CU_LAUNCH((take<T>), blocks_for(n), threads_for(n), 0, gpu.stream(), size, layout, to, from, at, along);
  return gpu.launched(op);
}

Status read(Gpu& gpu, const char* op, const View& out, const View& a, const View& index, i64 axis, bool one_vector) {
  REQUIRE(out.dtype == a.dtype && index.dtype == DType::int64_);
  REQUIRE(same_shape(out, index) && a.rank == out.rank && (a.rank == 0 || (axis >= 0 && axis < a.rank)));
  for (int i = 0; i < a.rank; i++) REQUIRE(i == axis || out.shape[i] <= a.shape[i]);
  const View numbers = numbers_of(index, axis, one_vector);
  switch (element_bytes(out.dtype)) {
    case 1: return take_as<uint8_t>(gpu, op, out, a, index, numbers, axis);
    case 2: return take_as<uint16_t>(gpu, op, out, a, index, numbers, axis);
    case 4: return take_as<uint32_t>(gpu, op, out, a, index, numbers, axis);
    default: return take_as<unsigned long long>(gpu, op, out, a, index, numbers, axis);
  }
}

template <class Out, class A>
Status add_as(Gpu& gpu, const char* op, const View& out, const View& a, const View& index, const View& numbers, i64 axis, Out to,
              A from) {
  View lines = index;
  if (lines.rank) lines.shape[axis] = 1;
  const int64_t n = count(lines), length = index.rank ? index.shape[axis] : 1;
  if (n == 0 || length == 0) return Status{};
  if (!fits(count(index))) return too_many(op, count(index));
  // `lines` first: its shape is the one that is walked
  const Layout<4> walked = layout_of<4>({&lines, &out, &a, &numbers});
  Layout<4> layout = walked;
  for (int i = 0; i < layout.rank; i++) {
    layout.stride[0][i] = walked.stride[1][i];
    layout.stride[1][i] = walked.stride[2][i];
    layout.stride[2][i] = walked.stride[0][i];
  }
  const IndexLine line{static_cast<uint32_t>(length), index.rank ? a.stride[axis] : 0, index.rank ? index.stride[axis] : 0,
                       index.rank ? numbers.stride[axis] : 0};
  const auto size = static_cast<uint32_t>(n);
  const auto* const at = static_cast<const long long*>(index.data);
  const IndexedAxis along = axis_of(gpu, op, out, axis);
  CU_LAUNCH((add_at<Out, A>), blocks_for(n), threads_for(n), 0, gpu.stream(), size, layout, to, from, at, along, line);
  return gpu.launched(op);
}

Status add(Gpu& gpu, const char* op, const View& out, const View& a, const View& index, i64 axis, bool one_vector) {
  REQUIRE(out.dtype == a.dtype && index.dtype == DType::int64_);
  REQUIRE(index.rank == a.rank && out.rank == a.rank && (a.rank == 0 || (axis >= 0 && axis < a.rank)));
  for (int i = 0; i < a.rank; i++) REQUIRE(index.shape[i] <= a.shape[i] && (i == axis || index.shape[i] <= out.shape[i]));
  const View numbers = numbers_of(index, axis, one_vector);
  if (a.dtype == DType::bool_) return no_kernel(op, a.dtype);
  if (!is_floating(a.dtype))
    return add_as(gpu, op, out, a, index, numbers, axis, Integers{out.data, out.dtype}, Integers{a.data, a.dtype});
  using F32 = Floats<Floating<DType::float32_>>;
  if (a.dtype == DType::float32_) return add_as(gpu, op, out, a, index, numbers, axis, F32{out.data}, F32{a.data});
  // 16-bit floats are summed in float32 and rounded once.
  void* memory;
  Status status = gpu.scratch(static_cast<size_t>(count(out)) * 4, &memory);
  if (!status.ok()) return status;
  const View wide = contiguous_view(memory, DType::float32_, out);
  status = copy(gpu, wide, out);
  if (status.ok())
    status = with_floats(op, a.dtype, [&](auto type) {
      return add_as(gpu, op, wide, a, index, numbers, axis, F32{wide.data}, decltype(type){a.data});
    });
  return status.ok() ? copy(gpu, out, wide) : status;
}

}  // namespace

Status indexSelect(Gpu& gpu, View out, View a, View index, i64 axis) {
  REQUIRE(index.rank == 1 && axis >= 0 && axis < a.rank && out.rank == a.rank && out.shape[axis] == index.shape[0]);
  return read(gpu, "indexSelect", out, a, spread(index, out, axis), axis, true);
}
Status gather(Gpu& gpu, View out, View a, View index, i64 axis) { return read(gpu, "gather", out, a, index, axis, false); }
Status indexAdd(Gpu& gpu, View out, View a, View index, i64 axis) {
  REQUIRE(index.rank == 1 && axis >= 0 && axis < a.rank && out.rank == a.rank && a.shape[axis] == index.shape[0]);
  return add(gpu, "indexAdd", out, a, spread(index, a, axis), axis, true);
}
Status scatterAdd(Gpu& gpu, View out, View a, View index, i64 axis) { return add(gpu, "scatterAdd", out, a, index, axis, false); }

}  // namespace ops
}  // namespace cuda
}  // namespace kerf
