// Cross-entropy over logits [n, c] with integer labels, PyTorch's label smoothing, and an ignored label.
//
//   loss = logsum - (1 - smoothing) logit[label] - smoothing / c sum(logits)
//
// computed relative to the row's maximum, so that large logits do not cancel.
#include <cmath>

#include "../core/contracts.h"
#include "ops.h"
#include "row_walk.h"
#include "scalar.h"

namespace kerf::ops {
namespace {

// The lowest row with a label outside [0, c): pool threads find it, the stream's thread reports it.
struct BadLabel {
  std::atomic<int64_t> row{INT64_MAX};

  void found(int64_t at) {
    int64_t seen = row.load();
    while (at < seen && !row.compare_exchange_weak(seen, at)) {
    }
  }
  void report(const int64_t* labels, int64_t stride, int64_t classes) const {
    if (row == INT64_MAX) return;
    Stream::fail(Code::range, "crossEntropy: label %lld at row %lld is outside [0, %lld)",
                 static_cast<long long>(labels[row * stride]), static_cast<long long>(row),
                 static_cast<long long>(classes));
  }
};

}  // namespace

Status crossEntropy(Stream& stream, View loss, View logsum, View logits, View labels, i64 ignoreIndex, f64 smoothing) {
  REQUIRE(logits.rank == 2);
  REQUIRE(is_batch(loss, DType::float32_, logits) && is_batch(logsum, DType::float32_, logits));
  REQUIRE(is_batch(labels, DType::int64_, logits));
  LogSumCell cell = kernels().log_sum[static_cast<int>(logits.dtype)];
  if (!cell) return no_kernel("crossEntropy", logits.dtype);
  double ns = 0.5 * static_cast<double>(count(logits)) + 20 * static_cast<double>(logits.shape[0]) + 100;
  return stream.run(ns, [=] {
    int64_t c = logits.shape[1];
    const int64_t* label = static_cast<const int64_t*>(labels.data);
    BadLabel bad;
    for_rows<1>("crossEntropy", {&logits}, 0, ns, [&](int64_t row, char* const(&p)[1]) {
      LogSum sums;
      cell(c, p[0], &sums);
      static_cast<float*>(logsum.data)[row * logsum.stride[0]] = sums.max + sums.log_sum;
      float& out = static_cast<float*>(loss.data)[row * loss.stride[0]];
      int64_t at = label[row * labels.stride[0]];
      if (at == ignoreIndex) {
        out = 0;
      } else if (at < 0 || at >= c) {
        out = NAN;
        bad.found(row);
      } else {
        double target = static_cast<double>(get_float(logits.dtype, p[0], at)) - static_cast<double>(sums.max);
        double value = static_cast<double>(sums.log_sum) - (1 - smoothing) * target;
        if (smoothing > 0)
          value -= smoothing / static_cast<double>(c) * sums.sum;  // else a logit of -inf would make 0 * inf
        out = static_cast<float>(value);
      }
    });
    bad.report(label, labels.stride[0], c);
  });
}

Status crossEntropyGrad(Stream& stream, View dlogits, View grad, View logits, View logsum, View labels, i64 ignoreIndex,
                        f64 smoothing) {
  REQUIRE(logits.rank == 2 && same_shape(dlogits, logits) && dlogits.dtype == logits.dtype);
  REQUIRE(is_batch(grad, DType::float32_, logits) && is_batch(logsum, DType::float32_, logits));
  REQUIRE(is_batch(labels, DType::int64_, logits));
  CrossEntropyGradCell cell = kernels().cross_entropy_grad[static_cast<int>(logits.dtype)];
  if (!cell) return no_kernel("crossEntropyGrad", logits.dtype);
  double ns = 0.5 * static_cast<double>(count(logits)) + 20 * static_cast<double>(logits.shape[0]) + 100;
  return stream.run(ns, [=] {
    int64_t c = logits.shape[1];
    const int64_t* label = static_cast<const int64_t*>(labels.data);
    BadLabel bad;
    for_rows<2>("crossEntropyGrad", {&dlogits, &logits}, 1, ns, [&](int64_t row, char* const(&p)[2]) {
      int64_t at = label[row * labels.stride[0]];
      bool inside = at >= 0 && at < c;
      if (at == ignoreIndex || !inside) {
        if (at != ignoreIndex) bad.found(row);
        memset(p[0], 0, static_cast<size_t>(c * element_bytes(dlogits.dtype)));
        return;
      }
      cell(c, p[0], p[1], static_cast<const float*>(logsum.data)[row * logsum.stride[0]],
           static_cast<const float*>(grad.data)[row * grad.stride[0]],
           static_cast<float>(smoothing / static_cast<double>(c)), at, static_cast<float>(1 - smoothing));
    });
    bad.report(label, labels.stride[0], c);
  });
}

}  // namespace kerf::ops
