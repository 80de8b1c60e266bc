// Checks softmax and its kin, layerNorm, rmsNorm and their gradients against float64 loops.
#include "check.h"

namespace check {

static const Shape kRowShapes[] = {{1},       {3},       {2, 4},     {5, 7},     {3, 8},      {3, 15},
                                   {2, 16},   {3, 17},   {64, 10},   {3, 4, 33}, {2, 3, 127}, {70, 256},
                                   {2, 1021}, {3, 4099}, {150, 301}, {1, 70001}};
static bool is_long(const Shape& shape) { return shape.back() > 300; }
static constexpr double kUnit = 0x1p-24;

using RowFunction = std::function<void(const double* x, const double* y, int64_t n, double* want, double* bound)>;

static void over_rows(const Tensor& a, const Tensor& b, const RowFunction& f, std::vector<double>& want,
                      std::vector<double>& bound) {
  std::vector<double> x = a.values(), y = b.values();
  int64_t n = a.view.shape[a.view.rank - 1];
  want.resize(x.size());
  bound.resize(x.size());
  for (int64_t i = 0; n > 0 && i < a.size(); i += n)
    f(x.data() + i, y.data() + i, n, want.data() + i, bound.data() + i);
}

// exp is within 2 ulp, a sum within 40, x - max within half an ulp of |x| + |max|.
static void softmax_row(const double* x, const double*, int64_t n, double* want, double* bound) {
  double m = x[0], sum = 0;
  for (int64_t i = 0; i < n; i++) m = std::max(m, x[i]);
  for (int64_t i = 0; i < n; i++) sum += std::exp(x[i] - m);
  for (int64_t i = 0; i < n; i++) {
    want[i] = std::exp(x[i] - m) / sum;
    bound[i] = kUnit * want[i] * (50 + std::fabs(x[i] - m));
  }
}
static void log_softmax_row(const double* x, const double*, int64_t n, double* want, double* bound) {
  double m = x[0], sum = 0;
  for (int64_t i = 0; i < n; i++) m = std::max(m, x[i]);
  for (int64_t i = 0; i < n; i++) sum += std::exp(x[i] - m);
  for (int64_t i = 0; i < n; i++) {
    want[i] = x[i] - m - std::log(sum);
    bound[i] = kUnit * (50 + std::fabs(x[i] - m) + std::log(sum));
  }
}
static void softmax_grad_row(const double* g, const double* y, int64_t n, double* want, double* bound) {
  double dot = 0, magnitude = 0;
  for (int64_t i = 0; i < n; i++) {
    dot += g[i] * y[i];
    magnitude += std::fabs(g[i] * y[i]);
  }
  for (int64_t i = 0; i < n; i++) {
    want[i] = y[i] * (g[i] - dot);
    bound[i] = 45 * kUnit * std::fabs(y[i]) * (magnitude + std::fabs(g[i]));
  }
}
static void log_softmax_grad_row(const double* g, const double* y, int64_t n, double* want, double* bound) {
  double sum = 0, magnitude = 0;
  for (int64_t i = 0; i < n; i++) {
    sum += g[i];
    magnitude += std::fabs(g[i]);
  }
  for (int64_t i = 0; i < n; i++) {
    want[i] = g[i] - std::exp(y[i]) * sum;
    bound[i] = 45 * kUnit * (std::exp(y[i]) * magnitude + std::fabs(g[i]));
  }
}

void check_rows() {
  Stream& s = stream();
  for (const Shape& shape : kRowShapes)
    for (DType d : kFloats)
      for (Layout layout : kInputs)
        for (Layout out_layout : {Layout::contiguous, Layout::permuted}) {
          if (is_long(shape) && layout > Layout::permuted) continue;
          Tensor a(d, shape, layout), y(d, shape, layout), g(d, shape), out(d, shape, out_layout);
          a.fill(8);
          g.fill();
          std::vector<double> want, bound;
          over_rows(a, a, softmax_row, want, bound);
          done("softmax", ops::softmax(s, out.view, a.view));
          compare(describe("softmax", a, layout), out, want, bound);

          over_rows(a, a, log_softmax_row, want, bound);
          done("logSoftmax", ops::logSoftmax(s, out.view, a.view));
          compare(describe("logSoftmax", a, layout), out, want, bound);

          y.fill(0.5, 0.5);
          over_rows(g, y, softmax_grad_row, want, bound);
          done("softmaxGrad", ops::softmaxGrad(s, out.view, g.view, y.view));
          compare(describe("softmaxGrad", y, layout), out, want, bound);

          y.fill(4, -4);
          over_rows(g, y, log_softmax_grad_row, want, bound);
          done("logSoftmaxGrad", ops::logSoftmaxGrad(s, out.view, g.view, y.view));
          compare(describe("logSoftmaxGrad", y, layout), out, want, bound);
        }
  for (DType d : kFloats)
    for (int64_t n : {5, 40}) {
      Tensor a(d, {6, n}), out(d, {6, n});
      a.fill(3);
      for (int64_t i = 0; i < n; i++) a.set(i, -INFINITY);          // nothing but -inf: NaN
      for (int64_t i = 0; i < n - 1; i++) a.set(n + i, -INFINITY);  // masked but for one: 1
      a.set(2 * n + 3, NAN);
      a.set(3 * n + 4, INFINITY);  // inf - inf: NaN
      a.set(4 * n, -INFINITY);
      for (int64_t i = 0; i < n; i++) a.set(5 * n + i, 60000 - 64 * static_cast<double>(i));
      std::vector<double> want, bound;
      over_rows(a, a, softmax_row, want, bound);
      for (int64_t i = 0; i < 6 * n; i++) {
        int64_t row = i / n;
        size_t at = static_cast<size_t>(i);
        if (row == 0 || row == 2 || row == 3) want[at] = NAN;
        if (std::isnan(bound[at]) || std::isinf(bound[at])) bound[at] = 0;
      }
      done("softmax", ops::softmax(s, out.view, a.view));
      compare(describe("softmax of special rows", a, Layout::contiguous), out, want, bound);
    }
  Tensor empty(DType::float32_, {3, 0}), nothing(DType::float32_, {3, 0});
  done("softmax of empty rows", ops::softmax(s, nothing.view, empty.view));
  Tensor scalar(DType::float32_, {}), one(DType::float32_, {});
  scalar.set(0, 3);
  done("softmax of a scalar", ops::softmax(s, one.view, scalar.view));
  compare("softmax of a scalar", one, {1}, {0});
  Tensor same(DType::float32_, {3, 40});
  same.fill();
  std::vector<double> want, bound;
  over_rows(same, same, softmax_row, want, bound);
  done("softmax in place", ops::softmax(s, same.view, same.view));
  compare("softmax in place", same, want, bound);
}

struct Statistics {
  double mean, rstd, deviation;
};

static Statistics statistics(const double* x, int64_t n, bool centered, double eps) {
  double count = static_cast<double>(n), mean = 0, squares = 0;
  for (int64_t i = 0; i < n && centered; i++) mean += x[i] / count;
  for (int64_t i = 0; i < n; i++) squares += (x[i] - mean) * (x[i] - mean) / count;
  return {mean, 1 / std::sqrt(squares + eps), std::sqrt(squares)};
}

static void check_norm(bool centered, const Shape& shape, DType d, Layout layout, bool with_weight, double center) {
  Stream& s = stream();
  const double eps = 1e-5;
  int64_t n = shape.back();
  Shape leading(shape.begin(), shape.end() - 1);
  Tensor a(d, shape, layout), g(d, shape, layout), out(d, shape), da(d, shape);
  Tensor mean(DType::float32_, leading), rstd(DType::float32_, leading);
  Tensor weight(d, {n}, Layout::spaced), bias(d, {n}), dweight(d, {n}), dbias(DType::float32_, {n}, Layout::spaced);
  a.fill(2, center);
  g.fill();
  weight.fill(1, 1);
  bias.fill();
  OptView none{};
  none.rank = -1;
  OptView w = with_weight ? weight.optional() : none, b = with_weight && centered ? bias.optional() : none;
  const char* op = centered ? "layerNorm" : "rmsNorm";
  std::string what = describe(op, a, layout) + (with_weight ? " weighted" : "");
  done(what, centered ? ops::layerNorm(s, out.view, mean.view, rstd.view, a.view, w, b, eps)
                      : ops::rmsNorm(s, out.view, rstd.view, a.view, w, eps));

  std::vector<double> x = a.values(), grads = g.values(), want(x.size()), bound(x.size());
  std::vector<double> dw(static_cast<size_t>(n)), dw_bound(dw), db(dw), db_bound(dw), want_da(want), da_bound(want);
  std::vector<double> means, rstds, mean_bound, rstd_bound;
  for (size_t row = 0; row < x.size(); row += static_cast<size_t>(n)) {
    Statistics t = statistics(&x[row], n, centered, eps);
    double magnitude = std::fabs(t.mean) + t.deviation;  // the mean is off by some ulp of this, once for all elements
    double h_error = 4 * kUnit * magnitude * t.rstd;
    means.push_back(t.mean);
    mean_bound.push_back(kUnit * 45 * magnitude);
    rstds.push_back(t.rstd);
    rstd_bound.push_back(t.rstd * (kUnit * 45 + h_error * h_error));
    double first = 0, second = 0, magnitude1 = 0, magnitude2 = 0, h_sum = 0;
    for (int64_t i = 0; i < n; i++) {
      size_t at = static_cast<size_t>(i);
      double wi = with_weight ? weight.get(i) : 1, bi = with_weight && centered ? bias.get(i) : 0;
      double h = (x[row + at] - t.mean) * t.rstd, gw = grads[row + at] * wi;
      want[row + at] = h * wi + bi;
      bound[row + at] =
          std::fabs(wi) * (h_error + 50 * kUnit * std::fabs(h)) + kUnit * (std::fabs(bi) + std::fabs(want[row + at]));
      first += gw / static_cast<double>(n);
      second += gw * h / static_cast<double>(n);
      magnitude1 += std::fabs(gw) / static_cast<double>(n);
      magnitude2 += std::fabs(gw * h) / static_cast<double>(n);
      h_sum += std::fabs(gw) / static_cast<double>(n) * h_error;
      dw[at] += grads[row + at] * h;
      dw_bound[at] += std::fabs(grads[row + at]) * (h_error + 110 * kUnit * std::fabs(h));
      db[at] += grads[row + at];
      db_bound[at] += 65 * kUnit * std::fabs(grads[row + at]);
    }
    for (int64_t i = 0; i < n; i++) {
      size_t at = row + static_cast<size_t>(i);
      double gw = grads[at] * (with_weight ? weight.get(i) : 1), h = (x[at] - t.mean) * t.rstd;
      want_da[at] = t.rstd * (gw - (centered ? first : 0) - h * second);
      da_bound[at] = t.rstd * (100 * kUnit * (std::fabs(gw) + magnitude1 + std::fabs(h) * magnitude2) +
                               h_error * std::fabs(second) + std::fabs(h) * h_sum);
    }
  }
  compare(what, out, want, bound);
  if (centered) compare(what + ": mean", mean, means, mean_bound);
  compare(what + ": rstd", rstd, rstds, rstd_bound);

  what += " gradient";
  OptView dwo = with_weight ? dweight.optional() : none, dbo = with_weight && centered ? dbias.optional() : none;
  done(what, centered ? ops::layerNormGrad(s, da.view, dwo, dbo, g.view, a.view, mean.view, rstd.view, w)
                      : ops::rmsNormGrad(s, da.view, dwo, g.view, a.view, rstd.view, w));
  compare(what, da, want_da, da_bound);
  if (with_weight) compare(what + " of weight", dweight, dw, dw_bound);
  if (with_weight && centered) compare(what + " of bias", dbias, db, db_bound);
}

void check_norms() {
  for (const Shape& shape : kRowShapes)
    for (DType d : kFloats)
      for (Layout layout : kInputs)
        for (bool with_weight : {false, true})
          for (double center : {0.0, 20.0}) {
            if (is_long(shape) && layout > Layout::permuted) continue;
            check_norm(true, shape, d, layout, with_weight, center);
            check_norm(false, shape, d, layout, with_weight, center);
          }
  check_norm(true, {2000, 200}, DType::float32_, Layout::contiguous, true, 0);  // several tasks
}

}  // namespace check
