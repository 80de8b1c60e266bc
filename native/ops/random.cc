// Drivers of the random ops. One code path in baseline C++ without contraction: the bits are the same on every target.
#include <cmath>

#include "../core/element.h"
#include "../core/philox.h"
#include "iterate.h"
#include "ops.h"
#include "targets.h"

namespace kerf::ops {
namespace {

constexpr int64_t kChunk = 256;  // elements made at a time; a multiple of a block's four words

// The words of elements [first, first + n), n <= kChunk: covers whole blocks, so the answer points into `storage`.
const uint32_t* words(uint64_t seed, uint64_t first, int64_t n, uint32_t (&storage)[kChunk + 8]) {
  uint64_t block = first / 4, last = (first + static_cast<uint64_t>(n) + 3) / 4;
  for (uint64_t b = block; b < last; b++) {
    Words w = philox(seed, b);
    memcpy(storage + 4 * (b - block), w.w, 16);
  }
  return storage + first % 4;
}

CopyCell copy_cell(DType from, DType to) { return kernels().copy[static_cast<int>(from)][static_cast<int>(to)]; }

// Fills `out` with what make(first, n, values) puts into a buffer of at most kChunk values of type T, dtype `from`.
template <class T, class Make>
Status generate(Stream& stream, const View& out, double ns, DType from, Make make) {
  int64_t n = count(out);
  if (n == 0) return Status{};
  Runs<1> r = make_runs<1>({&out}, Order::logical);
  return stream.run(static_cast<double>(n) * ns, [r, ns, make, cell = copy_cell(from, out.dtype)] {
    walk_parallel(r, ns, [&](int64_t first, int64_t m, char* const(&at)[1]) {
      T values[kChunk];
      for (int64_t i = 0; i < m; i += kChunk) {
        int64_t chunk = m - i < kChunk ? m - i : kChunk;
        make(first + i, chunk, values);
        cell(chunk, at[0] + i * r.step[0] * r.bytes[0], r.step[0], values, 1);
      }
    });
  });
}

}  // namespace

// [low, high) with as many bits as the dtype has; integers are uniform over low .. high - 1.
Status randUniform(Stream& stream, View out, f64 low, f64 high, i64 seed_, i64 offset_) {
  auto seed = static_cast<uint64_t>(seed_), offset = static_cast<uint64_t>(offset_);
  if (!is_floating(out.dtype)) {
    REQUIRE(out.dtype != DType::bool_ && high - low >= 0 && high - low <= 0x1p32 && low >= -0x1p53 && high <= 0x1p53);
    auto first_value = static_cast<int64_t>(low);
    auto span = static_cast<uint64_t>(high - low);
    return generate<int64_t>(stream, out, 2.5, DType::int64_, [=](int64_t first, int64_t n, int64_t* values) {
      uint32_t storage[kChunk + 8];
      const uint32_t* w = words(seed, offset + static_cast<uint64_t>(first), n, storage);
      for (int64_t i = 0; i < n; i++) values[i] = first_value + static_cast<int64_t>(w[i] * span >> 32);
    });
  }
  int bits = out.dtype == DType::float32_ ? 24 : out.dtype == DType::float16_ ? 11 : 8;
  float unit = 1.0f / static_cast<float>(1 << bits);
  float base = static_cast<float>(low), span = static_cast<float>(high - low), last = last_below(out.dtype, high);
  return generate<float>(stream, out, 2, DType::float32_, [=](int64_t first, int64_t n, float* values) {
    uint32_t storage[kChunk + 8];
    const uint32_t* w = words(seed, offset + static_cast<uint64_t>(first), n, storage);
    for (int64_t i = 0; i < n; i++) {
      float v = base + static_cast<float>(static_cast<int32_t>(w[i] >> (32 - bits))) * unit * span;
      values[i] = v > last ? last : v;
    }
  });
}

Status randNormal(Stream& stream, View out, f64 mean, f64 std_, i64 seed_, i64 offset_) {
  REQUIRE(is_floating(out.dtype));
  auto seed = static_cast<uint64_t>(seed_), offset = static_cast<uint64_t>(offset_);
  float centre = static_cast<float>(mean), scale = static_cast<float>(std_);
  return generate<float>(stream, out, 8, DType::float32_, [=](int64_t first, int64_t n, float* values) {
    uint32_t storage[kChunk + 8];
    float z[kChunk + 8];
    uint64_t start = offset + static_cast<uint64_t>(first);
    const uint32_t* w = words(seed, start, n, storage) - start % 2;  // pairs begin at even elements
    int64_t total = n + static_cast<int64_t>(start % 2);
    for (int64_t i = 0; i < total; i += 2) normal_pair(w[i], w[i + 1], z + i);
    for (int64_t i = 0; i < n; i++) values[i] = centre + scale * z[i + static_cast<int64_t>(start % 2)];
  });
}

Status dropout(Stream& stream, View out, View mask, View a, f64 p, i64 seed_, i64 offset_) {
  REQUIRE(same_shape(out, a) && same_shape(out, mask) && out.dtype == a.dtype && mask.dtype == DType::bool_);
  REQUIRE(is_floating(out.dtype) && p >= 0 && p <= 1);
  int64_t n = count(out);
  if (n == 0) return Status{};
  auto seed = static_cast<uint64_t>(seed_), offset = static_cast<uint64_t>(offset_);
  auto threshold = static_cast<uint32_t>(std::ceil(p * 0x1p24));  // keep where the word's upper 24 bits reach it
  float scale = p < 1 ? static_cast<float>(1 / (1 - p)) : 0.0f;
  double ns = 2.5;
  Runs<3> r = make_runs<3>({&out, &mask, &a}, Order::logical);
  return stream.run(static_cast<double>(n) * ns, [=, dtype = out.dtype] {
    CopyCell to_float32 = copy_cell(dtype, DType::float32_), from_float32 = copy_cell(DType::float32_, dtype);
    CopyCell copy_mask = copy_cell(DType::bool_, DType::bool_);
    walk_parallel(r, ns, [&](int64_t first, int64_t m, char* const(&at)[3]) {
      for (int64_t i = 0; i < m; i += kChunk) {
        int64_t chunk = m - i < kChunk ? m - i : kChunk;
        uint32_t storage[kChunk + 8];
        uint8_t keep[kChunk];
        float values[kChunk];
        const uint32_t* w = words(seed, offset + static_cast<uint64_t>(first + i), chunk, storage);
        to_float32(chunk, values, 1, at[2] + i * r.step[2] * r.bytes[2], r.step[2]);
        for (int64_t j = 0; j < chunk; j++) {
          keep[j] = w[j] >> 8 >= threshold;
          values[j] = keep[j] ? values[j] * scale : 0.0f;
        }
        from_float32(chunk, at[0] + i * r.step[0] * r.bytes[0], r.step[0], values, 1);
        copy_mask(chunk, at[1] + i * r.step[1], r.step[1], keep, 1);
      }
    });
  });
}

}  // namespace kerf::ops
