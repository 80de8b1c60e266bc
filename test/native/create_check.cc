// Checks copy (every pair of dtypes, transpositions), fill, arange, tri, oneHot and the random drivers on every target.
#include "../../native/core/philox.h"
#include "drivers_check.h"

static Value cast_value(DType from, DType to, Value v) {
  if (to == DType::bool_) return {0, floating(from) ? v.f != 0 : v.i != 0};
  if (floating(to)) {
    if (floating(from)) return v;
    return {static_cast<double>(static_cast<float>(v.i)), 0};
  }
  if (!floating(from)) return {0, narrow(to, v.i)};
  long double low = to == DType::int8_    ? -128
                    : to == DType::uint8_ ? 0
                    : to == DType::int32_ ? INT32_MIN
                                          : static_cast<long double>(INT64_MIN);
  long double high = to == DType::int8_    ? 127
                     : to == DType::uint8_ ? 255
                     : to == DType::int32_ ? INT32_MAX
                                           : static_cast<long double>(INT64_MAX);
  if (std::isnan(v.f)) return {0, 0};
  long double t = std::trunc(static_cast<long double>(v.f));
  return {0, static_cast<int64_t>(t < low ? low : t > high ? high : t)};
}

static void check_copy(DType from, DType to) {
  auto shapes = kShapes;
  shapes.push_back({33, 65}), shapes.push_back({100, 7}), shapes.push_back({3, 40, 129}), shapes.push_back({5, 64, 64}),
      shapes.push_back({257, 3});
  for (auto& shape : shapes) {
    for (int l = 0; l < static_cast<int>(Layout::count) * 2; l++) {
      Layout a_layout = static_cast<Layout>(l / 2),
             out_layout = l % 2 ? static_cast<Layout>(next_bits() % 4) : Layout::contiguous;
      g_where = describe("copy", from, shape, a_layout, Layout::contiguous, out_layout) + " to " +
                kNames[static_cast<int>(to)];
      Tensor a(from, shape, a_layout), out(to, shape, out_layout), want(to, {1});
      a.randomize(0);
      call(ops::copy(*g_stream, out.view, a.view));
      for (int64_t i = 0; i < out.size(); i++, g_checks++) {
        want.set(0, cast_value(from, to, a.get(i)));
        if (!same(want.get(0), out.get(i)))
          fail("[%lld] (%.9g, %lld) is (%.9g, %lld)", static_cast<long long>(i), a.get(i).f,
               static_cast<long long>(a.get(i).i), out.get(i).f, static_cast<long long>(out.get(i).i));
      }
      out.check_guards();
    }
  }
}

static void check_create(DType d) {
  for (Layout layout : {Layout::contiguous, Layout::permuted, Layout::negative, Layout::stepped}) {
    g_where = describe("create", d, {3, 5, 7}, layout, layout, layout);
    Tensor out(d, {3, 5, 7}, layout), a(d, {3, 5, 7}, Layout::permuted);
    a.randomize(0);
    call(ops::fill(*g_stream, out.view, 2.7));
    Tensor want(d, {1});
    for (int64_t i = 0; i < out.size(); i++, g_checks++) {
      want.set(0, {2.7, d == DType::bool_ ? 1 : 2});
      if (!same(want.get(0), out.get(i))) fail("fill [%lld]", static_cast<long long>(i));
    }
    if (d != DType::bool_) {
      call(ops::arange(*g_stream, out.view, 3, 1));
      for (int64_t i = 0; i < out.size(); i++, g_checks++) {
        want.set(0, {static_cast<double>(3 + i), 3 + i});
        if (!same(want.get(0), out.get(i))) fail("arange [%lld]", static_cast<long long>(i));
      }
    }
    for (int64_t k : {-9, -2, 0, 1, 3, 9}) {
      for (int upper : {0, 1}) {
        call(ops::tri(*g_stream, out.view, a.view, k, upper));
        for (int64_t i = 0; i < out.size(); i++, g_checks++) {
          int64_t column = i % 7, row = i / 7 % 5;
          bool keep = upper ? column - row >= k : column - row <= k;
          if (!same(out.get(i), keep ? a.get(i) : Value{0, 0}))
            fail("tri k %lld upper %d [%lld]", static_cast<long long>(k), upper, static_cast<long long>(i));
        }
      }
    }
    Tensor index(DType::int64_, {3, 5}, layout);
    for (int64_t i = 0; i < 15; i++) index.set(i, {0, (i * 5) % 7});
    call(ops::oneHot(*g_stream, out.view, index.view));
    for (int64_t i = 0; i < out.size(); i++, g_checks++) {
      Value one{floating(d) ? 1.0 : 0, floating(d) ? 0 : 1};
      if (!same(out.get(i), i % 7 == index.get(i / 7).i ? one : Value{0, 0}))
        fail("oneHot [%lld]", static_cast<long long>(i));
    }
    out.check_guards();
    index.set(4, {0, 7});
    call(ops::oneHot(*g_stream, out.view, index.view));
    Status status = g_stream->take_error();
    if (g_checks++; status.code != Code::range || !strstr(status.what, "index 7 at position 4"))
      fail("oneHot accepted 7: %s", status.what);
  }
}

