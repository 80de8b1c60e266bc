// The layers of sparse.bench.ts in CSR on Eigen: microseconds a product y = x W^T, best and median of short bursts, one thread.
//
//   apt-get install libeigen3-dev
//   g++ -O3 -march=native -DNDEBUG -I/usr/include/eigen3 bench/peers/eigen_sparse.cc -o /tmp/eigen_sparse && /tmp/eigen_sparse
//
// Y^T [n, m] = W [n, k] X^T [k, m] with X^T row-major, so that Eigen's inner loop runs over the rows of x, its best case; for one
// row a vector. Beside it the same product with W dense.
#include <Eigen/Dense>
#include <Eigen/Sparse>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <random>
#include <vector>

using Dense = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Sparse = Eigen::SparseMatrix<float, Eigen::RowMajor>;

template <class Body>
static std::pair<double, double> time_us(Body body) {
  std::vector<double> bursts;
  const auto begin = std::chrono::steady_clock::now();
  do {
    const auto from = std::chrono::steady_clock::now();
    body();
    bursts.push_back(std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - from).count());
  } while (bursts.size() < 5 || std::chrono::steady_clock::now() - begin < std::chrono::milliseconds(800));
  std::sort(bursts.begin(), bursts.end());
  return {bursts.front(), bursts[bursts.size() / 2]};
}

int main() {
  Eigen::setNbThreads(1);
  std::mt19937 random(1);
  std::uniform_real_distribution<float> uniform(0, 1);
  for (int n : {1024, 4096})
    for (int m : {1, 32, 512})
      for (double zeros : {0.65, 0.9, 0.95}) {
        Dense w = Dense::Zero(n, n);
        std::vector<Eigen::Triplet<float>> entries;
        for (int i = 0; i < n; i++)
          for (int j = 0; j < n; j++)
            if (uniform(random) >= zeros) entries.emplace_back(i, j, w(i, j) = uniform(random) - 0.5f);
        Sparse s(n, n);
        s.setFromTriplets(entries.begin(), entries.end());
        s.makeCompressed();
        const Dense x = Dense::Random(n, m);
        const Eigen::VectorXf v = x.col(0);
        Dense y(n, m), d(n, m);
        Eigen::VectorXf row(n), dense_row(n);
        const auto sparse = m == 1 ? time_us([&] { row.noalias() = s * v; }) : time_us([&] { y.noalias() = s * x; });
        const auto dense = m == 1 ? time_us([&] { dense_row.noalias() = w * v; }) : time_us([&] { d.noalias() = w * x; });
        const double error = m == 1 ? (row - dense_row).norm() / dense_row.norm() : (y - d).norm() / d.norm();
        printf("%4d x %4d x %4d, %2.0f %% zeros: %9.1f / %9.1f us, dense %9.1f us, error %.0e\n", m, n, n, 100 * zeros, sparse.first,
               sparse.second, dense.first, error);
      }
}
