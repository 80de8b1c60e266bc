// batchNorm and its gradient on [n, c, s]: every channel's statistics are over n and s.
#include <algorithm>
#include <cmath>

#include "../core/image_contracts.h"
#include "axes.h"
#include "ops.h"
#include "scalar.h"

namespace kerf::ops {
namespace {

constexpr int64_t kTaskElements = 16384;

double batch_ns(const View& a) { return 0.5 * static_cast<double>(count(a)) + 200; }

// Channels are shared among tasks, never a channel's elements, so a result does not depend on the number of threads.
// Where s is 1 a channel is a column of [n, c] and a task takes neighbouring ones.
struct Batch {
  int64_t n, c, s, bytes;
  bool across;
  int64_t per_task, tasks;

  explicit Batch(const View& a) : n(a.shape[0]), c(a.shape[1]), s(a.shape[2]), bytes(element_bytes(a.dtype)) {
    across = s == 1;
    int64_t each = n * s > 1 ? n * s : 1;
    per_task = ceil_div(kTaskElements, each);
    // A cache line of columns at least, which no two tasks then share.
    if (across && per_task < 64) per_task = 64;
    tasks = ceil_div(c, per_task);
  }

  double size() const { return static_cast<double>(n) * static_cast<double>(s); }
  int64_t at(int64_t image, int64_t channel) const { return (image * c + channel) * s * bytes; }
};

char* bytes_of(const View& v) { return static_cast<char*>(v.data); }

struct Forward {
  View out, a;
  Batch batch;
  float *mean, *rstd, *running_mean, *running_var;
  const float *weight, *bias;
  float *scale, *shift;
  double *sums, *squares;
  double momentum, eps;
  bool training;

  // The deviations from the rounded mean, and their sum, which takes back what rounding the mean did.
  void statistics(int64_t begin, int64_t end) const {
    const Kernels& k = kernels();
    int d = static_cast<int>(a.dtype);
    double size = batch.size();
    std::fill(sums + begin, sums + end, 0.0);
    each(begin, end, [&](int64_t from, const char* p) {
      if (batch.across)
        k.sum_columns[d](batch.n, end - begin, p, batch.c, sums + from);
      else
        k.sum[d](batch.s, p, sums + from);
    });
    for (int64_t c = begin; c < end; c++) mean[c] = static_cast<float>(sums[c] / size);
    std::fill(sums + begin, sums + end, 0.0);
    std::fill(squares + begin, squares + end, 0.0);
    each(begin, end, [&](int64_t from, const char* p) {
      if (batch.across)
        k.moments_columns[d](batch.n, end - begin, p, batch.c, mean + from, sums + from, squares + from);
      else
        k.moments[d](batch.s, p, mean[from], sums + from, squares + from);
    });
    for (int64_t c = begin; c < end; c++) {
      double left = squares[c] - sums[c] * sums[c] / size;
      double variance = (left < 0 ? 0 : left) / size;
      rstd[c] = static_cast<float>(1 / std::sqrt(variance + eps));
      if (!running_mean) continue;
      move(running_mean + c, static_cast<double>(mean[c]) + sums[c] / size);
      move(running_var + c, variance * size / (size - 1));
    }
  }

  void move(float* running, double value) const {
    *running = static_cast<float>((1 - momentum) * static_cast<double>(*running) + momentum * value);
  }

  // Calls body(channel, its elements) for every run of one channel; across, once for all rows.
  template <class Body>
  void each(int64_t begin, int64_t end, Body body) const {
    if (batch.across) return body(begin, bytes_of(a) + batch.at(0, begin));
    for (int64_t c = begin; c < end; c++)
      for (int64_t i = 0; i < batch.n; i++) body(c, bytes_of(a) + batch.at(i, c));
  }

  void run(int64_t begin, int64_t end) const {
    if (training) {
      statistics(begin, end);
    } else {
      for (int64_t c = begin; c < end; c++) {
        mean[c] = running_mean[c];
        rstd[c] = static_cast<float>(1 / std::sqrt(static_cast<double>(running_var[c]) + eps));
      }
    }
    for (int64_t c = begin; c < end; c++) {
      scale[c] = weight ? weight[c] * rstd[c] : rstd[c];
      shift[c] = bias ? bias[c] : 0;
    }
    const Kernels& k = kernels();
    int d = static_cast<int>(a.dtype);
    ChannelMapCell cell = batch.across ? k.channel_map_across[d] : k.channel_map[d];
    for (int64_t c = begin; c < end; c = batch.across ? end : c + 1)
      for (int64_t i = 0; i < batch.n; i++)
        cell(batch.across ? end - begin : batch.s, bytes_of(out) + batch.at(i, c), bytes_of(a) + batch.at(i, c),
             {mean + c, scale + c, shift + c});
  }
};

struct Backward {
  View da, grad, a;
  OptView dweight, dbias;
  Batch batch;
  const float *mean, *rstd, *weight;
  float *scale, *mean_grad, *slope;
  double *sums, *dots;
  bool training;

