// Checks sum, mean, max, min, variance, argmax, argmin and cumsum against float64 loops.
#include "check.h"

namespace check {

// The value of every output as a function of the list of elements that it folds, in logical order.
using Reference = std::function<void(const std::vector<double>& x, double& want, double& bound)>;

static void reference(const Tensor& a, const Tensor& out, const Reference& f, std::vector<double>& want,
                      std::vector<double>& bound) {
  std::vector<std::vector<double>> lists(static_cast<size_t>(out.size()));
  for (int64_t number = 0; number < a.size(); number++) {
    int64_t rest = number, target = 0, unit = 1;
    for (int i = a.view.rank - 1; i >= 0; i--) {
      int64_t c = rest % a.view.shape[i];
      rest /= a.view.shape[i];
      if (out.view.shape[i] != 1) target += c * unit;
      unit *= out.view.shape[i];
    }
    lists[static_cast<size_t>(target)].push_back(a.get(number));
  }
  for (const auto& list : lists) {
    double w = 0, b = 0;
    f(list, w, b);
    want.push_back(w);
    bound.push_back(b);
  }
}

// float32 sums are exact beyond about 40 additions in sequence (vectors.h), each off by half an ulp.
static constexpr double kSumError = 40 * 0x1p-24;

static void sum_reference(const std::vector<double>& x, double& want, double& bound) {
  double magnitude = 0;
  for (double v : x) {
    want += v;
    magnitude += std::fabs(v);
  }
  bound = kSumError * magnitude;
  if (!std::isfinite(want)) bound = 0;
}

static void mean_reference(const std::vector<double>& x, double& want, double& bound) {
  sum_reference(x, want, bound);
  want /= static_cast<double>(x.size());
  bound /= static_cast<double>(x.size());
}

template <bool highest>
static void extreme_reference(const std::vector<double>& x, double& want, double&) {
  want = x[0];
  for (double v : x)
    if (!std::isnan(want) && (std::isnan(v) || (highest ? v > want : v < want))) want = v;
}

template <bool highest>
static void arg_reference(const std::vector<double>& x, double& want, double&) {
  size_t best = 0;
  for (size_t i = 0; i < x.size(); i++)
    if (!std::isnan(x[best]) && (std::isnan(x[i]) || (highest ? x[i] > x[best] : x[i] < x[best]))) best = i;
  want = static_cast<double>(best);
}

static Reference variance_reference(double correction) {
  return [=](const std::vector<double>& x, double& want, double& bound) {
    double n = static_cast<double>(x.size()), mean = 0, squares = 0;
    for (double v : x) mean += v / n;
    for (double v : x) squares += (v - mean) * (v - mean);
    double degrees = std::max(0.0, n - correction);
    want = squares / degrees;
    // a deviation is off by half an ulp of the mean; its square and the sum as above
    bound = degrees > 0 ? (kSumError + 4 * 0x1p-24) * squares / degrees +
                              8 * 0x1p-24 * std::fabs(mean) * std::sqrt(squares / n) * n / degrees * 0.01
                        : 0;
  };
}

struct Case {
  Shape shape;
  std::vector<int> axes;
};

static std::vector<Case> cases() {
  std::vector<Case> all;
  for (int64_t n : {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 127, 257, 1021, 1024, 1025, 4099}) {
    all.push_back({{n}, {0}});
    all.push_back({{3, n}, {1}});
    all.push_back({{n, 3}, {0}});
    all.push_back({{n, 3}, {1}});
    all.push_back({{5, n}, {0}});
  }
  all.push_back({{}, {}});
  all.push_back({{64, 300}, {0}});
  all.push_back({{700, 201}, {0}});
  all.push_back({{700, 201}, {1}});
  all.push_back({{700, 201}, {0, 1}});
  all.push_back({{40, 5, 2}, {1}});
  all.push_back({{2, 3, 5, 7}, {0, 2}});
  all.push_back({{2, 3, 5, 7}, {1, 3}});
  all.push_back({{8, 3, 37, 41}, {0, 2, 3}});
  all.push_back({{2, 3, 5, 7}, {}});
  all.push_back({{3, 4, 5}, {0, 1, 2}});
  all.push_back({{140003}, {0}});
  all.push_back({{50021, 3}, {0}});
  all.push_back({{50021, 3}, {1}});
  all.push_back({{3, 50021}, {1}});
  return all;
}

static Shape reduced(const Case& c) {
  Shape s = c.shape;
  for (int i : c.axes) s[static_cast<size_t>(i)] = 1;
  return s;
}

static void run(const char* op, const Case& c, DType dtype, DType out_dtype, Layout layout, const Reference& f,
                const std::function<Status(View, View)>& call, const std::function<void(Tensor&)>& change = {}) {
  Tensor a(dtype, c.shape, layout);
  a.fill();
  if (change) change(a);
  for (Layout out_layout : {Layout::contiguous, Layout::permuted}) {
    Tensor out(out_dtype, reduced(c), out_layout);
    std::vector<double> want, bound;
    reference(a, out, f, want, bound);
    std::string what = describe(op, a, layout) + " -> " + std::to_string(out.size());
    done(what, call(out.view, a.view));
    compare(what, out, want, bound);
    if (a.size() > 10000) break;
  }
}

static bool is_large(const Case& c) {
  int64_t n = 1;
  for (int64_t s : c.shape) n *= s;
  return n > 50000;
}

void check_reductions() {
  Stream& s = stream();
  for (const Case& c : cases())
    for (DType d : kAll)
      for (Layout layout : kInputs) {
        bool every = d == DType::float32_ || d == DType::bfloat16_ || d == DType::int8_;
        if (is_large(c) && (!every || layout == Layout::spaced || layout == Layout::reversed)) continue;
        DType total = is_floating(d) ? d : DType::int64_;
        run("sum", c, d, total, layout, sum_reference, [&](View o, View a) { return ops::sum(s, o, a); });
        run("max", c, d, d, layout, extreme_reference<true>, [&](View o, View a) { return ops::max(s, o, a); });
        run("min", c, d, d, layout, extreme_reference<false>, [&](View o, View a) { return ops::min(s, o, a); });
        if (c.axes.size() == 1) {
          int axis = c.axes[0];
          run("argmax", c, d, DType::int64_, layout, arg_reference<true>,
              [&](View o, View a) { return ops::argmax(s, o, a, axis); });
          run("argmin", c, d, DType::int64_, layout, arg_reference<false>,
              [&](View o, View a) { return ops::argmin(s, o, a, axis); });
        }
        if (!is_floating(d)) continue;
        run("mean", c, d, d, layout, mean_reference, [&](View o, View a) { return ops::mean(s, o, a); });
        for (double correction : {0.0, 1.0}) {
          auto call = [&](View o, View a) { return ops::variance(s, o, a, correction); };
          run("variance", c, d, d, layout, variance_reference(correction), call);
          if (d == DType::float32_)
            run("variance of 1000 +- 1", c, d, d, layout, variance_reference(correction), call,
                [](Tensor& a) { a.fill(1, 1000); });
        }
      }

  // NaN, infinities and ties at the start, in the middle and at the end
  for (DType d : kFloats)
    for (const Case& c :
         std::vector<Case>{{{77}, {0}}, {{77, 40}, {0}}, {{40, 77}, {1}}, {{3000}, {0}}, {{140000}, {0}}})
      for (double at : {0.0, 0.5, 0.999})
        for (double special : std::initializer_list<double>{NAN, INFINITY, -INFINITY, 2.0}) {
          auto change = [&](Tensor& a) {
            for (int64_t i = 0; i < a.size(); i++) a.set(i, std::floor(a.get(i)));
            a.set(static_cast<int64_t>(at * static_cast<double>(a.size())), special);
          };
          int axis = c.axes[0];
          Layout l = Layout::contiguous;
          run(
              "max of special", c, d, d, l, extreme_reference<true>, [&](View o, View a) { return ops::max(s, o, a); },
              change);
          run(
              "min of special", c, d, d, l, extreme_reference<false>, [&](View o, View a) { return ops::min(s, o, a); },
              change);
          run(
              "argmax of special", c, d, DType::int64_, l, arg_reference<true>,
              [&](View o, View a) { return ops::argmax(s, o, a, axis); }, change);
          run(
              "argmin of special", c, d, DType::int64_, l, arg_reference<false>,
              [&](View o, View a) { return ops::argmin(s, o, a, axis); }, change);
          run("sum of special", c, d, d, l, sum_reference, [&](View o, View a) { return ops::sum(s, o, a); }, change);
        }

  // nothing to fold
  for (DType d : kFloats) {
    Case c{{0, 5}, {0}};
    run("sum of nothing", c, d, d, Layout::contiguous, sum_reference,
        [&](View o, View a) { return ops::sum(s, o, a); });
    run("mean of nothing", c, d, d, Layout::contiguous, mean_reference,
        [&](View o, View a) { return ops::mean(s, o, a); });
    run("variance of nothing", c, d, d, Layout::contiguous, variance_reference(1),
        [&](View o, View a) { return ops::variance(s, o, a, 1); });
    Case none{{5, 0}, {1}};
    run("sum over an empty axis", none, d, d, Layout::contiguous, sum_reference,
        [&](View o, View a) { return ops::sum(s, o, a); });
    Case empty{{0, 5}, {1}};
    run("sum to nothing", empty, d, d, Layout::contiguous, sum_reference,
        [&](View o, View a) { return ops::sum(s, o, a); });
  }
}

void check_cumsum() {
  for (const Case& c : std::vector<Case>{{{1}, {0}},
                                         {{1000}, {0}},
                                         {{17, 33}, {0}},
                                         {{17, 33}, {1}},
                                         {{3, 50, 7}, {1}},
                                         {{300, 301}, {0}},
                                         {{0, 3}, {0}}})
    for (DType d : kAll)
      for (Layout layout : kInputs)
        for (Layout out_layout : {Layout::contiguous, Layout::permuted}) {
          Tensor a(d, c.shape, layout);
          a.fill();
          Tensor out(is_floating(d) ? d : DType::int64_, c.shape, out_layout);
          std::string what = describe("cumsum", a, layout);
          done(what, ops::cumsum(stream(), out.view, a.view, c.axes[0]));
          std::vector<double> want(static_cast<size_t>(a.size())), bound(want.size(), 0);
          int64_t step = 1;
          for (int i = c.axes[0] + 1; i < a.view.rank; i++) step *= a.view.shape[i];
          for (int64_t i = 0; i < a.size(); i++) {
            bool starts = i / step % a.view.shape[c.axes[0]] == 0;
            want[static_cast<size_t>(i)] = a.get(i) + (starts ? 0 : want[static_cast<size_t>(i - step)]);
            bound[static_cast<size_t>(i)] =
                1e-12 * static_cast<double>(a.size()) +
                0x1p-24 * std::fabs(want[static_cast<size_t>(i)]);  // float16 by way of float32
          }
          compare(what, out, want, bound);
        }
}

}  // namespace check
