// The kernels of sparse products in the emulator. With KERF_QUICK one of them only: what a broken kernel is tried on (1: tiles of
// tokens, 2: few tokens, 3: a convolution).
#include "emulator/emulator.h"
#include "matmul_cases.h"
#include "native/cuda/sparse.cuh"

using namespace cases;
using kerf::DType;

// Random W [n, k], a third of it not zero and one row empty: dense, and packed.
struct Weights {
  int n, k, count = 0;
  std::vector<float> dense;
  Buffer<uint8_t> packed;
  Buffer<float> bias;

  Weights(int rows, int columns) : n(rows), k(columns), dense(size_t(n) * k), packed(SparseRows<float>::bytes(n, int64_t{n} * k)), bias(n) {
    std::mt19937 random(3);
    std::normal_distribution<float> normal;
    for (int row = 0; row < n; row++)
      for (int i = 0; i < k; i++)
        if (random() % 3 == 0 && row != 1) dense[size_t(row) * k + i] = normal(random), count++;
    const SparseRows<float> to(packed.data(), n, k, count);
    int at = 0;
    for (int row = 0; row < n; row++) {
      const_cast<int32_t*>(to.pointers)[row] = at;
      for (int i = 0; i < k; i++)
        if (const float v = dense[size_t(row) * k + i]; v != 0) {
          const_cast<int32_t*>(to.columns)[at] = i;
          const_cast<float*>(to.values)[at++] = v;
        }
      bias[row] = normal(random);
    }
    const_cast<int32_t*>(to.pointers)[n] = at;
  }
  SparseRows<float> rows() const { return {packed.data(), n, k, count}; }
  Finish finish() const { return {bias.data(), Activation::relu}; }

  // How far off `got` of an output is, when x(column) is what meets its row of W.
  template <class Out, class X>
  double off_at(int row, double got, X x) const {
    double sum = 0, size = 0;
    for (int i = 0; i < k; i++) {
      const double product = double(dense[size_t(row) * k + i]) * x(i);
      sum += product;
      size += std::fabs(product);
    }
    return off<Out>(got, sum, size, k, double(bias[row]), true);
  }
};

template <class T> struct Of { static constexpr DType dtype = DType::float32_; };
template <> struct Of<cu::f16> { static constexpr DType dtype = DType::float16_; };
template <> struct Of<cu::bf16> { static constexpr DType dtype = DType::bfloat16_; };
template <class T> using As = Floats<Floating<Of<T>::dtype>>;

// n random numbers in the format T, and what they are.
template <class T>
struct Numbers {
  Buffer<uint8_t> data;
  std::vector<double> values;
  explicit Numbers(size_t n) : data(n * bytes_of<T>()), values(n) {
    std::mt19937 random(4);
    std::normal_distribution<double> normal;
    for (size_t i = 0; i < n; i++) values[i] = program::store<T>(data.data(), i, normal(random));
  }
};

// out [token][feature], by one block: several tiles after each other. x [k][tokens], or of few tokens [token][k].
template <class T, class Out>
static void product(const char* kernel, int n, int tokens, int k) {
  const Weights w(n, k);
  const Numbers<T> x(size_t(k) * tokens);
  const bool few = tokens <= kFewTokens;
  runs(kernel, {n, tokens, k}, [&] {
    Buffer<typename Stored<Out>::Element> out(size_t(tokens) * n);
    const SparseRows<float> rows = w.rows();
    const As<T> from{x.data.data()};
    const As<Out> to{out.data()};
    const FinishFloats finish{w.finish()};
    const auto count = static_cast<uint32_t>(tokens);
    const int64_t x_row = k, out_row = n;
    const auto tiles = static_cast<uint32_t>((n + 31) / 32 * ((tokens + 31) / 32));
    if (few)
      CU_LAUNCH((spmatmul_few<float, As<Out>, As<T>, FinishFloats>), dim3(1), dim3(64), 0, 0, rows, count, from, x_row, to, out_row, finish);
    else
      CU_LAUNCH((spmatmul_tiles<float, As<Out>, As<T>, FinishFloats>), dim3(1), dim3(kSparseThreads), kSparseSharedBytes, 0, tiles, rows, count, from, to, out_row,
                finish);
    double most = 0;
    for (int t = 0; t < tokens; t++)
      for (int row = 0; row < n; row++)
        most = std::max(most, w.off_at<Out>(row, value_of<Out>(out[size_t(t) * n + row]), [&](int i) {
          return x.values[few ? size_t(t) * k + i : size_t(i) * tokens + t];
        }));
    return most;
  });
}