static void check_random() {
  g_where = "random";
  const uint64_t all = ~uint64_t{0};
  Words w = philox(0, 0), v = philox(all, all);
  // Random123's kat_vectors has all four counter words set in its second line; here the upper two are always 0.
  if (w.w[0] != 0x6627e8d5u || w.w[1] != 0xe169c58du || w.w[2] != 0xbc57ac4cu || w.w[3] != 0x9b00dbd8u)
    fail("philox(0, 0) = %08x %08x %08x %08x", w.w[0], w.w[1], w.w[2], w.w[3]);
  if (memcmp(&v, &w, sizeof v) == 0) fail("philox ignores its key");
  for (DType d : {DType::float32_, DType::float16_, DType::bfloat16_}) {
    const int64_t n = 200'003;
    Tensor a(d, {n}), b(d, {n});
    call(ops::randUniform(*g_stream, a.view, -1, 3, 42, 5));
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < n; i++, g_checks++) {
      double x = a.get(i).f;
      if (!(x >= -1 && x < 3)) fail("uniform %.9g", x);
      sum += x, squares += x * x;
    }
    if (std::fabs(sum / n - 1) > 0.02 || std::fabs(squares / n - 1 - 16.0 / 12) > 0.03)
      fail("uniform mean %g, square %g", sum / n, squares / n);
    call(ops::randNormal(*g_stream, a.view, 0, 1, -7, 0));
    double moments[5] = {};
    for (int64_t i = 0; i < n; i++)
      for (int k = 1; k < 5; k++) moments[k] += std::pow(a.get(i).f, k) / n;
    if (std::fabs(moments[1]) > 0.01 || std::fabs(moments[2] - 1) > 0.02 || std::fabs(moments[3]) > 0.05 ||
        std::fabs(moments[4] - 3) > 0.1)
      fail("normal moments %g %g %g %g", moments[1], moments[2], moments[3], moments[4]);
    // an offset continues the same sequence, in pieces of any size and through any layout
    for (int64_t start : {1, 2, 3, 5, 257}) {
      Tensor part(d, {10, 31}, Layout::permuted);
      call(ops::randNormal(*g_stream, part.view, 0, 1, -7, start));
      for (int64_t i = 0; i < 310; i++, g_checks++)
        if (!same(part.get(i), a.get(start + i))) {
          fail("normal from %lld differs at %lld", static_cast<long long>(start), static_cast<long long>(i));
          break;
        }
    }
    pool_set_threads(1);
    call(ops::randNormal(*g_stream, b.view, 0, 1, -7, 0));
    pool_set_threads(2);
    if (a.memory != b.memory) fail("normals depend on the number of threads");
    Tensor mask(DType::bool_, {n}), out(d, {n}), u(DType::float32_, {n});
    call(ops::dropout(*g_stream, out.view, mask.view, a.view, 0.3, 9, 2));
    call(ops::randUniform(*g_stream, u.view, 0, 1, 9, 2));
    for (int64_t i = 0; i < n; i++, g_checks++) {
      bool keep = u.get(i).f >= 0.3;
      if (mask.get(i).i != keep) fail("dropout mask [%lld]", static_cast<long long>(i));
      compare_float(out, i, keep ? a.get(i).f / 0.7 : 0, 1.5);
    }
    call(ops::dropout(*g_stream, out.view, mask.view, a.view, 1, 9, 2));
    for (int64_t i = 0; i < n; i++)
      if (out.get(i).f != 0) fail("dropout p = 1");
  }
  Tensor r(DType::int64_, {10000});
  call(ops::randUniform(*g_stream, r.view, -2, 3, 1, 0));
  int seen[5] = {};
  for (int64_t i = 0; i < 10000; i++) {
    int64_t x = r.get(i).i;
    if (x < -2 || x > 2)
      fail("randint %lld", static_cast<long long>(x));
    else
      seen[x + 2]++;
  }
  for (int c : seen)
    if (c < 1800 || c > 2200) fail("randint is not even: %d", c);
}

static void check_large_transposition() {
  g_where = std::string(kernels().target) + " large copy";
  Tensor b(DType::float32_, {1500, 700}, Layout::permuted), t(DType::float32_, {1500, 700});
  b.randomize(0);
  call(ops::copy(*g_stream, t.view, b.view));
  for (int64_t i = 0; i < t.size(); i++, g_checks++)
    if (!same(t.get(i), b.get(i))) return fail("[%lld]", static_cast<long long>(i));
  t.check_guards();
}

int main() {
  return run_checks([] {
    for (int d = 0; d < kDTypes; d++) {
      check_create(static_cast<DType>(d));
      for (int to = 0; to < kDTypes; to++) check_copy(static_cast<DType>(d), static_cast<DType>(to));
    }
    check_random();
    check_large_transposition();
  });
}