  // With h = (a - mean) rstd: dbias = sum(grad), dweight = sum(grad h), and
  // da = weight rstd (grad - mean(grad) - h mean(grad h)). Given statistics are constants: da = weight rstd grad.
  void run(int64_t begin, int64_t end) const {
    const Kernels& k = kernels();
    int d = static_cast<int>(a.dtype);
    std::fill(sums + begin, sums + end, 0.0);
    std::fill(dots + begin, dots + end, 0.0);
    if (batch.across)
      k.channel_dots_columns[d](batch.n, end - begin, bytes_of(grad) + batch.at(0, begin),
                                bytes_of(a) + batch.at(0, begin), batch.c, mean + begin, sums + begin, dots + begin);
    else
      for (int64_t c = begin; c < end; c++)
        for (int64_t i = 0; i < batch.n; i++)
          k.channel_dots[d](batch.s, bytes_of(grad) + batch.at(i, c), bytes_of(a) + batch.at(i, c), mean[c], sums + c,
                            dots + c);
    double size = batch.size();
    for (int64_t c = begin; c < end; c++) {
      double r = static_cast<double>(rstd[c]);
      if (present(dweight)) static_cast<float*>(dweight.data)[c] = static_cast<float>(dots[c] * r);
      if (present(dbias)) static_cast<float*>(dbias.data)[c] = static_cast<float>(sums[c]);
      scale[c] = weight ? weight[c] * rstd[c] : rstd[c];
      // As the shift of the forward form's map: 0 for given statistics.
      mean_grad[c] = training ? static_cast<float>(sums[c] / size) : 0;
      slope[c] = training ? static_cast<float>(dots[c] * r * r / size) : 0;
    }
    for (int64_t c = begin; c < end; c = batch.across ? end : c + 1) {
      for (int64_t i = 0; i < batch.n; i++) {
        int64_t at = batch.at(i, c), length = batch.across ? end - begin : batch.s;
        if (training)
          (batch.across ? k.channel_grad_across : k.channel_grad)[d](
              length, bytes_of(da) + at, bytes_of(grad) + at, bytes_of(a) + at,
              {mean + c, scale + c, mean_grad + c, slope + c});
        else
          (batch.across ? k.channel_map_across : k.channel_map)[d](length, bytes_of(da) + at, bytes_of(grad) + at,
                                                                   {mean_grad + c, scale + c, slope + c});
      }
    }
  }
};

template <class Work>
void run_channels(double ns, const Work& work) {
  run_tasks(ns, work.batch.tasks, [&](int64_t task) {
    int64_t begin = task * work.batch.per_task;
    work.run(begin, std::min(begin + work.batch.per_task, work.batch.c));
  });
}

// `floats` float32 and two float64 a channel; null where there is no memory.
double* channel_scratch(const char* op, int64_t channels, int64_t floats) {
  size_t each = 2 * sizeof(double) + static_cast<size_t>(floats) * sizeof(float);
  double* memory = static_cast<double*>(scratch(Scratch::bias, static_cast<size_t>(channels) * each));
  if (!memory)
    Stream::fail(Code::out_of_memory, "%s: no memory for %lld channels", op, static_cast<long long>(channels));
  return memory;
}

}  // namespace

Status batchNorm(Stream& stream, View out, View mean, View rstd, View a, OptView weight, OptView bias,
                 OptView runningMean, OptView runningVar, f64 momentum, f64 eps, i64 training) {
  REQUIRE(is_channels_of_images(a) && same_shape(out, a) && contiguous(out) && out.dtype == a.dtype);
  REQUIRE(is_channel_vector(mean, a) && is_channel_vector(rstd, a));
  REQUIRE(may_be_channel_vector(weight, a) && may_be_channel_vector(bias, a) && may_be_channel_vector(runningMean, a) && may_be_channel_vector(runningVar, a));
  REQUIRE(present(runningMean) == present(runningVar) && (training || present(runningMean)));
  if (!kernels().channel_map[static_cast<int>(a.dtype)]) return no_kernel("batchNorm", a.dtype);
  double ns = batch_ns(a);
  return stream.run(ns, [out, mean, rstd, a, weight, bias, runningMean, runningVar, momentum, eps, training, ns] {
    int64_t c = a.shape[1];
    double* sums = channel_scratch("batchNorm", c, 2);
    if (!sums) return;
    float* floats = reinterpret_cast<float*>(sums + 2 * c);
    float* moving_mean = present(runningMean) ? static_cast<float*>(runningMean.data) : nullptr;
    float* moving_var = present(runningVar) ? static_cast<float*>(runningVar.data) : nullptr;
    run_channels(ns, Forward{out, a, Batch(a), static_cast<float*>(mean.data), static_cast<float*>(rstd.data),
                             moving_mean, moving_var, data_of<float>(weight), data_of<float>(bias), floats, floats + c,
                             sums, sums + c, momentum, eps, training != 0});
  });
}

Status batchNormGrad(Stream& stream, View da, OptView dweight, OptView dbias, View grad, View a, View mean, View rstd,
                     OptView weight, i64 training) {
  REQUIRE(is_channels_of_images(a) && same_shape(da, a) && contiguous(da) && da.dtype == a.dtype);
  REQUIRE(same_shape(grad, a) && contiguous(grad) && grad.dtype == a.dtype);
  REQUIRE(is_channel_vector(mean, a) && is_channel_vector(rstd, a));
  REQUIRE(may_be_channel_vector(weight, a) && may_be_channel_vector(dweight, a) && may_be_channel_vector(dbias, a));
  if (!kernels().channel_dots[static_cast<int>(a.dtype)]) return no_kernel("batchNormGrad", a.dtype);
  double ns = 2 * batch_ns(a);
  return stream.run(ns, [da, dweight, dbias, grad, a, mean, rstd, weight, training, ns] {
    int64_t c = a.shape[1];
    double* sums = channel_scratch("batchNormGrad", c, 3);
    if (!sums) return;
    float* floats = reinterpret_cast<float*>(sums + 2 * c);
    run_channels(ns, Backward{da, grad, a, dweight, dbias, Batch(a), static_cast<const float*>(mean.data),
                              static_cast<const float*>(rstd.data), data_of<float>(weight), floats, floats + c,
                              floats + 2 * c, sums, sums + c, training != 0});
  });
}

}  // namespace kerf::ops
