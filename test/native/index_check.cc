// Checks indexSelect, gather, indexAdd and scatterAdd against float64 loops, and their answers to indices out of range.
#include "check.h"

namespace check {

struct Case {
  Shape shape;
  int64_t axis, picks;
};

static const Case kCases[] = {{{7}, 0, 5},       {{7}, 0, 3000},      {{9, 4}, 0, 6},    {{9, 4}, 1, 11},
                              {{50, 33}, 0, 64}, {{50, 33}, 1, 64},   {{3, 5, 7}, 1, 4}, {{3, 5, 7}, 0, 4},
                              {{3, 5, 7}, 2, 9}, {{30, 600}, 0, 300}, {{6, 2}, 0, 40},   {{2, 6, 300}, 1, 5},
                              {{10, 20}, 0, 0},  {{500, 20}, 0, 20}};

// Coordinates of element `number`, row-major.
static std::vector<int64_t> coordinates(const View& v, int64_t number) {
  std::vector<int64_t> c(static_cast<size_t>(v.rank));
  for (int i = v.rank - 1; i >= 0; i--) {
    c[static_cast<size_t>(i)] = number % v.shape[i];
    number /= v.shape[i];
  }
  return c;
}

static int64_t number_of(const View& v, const std::vector<int64_t>& c) {
  int64_t n = 0;
  for (int i = 0; i < v.rank; i++) n = n * v.shape[i] + c[static_cast<size_t>(i)];
  return n;
}

// The element of x that element `number` of y stands for; -1 when its index is out of range.
static int64_t partner(const Tensor& x, const Tensor& y, const Tensor& index, int64_t axis, int64_t number) {
  std::vector<int64_t> c = coordinates(y.view, number);
  int64_t i =
      static_cast<int64_t>(index.get(index.view.rank == 1 && y.view.rank > 1 ? c[static_cast<size_t>(axis)] : number));
  int64_t size = x.view.shape[axis];
  if (i < -size || i >= size) return -1;
  c[static_cast<size_t>(axis)] = i < 0 ? i + size : i;
  return number_of(x.view, c);
}

static void check_reading(const Case& c, DType d, Layout layout, Layout out_layout, bool vector) {
  Shape picked = c.shape;
  picked[static_cast<size_t>(c.axis)] = c.picks;
  Tensor a(d, c.shape, layout), out(d, picked, out_layout),
      index(DType::int64_, vector ? Shape{c.picks} : picked, layout == Layout::broadcast ? Layout::contiguous : layout);
  a.fill();
  int64_t size = c.shape[static_cast<size_t>(c.axis)];
  index.fill_index(-size, size);
  std::string what = describe(vector ? "indexSelect" : "gather", a, layout) + " axis " + std::to_string(c.axis);
  done(what, vector ? ops::indexSelect(stream(), out.view, a.view, index.view, c.axis)
                    : ops::gather(stream(), out.view, a.view, index.view, c.axis));
  std::vector<double> want, bound;
  for (int64_t i = 0; i < out.size(); i++) want.push_back(a.get(partner(a, out, index, c.axis, i)));
  bound.assign(want.size(), 0);
  compare(what, out, want, bound);
}

static void check_adding(const Case& c, DType d, Layout layout, Layout out_layout, bool vector) {
  Shape picked = c.shape;
  picked[static_cast<size_t>(c.axis)] = c.picks;
  Tensor a(d, picked, layout), out(d, c.shape, out_layout),
      index(DType::int64_, vector ? Shape{c.picks} : picked, layout == Layout::broadcast ? Layout::contiguous : layout);
  a.fill();
  out.fill();
  int64_t size = c.shape[static_cast<size_t>(c.axis)];
  index.fill_index(-size, size);
  std::vector<double> want = out.values(), magnitude(want.size()), bound(want.size()), additions(want.size());
  for (size_t i = 0; i < want.size(); i++) magnitude[i] = std::fabs(want[i]);
  for (int64_t i = 0; i < a.size(); i++) {
    size_t at = static_cast<size_t>(partner(out, a, index, c.axis, i));
    want[at] += a.get(i);
    magnitude[at] += std::fabs(a.get(i));
    additions[at]++;
  }
  for (size_t i = 0; i < want.size(); i++) {
    bound[i] = additions[i] * 0x1p-24 * magnitude[i];  // one rounding an addition, in sequence
    if (d == DType::int8_) want[i] = static_cast<double>(static_cast<int8_t>(static_cast<int64_t>(want[i])));
    if (d == DType::uint8_) want[i] = static_cast<double>(static_cast<uint8_t>(static_cast<int64_t>(want[i])));
  }
  std::string what = describe(vector ? "indexAdd" : "scatterAdd", out, out_layout) + " axis " + std::to_string(c.axis) +
                     " of " + std::to_string(c.picks);
  done(what, vector ? ops::indexAdd(stream(), out.view, a.view, index.view, c.axis)
                    : ops::scatterAdd(stream(), out.view, a.view, index.view, c.axis));
  compare(what, out, want, bound);
}

static void check_out_of_range() {
  Stream& s = stream();
  for (DType d : {DType::float32_, DType::float16_})
    for (int64_t width : {1, 3, 40}) {
      Tensor a(d, {10, width}), index(DType::int64_, {6}), out(d, {6, width}), sums(d, {10, width});
      a.fill();
      index.fill_index(0, 10);
      index.set(2, 10);
      index.set(5, -11);
      std::string error = error_of(ops::indexSelect(s, out.view, a.view, index.view, 0));
      expect("indexSelect: " + error, error == "indexSelect: index 10 at [2] is outside [-10, 10)");
      for (int64_t i = 0; i < out.size(); i++) {
        int64_t from = partner(a, out, index, 0, i);
        expect("indexSelect beside an index out of range", out.get(i) == (from < 0 ? 0 : a.get(from)));
      }
      expect("indexSelect stayed inside", out.guards_hold());
      for (int64_t i = 0; i < sums.size(); i++) sums.set(i, 1);
      error = error_of(ops::indexAdd(s, sums.view, out.view, index.view, 0));
      expect("indexAdd: " + error, error == "indexAdd: index 10 at [2] is outside [-10, 10)");
      expect("indexAdd stayed inside", sums.guards_hold());

      Tensor each(DType::int64_, {6, width});
      each.fill_index(0, 10);
      each.set(3 * width + width - 1, 1ll << 40);
      error = error_of(ops::gather(s, out.view, a.view, each.view, 0));
      std::string where = "[3, " + std::to_string(width - 1) + "] is outside [-10, 10)";
      expect("gather: " + error, error == "gather: index 1099511627776 at " + where);
      for (int64_t i = 0; i < out.size(); i++) {
        int64_t from = partner(a, out, each, 0, i);
        expect("gather beside an index out of range", out.get(i) == (from < 0 ? 0 : a.get(from)));
      }
      error = error_of(ops::scatterAdd(s, sums.view, out.view, each.view, 0));
      expect("scatterAdd: " + error, error == "scatterAdd: index 1099511627776 at " + where);
      expect("scatterAdd stayed inside", sums.guards_hold());
    }
}

void check_index() {
  for (const Case& c : kCases)
    for (DType d : kAll)
      for (Layout layout : kInputs)
        for (Layout out_layout : {Layout::contiguous, Layout::permuted, Layout::spaced})
          for (bool vector : {false, true}) {
            check_reading(c, d, layout, out_layout, vector);
            if (d != DType::bool_) check_adding(c, d, layout, out_layout, vector);
          }
  check_out_of_range();
}

}  // namespace check
