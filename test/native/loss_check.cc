// Checks crossEntropy and the optimizer steps against float64 loops.
#include "check.h"

namespace check {

static constexpr double kUnit = 0x1p-24;

static void check_cross_entropy(int64_t n, int64_t c, DType d, Layout layout, double smoothing, double scale) {
  Stream& s = stream();
  Tensor logits(d, {n, c}, layout), labels(DType::int64_, {n}, Layout::spaced), loss(DType::float32_, {n}),
      logsum(DType::float32_, {n});
  Tensor grad(DType::float32_, {n}, Layout::reversed), dlogits(d, {n, c});
  logits.fill(scale);
  labels.fill_index(0, c);
  if (n > 2) labels.set(2, -100);
  grad.fill();
  std::string what = describe("crossEntropy", logits, layout);
  done(what, ops::crossEntropy(s, loss.view, logsum.view, logits.view, labels.view, -100, smoothing));
  std::vector<double> want, bound, sums, sums_bound, dwant, dbound;
  for (int64_t r = 0; r < n; r++) {
    double m = -INFINITY, sum = 0, total = 0;
    for (int64_t i = 0; i < c; i++) m = std::max(m, logits.get(r * c + i));
    for (int64_t i = 0; i < c; i++) {
      sum += std::exp(logits.get(r * c + i) - m);
      total += logits.get(r * c + i);
    }
    double lse = m + std::log(sum), spread = std::log(sum) + 2 * scale;
    int64_t label = static_cast<int64_t>(labels.get(r));
    bool ignored = label == -100;
    double share = smoothing / static_cast<double>(c);
    sums.push_back(lse);
    sums_bound.push_back(kUnit * (50 + std::fabs(lse) + std::fabs(m)));
    want.push_back(ignored ? 0 : lse - (1 - smoothing) * logits.get(r * c + label) - share * total);
    bound.push_back(kUnit * (50 + spread * (2 + 45 * smoothing)));
    for (int64_t i = 0; i < c; i++) {
      double p = std::exp(logits.get(r * c + i) - lse), g = grad.get(r);
      dwant.push_back(ignored ? 0 : g * (p - share - (i == label ? 1 - smoothing : 0)));
      dbound.push_back(kUnit * std::fabs(g) * (p * (60 + 2 * std::fabs(lse) + std::fabs(m) + scale) + 4));
    }
  }
  compare(what, loss, want, bound);
  compare(what + ": logsum", logsum, sums, sums_bound);
  done(what, ops::crossEntropyGrad(s, dlogits.view, grad.view, logits.view, logsum.view, labels.view, -100, smoothing));
  compare(what + " gradient", dlogits, dwant, dbound);
}

void check_loss() {
  Stream& s = stream();
  for (DType d : kFloats)
    for (Layout layout : {Layout::contiguous, Layout::permuted, Layout::spaced, Layout::reversed})
      for (int64_t n : {1, 3, 64, 1000})
        for (int64_t c : {1, 2, 10, 16, 17, 129, 1000})
          for (double smoothing : {0.0, 0.1}) check_cross_entropy(n, c, d, layout, smoothing, c == 17 ? 60 : 5);

  // masked logits, a label out of range
  Tensor logits(DType::float32_, {4, 5}), labels(DType::int64_, {4}), loss(DType::float32_, {4}),
      logsum(DType::float32_, {4});
  logits.fill();
  labels.fill_index(0, 5);
  for (int64_t i = 0; i < 4; i++) logits.set(i, -INFINITY);
  labels.set(0, 4);
  done("masked", ops::crossEntropy(s, loss.view, logsum.view, logits.view, labels.view, -100, 0));
  expect("crossEntropy: the one class left has loss 0", loss.get(0) == 0);
  labels.set(1, 5);
  labels.set(3, -1);
  std::string error = error_of(ops::crossEntropy(s, loss.view, logsum.view, logits.view, labels.view, -100, 0));
  expect("label out of range: " + error, error == "crossEntropy: label 5 at row 1 is outside [0, 5)");
  expect("loss at a label out of range",
         std::isnan(loss.get(1)) && std::isnan(loss.get(3)) && !std::isnan(loss.get(2)));
  Tensor d(DType::float32_, {4, 5}), grad(DType::float32_, {4});
  grad.fill();
  error = error_of(ops::crossEntropyGrad(s, d.view, grad.view, logits.view, logsum.view, labels.view, -100, 0));
  expect("label out of range: " + error, error == "crossEntropy: label 5 at row 1 is outside [0, 5)");
  for (int64_t i = 0; i < 5; i++)
    expect("no gradient at a label out of range", d.get(5 + i) == 0 && d.get(15 + i) == 0);
}

struct State {
  std::vector<double> p, m, v;
};

// One rounding to float32 of everything that is stored or passed, then a few ulp of arithmetic on each term.
static void check_adam(DType d, int64_t n, bool decoupled, double weight_decay, double grad_scale) {
  Stream& s = stream();
  Tensor p(d, {n}), g(d, {n}), m(DType::float32_, {n}), v(DType::float32_, {n});
  p.fill();
  m.fill(0.1);
  for (int64_t i = 0; i < n; i++) v.set(i, std::fabs(uniform()) * 0.01);
  g.fill();
  const double lr = 1e-2, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, c1 = 1 - std::pow(beta1, 3),
               c2 = 1 - std::pow(beta2, 3);
  std::vector<double> wp, bp, wm, bm, wv, bv;
  for (int64_t i = 0; i < n; i++) {
    double w = p.get(i), d1 = g.get(i) * grad_scale + (decoupled ? 0 : weight_decay * w);
    double mean = beta1 * m.get(i) + (1 - beta1) * d1, square = beta2 * v.get(i) + (1 - beta2) * d1 * d1;
    if (decoupled) w *= 1 - lr * weight_decay;
    double step = lr / c1 * mean / (std::sqrt(square) / std::sqrt(c2) + eps);
    double spread = std::fabs(m.get(i)) + std::fabs(d1) + std::fabs(g.get(i));
    wm.push_back(mean);
    bm.push_back(6 * kUnit * spread);
    wv.push_back(square);
    bv.push_back(8 * kUnit * (square + d1 * d1));
    wp.push_back(w - step);
    bp.push_back(
        kUnit * (4 * std::fabs(w) + 16 * std::fabs(step) + lr / c1 * 6 * spread / (std::sqrt(square) / std::sqrt(c2))));
  }
  std::string what = describe(decoupled ? "adamW" : "adam", p, Layout::contiguous);
  done(what, ops::adamStep(s, p.view, g.view, m.view, v.view, lr, beta1, beta2, eps, weight_decay, decoupled, c1, c2,
                           grad_scale));
  compare(what, p, wp, bp);
  compare(what + ": m", m, wm, bm);
  compare(what + ": v", v, wv, bv);
}

static void check_sgd(DType d, int64_t n, double momentum, double dampening, bool nesterov, bool first) {
  Stream& s = stream();
  Tensor p(d, {n}), g(d, {n}), b(DType::float32_, {n});
  p.fill();
  g.fill();
  b.fill();
  OptView buffer = b.optional();
  if (momentum == 0) buffer.rank = -1;
  const double lr = 0.1, decay = 0.01, scale = 0.5;
  std::vector<double> wp, bp, wb, bb;
  for (int64_t i = 0; i < n; i++) {
    double w = p.get(i), d1 = g.get(i) * scale + decay * w, held = b.get(i), step = d1;
    if (momentum != 0) {
      held = first ? d1 : momentum * held + (1 - dampening) * d1;
      step = nesterov ? d1 + momentum * held : held;
    }
    double spread = std::fabs(g.get(i)) + std::fabs(b.get(i)) + std::fabs(w);
    wb.push_back(held);
    bb.push_back(momentum == 0 ? 0 : 6 * kUnit * spread);
    wp.push_back(w - lr * step);
    bp.push_back(10 * kUnit * spread);
  }
  std::string what = describe("sgd", p, Layout::contiguous);
  done(what, ops::sgdStep(s, p.view, g.view, buffer, lr, momentum, dampening, decay, nesterov, first, scale));
  compare(what, p, wp, bp);
  compare(what + ": buffer", b, wb, bb);
}

void check_optim() {
  for (DType d : kFloats)
    for (int64_t n : {0, 1, 3, 4, 7, 8, 15, 16, 17, 31, 63, 65, 1021, 16384, 50021}) {
      for (bool decoupled : {false, true})
        for (double decay : {0.0, 0.1}) check_adam(d, n, decoupled, decay, decoupled ? 1 : 0.25);
      for (bool first : {false, true}) {
        check_sgd(d, n, 0, 0, false, first);
        check_sgd(d, n, 0.9, 0.1, false, first);
        check_sgd(d, n, 0.9, 0, true, first);
      }
    }
}

}  // namespace check
