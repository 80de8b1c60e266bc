// Kernels along the last axis: softmax and its kin, norms, cross-entropy. A block takes a row at a time; statistics are float64
// sums of float32 terms, folded in one order.
#pragma once
#include "block.cuh"

namespace kerf {
namespace cuda {

// What every row kernel gets: the rows' places in N views, and the last axis.
template <int N>
struct Rows {
  uint32_t rows, columns;
  Layout<N> leading;
  int64_t step[N];
};

template <class Term>
CU_FUNCTION double row_sum(uint32_t n, uint8_t* slots, Term term) {
  double sum = 0;
  for (uint32_t i = threadIdx.x; i < n; i += blockDim.x) sum += static_cast<double>(term(i));
  return fold(sum, slots, Plus());
}
template <class Term>
CU_FUNCTION float row_max(uint32_t n, uint8_t* slots, Term term) {
  float most = -INFINITY;
  for (uint32_t i = threadIdx.x; i < n; i += blockDim.x) most = Larger()(term(i), most);
  return fold(most, slots, Larger());
}
template <class Body>
CU_FUNCTION void row_each(uint32_t n, Body body) {
  for (uint32_t i = threadIdx.x; i < n; i += blockDim.x) body(i);
}

// out, a
template <class A, bool logarithm>
__global__ void softmax_rows(Rows<2> r, A out, A a) {
  uint8_t* const slots = cu::shared_memory();
  for (uint32_t row = blockIdx.x; row < r.rows; row += gridDim.x) {
    int64_t at[2];
    locate(r.leading, row, at);
    auto x = [&](uint32_t i) { return a.own(at[1] + i * r.step[1]); };
    const float most = row_max(r.columns, slots, x);
    const double sum = row_sum(r.columns, slots, [&](uint32_t i) { return expf(x(i) - most); });
    const float scale = static_cast<float>(1 / sum), log_sum = static_cast<float>(log(sum));
    row_each(r.columns, [&](uint32_t i) {
      out.put(at[0] + i * r.step[0], logarithm ? x(i) - most - log_sum : expf(x(i) - most) * scale);
    });
  }
}

// out, grad, y: y (g - sum(g y)), or g - exp(y) sum(g) of the logarithm
template <class A, bool logarithm>
__global__ void softmax_grad_rows(Rows<3> r, A out, A grad, A y) {
  uint8_t* const slots = cu::shared_memory();
  for (uint32_t row = blockIdx.x; row < r.rows; row += gridDim.x) {
    int64_t at[3];
    locate(r.leading, row, at);
    auto g = [&](uint32_t i) { return grad.own(at[1] + i * r.step[1]); };
    auto p = [&](uint32_t i) { return y.own(at[2] + i * r.step[2]); };
    const float s = static_cast<float>(row_sum(r.columns, slots, [&](uint32_t i) { return logarithm ? g(i) : g(i) * p(i); }));
    row_each(r.columns, [&](uint32_t i) {
      out.put(at[0] + i * r.step[0], logarithm ? g(i) - expf(p(i)) * s : p(i) * (g(i) - s));
    });
  }
}

// An optional vector of some float dtype beside the columns.
struct Vector {
  Anything values;  // null: absent
  int64_t step;
  CU_FUNCTION float at(uint32_t i, float otherwise) const { return values.data ? values.get_float(i * step) : otherwise; }
};

// out, a. `mean` null: root-mean-square norm, which centres nothing.
template <class A>
__global__ void norm_rows(Rows<2> r, A out, A a, float* mean, float* rstd, Vector weight, Vector bias, double eps) {
  uint8_t* const slots = cu::shared_memory();
  for (uint32_t row = blockIdx.x; row < r.rows; row += gridDim.x) {
    int64_t at[2];
    locate(r.leading, row, at);
    auto x = [&](uint32_t i) { return a.own(at[1] + i * r.step[1]); };
    const double n = static_cast<double>(r.columns);
    const float centre = mean ? static_cast<float>(row_sum(r.columns, slots, x) / n) : 0.0f;
    const double squares = row_sum(r.columns, slots, [&](uint32_t i) { return (x(i) - centre) * (x(i) - centre); });
    const float scale = static_cast<float>(1 / sqrt(squares / n + eps));
    if (threadIdx.x == 0) {
      if (mean) cu::store_global(mean + row, centre);
      cu::store_global(rstd + row, scale);
    }
    row_each(r.columns, [&](uint32_t i) {
      out.put(at[0] + i * r.step[0], (x(i) - centre) * scale * weight.at(i, 1.0f) + bias.at(i, 0.0f));
    });
  }
}

// da, grad, a. With h = (a - mean) rstd and w = grad weight: da = rstd (w - mean(w) - h mean(w h)).
template <class A>
__global__ void norm_grad_rows(Rows<3> r, A da, A grad, A a, const float* mean, const float* rstd, Vector weight) {
  uint8_t* const slots = cu::shared_memory();
  for (uint32_t row = blockIdx.x; row < r.rows; row += gridDim.x) {
    int64_t at[3];
    locate(r.leading, row, at);
    const float centre = mean ? cu::load_global(mean + row) : 0.0f, scale = cu::load_global(rstd + row);
    auto w = [&](uint32_t i) { return grad.own(at[1] + i * r.step[1]) * weight.at(i, 1.0f); };
    auto h = [&](uint32_t i) { return (a.own(at[2] + i * r.step[2]) - centre) * scale; };
    const double n = static_cast<double>(r.columns);
    const float first = mean ? static_cast<float>(row_sum(r.columns, slots, w) / n) : 0.0f;
    const float second = static_cast<float>(row_sum(r.columns, slots, [&](uint32_t i) { return w(i) * h(i); }) / n);
    row_each(r.columns, [&](uint32_t i) { da.put(at[0] + i * r.step[0], scale * (w(i) - first - h(i) * second)); });
  }
}

// A thread a column: dweight = sum(grad (a - mean) rstd), dbias = sum(grad), over the rows in order.
template <class A>
__global__ void norm_columns(Rows<3> r, A grad, A a, const float* mean, const float* rstd, Vector dweight, Vector dbias) {
  for (uint32_t i = first_element(); i < r.columns; i += element_step()) {
    double weight = 0, bias = 0;
    for (uint32_t row = 0; row < r.rows; row++) {
      int64_t at[3];
      locate(r.leading, row, at);
      const float g = grad.get(at[1] + i * r.step[1]), centre = mean ? cu::load_global(mean + row) : 0.0f;
      weight += static_cast<double>(g * ((a.get(at[2] + i * r.step[2]) - centre) * cu::load_global(rstd + row)));
      bias += static_cast<double>(g);
    }
    if (dweight.values.data) dweight.values.put_float(i * dweight.step, static_cast<float>(weight));
    if (dbias.values.data) dbias.values.put_float(i * dbias.step, static_cast<float>(bias));
  }
}

// What both kernels of cross-entropy know of a row: its label, and whether it counts.
struct Labels {
  const long long* data;
  int64_t step;
  int64_t ignore;
  Fault fault;
  // -1: ignored; -2: outside, which is reported
  CU_FUNCTION int64_t at(uint32_t row, uint32_t classes) const {
    const int64_t label = cu::load_global(data + row * step);
    if (label == ignore) return -1;
    if (label >= 0 && label < classes) return label;
    if (threadIdx.x == 0) cu::atomic_min(fault.word, fault.launch << 32 | row);
    return -2;
  }
};

struct Statistic {
  float* data;
  int64_t step;
};

// loss = logsum - (1 - smoothing) logit[label] - smoothing / c sum(logits), relative to the row's maximum. logits: layout 0.
template <class A>
__global__ void cross_entropy_rows(CU_GRID_CONSTANT Rows<1> r, A logits, Labels labels, Statistic loss, Statistic logsum,
                                   double smoothing) {
  uint8_t* const slots = cu::shared_memory();
  for (uint32_t row = blockIdx.x; row < r.rows; row += gridDim.x) {
    int64_t at[1];
    locate(r.leading, row, at);
    auto x = [&](uint32_t i) { return logits.get(at[0] + i * r.step[0]); };
    const float most = row_max(r.columns, slots, x);
    const double exponentials = row_sum(r.columns, slots, [&](uint32_t i) { return expf(x(i) - most); });
    const double sum = row_sum(r.columns, slots, [&](uint32_t i) { return x(i) - most; });
    if (threadIdx.x != 0) continue;
    const int64_t label = labels.at(row, r.columns);
    const float log_sum = static_cast<float>(log(exponentials));
    double value = label == -1 ? 0.0 : NAN;
    if (label >= 0) {
      const double target = static_cast<double>(x(static_cast<uint32_t>(label))) - static_cast<double>(most);
      value = static_cast<double>(log_sum) - (1 - smoothing) * target;
      if (smoothing > 0) value -= smoothing / static_cast<double>(r.columns) * sum;
    }
    cu::store_global(logsum.data + row * logsum.step, most + log_sum);
    cu::store_global(loss.data + row * loss.step, static_cast<float>(value));
  }
}

// dlogits, logits: grad (exp(logit - logsum) - smoothing / c - (1 - smoothing at the label))
template <class A>
__global__ void cross_entropy_grad_rows(Rows<2> r, A dlogits, A logits, Labels labels, Statistic grad, Statistic logsum,
                                        float smooth, float confidence) {
  for (uint32_t row = blockIdx.x; row < r.rows; row += gridDim.x) {
    int64_t at[2];
    locate(r.leading, row, at);
    const int64_t label = labels.at(row, r.columns);
    const float scale = cu::load_global(grad.data + row * grad.step), shift = cu::load_global(logsum.data + row * logsum.step);
    row_each(r.columns, [&](uint32_t i) {
      const float p = expf(logits.own(at[1] + i * r.step[1]) - shift) - smooth - (i == label ? confidence : 0.0f);
      dlogits.put(at[0] + i * r.step[0], label < 0 ? 0.0f : scale * p);
    });
  }
}

}  // namespace cuda
}  // namespace kerf