struct Geometry {
  int images, channels, size, outputs, kernel, stride, pad;
  int out() const { return (size + 2 * pad - kernel) / stride + 1; }
};

template <class T, class Out>
static void convolution(const char* kernel, const Geometry& g) {
  const int area = g.out() * g.out(), pixels = g.images * area, taps = g.kernel * g.kernel;
  const Weights w(g.outputs, g.channels * taps);
  const Numbers<T> x(size_t(g.images) * g.channels * g.size * g.size);
  runs(kernel, {g.outputs, pixels, w.k}, [&] {
    Buffer<typename Stored<Out>::Element> out(size_t(pixels) * g.outputs);
    const SparseImages images{static_cast<uint32_t>(pixels), static_cast<uint32_t>(g.channels), g.size, g.size, g.stride, g.stride, g.pad, g.pad,
                              1, 1, Divisor::of(area), Divisor::of(g.out()), Divisor::of(taps), Divisor::of(g.kernel)};
    const SparseRows<float> rows = w.rows();
    const As<T> from{x.data.data()};
    const As<Out> to{out.data()};
    const Finish finish = w.finish();
    const auto tiles = static_cast<uint32_t>((g.outputs + 31) / 32 * ((pixels + 31) / 32));
    CU_LAUNCH((spconv_tiles<As<Out>, As<T>>), dim3(1), dim3(kSparseThreads), 0, 0, tiles, rows, images, from, to, finish);
    double most = 0;
    for (int p = 0; p < pixels; p++)
      for (int o = 0; o < g.outputs; o++)
        most = std::max(most, w.off_at<Out>(o, value_of<Out>(out[size_t(p / area * g.outputs + o) * area + p % area]), [&](int i) {
          const int y = p % area / g.out() * g.stride - g.pad + i % taps / g.kernel, column = p % g.out() * g.stride - g.pad + i % g.kernel;
          const bool inside = y >= 0 && y < g.size && column >= 0 && column < g.size;
          return inside ? x.values[(size_t(p / area * g.channels + i / taps) * g.size + y) * g.size + column] : 0.0;
        }));
    return most;
  });
}

int main() {
  using cu::bf16, cu::f16;
  const int quick =
#ifdef KERF_QUICK
      KERF_QUICK;
#else
      0;
#endif
  if (quick == 0 || quick == 1) product<float, float>("tiles f32", 64, 64, 50);
  if (quick == 0 || quick == 2) product<float, float>("few f32", 21, 5, 130);
  if (quick == 0 || quick == 3) convolution<float, float>("conv f32", {2, 5, 7, 19, 3, 2, 2});
  if (quick != 0) return 0;
  product<f16, f16>("tiles f16", 32, 64, 31);
  product<bf16, float>("tiles bf16", 45, 37, 40);
  product<float, float>("tiles f32", 1, 9, 3);
  product<f16, f16>("few f16", 64, 8, 70);
  product<bf16, float>("few bf16", 9, 1, 33);
  convolution<float, float>("conv f32", {2, 6, 8, 64, 1, 1, 0});
  convolution<f16, f16>("conv f16", {1, 3, 6, 5, 2, 1, 1});
  convolution<bf16, float>("conv bf16", {3, 2, 5, 33, 3, 1, 1});
}
