// Axes that N strided views share, simplified: axes of size 1 are gone and neighbours that step alike are one. Most
// views end up with one or two.
#pragma once
#include "view.h"

namespace kerf {

template <int N>
struct Axes {
  int rank = 0;
  int64_t shape[kMaxRank];
  int64_t stride[N][kMaxRank];

  // Appends an axis inside the present ones.
  void push(int64_t size, const int64_t (&step)[N]) {
    if (size == 1) return;
    bool merges = rank > 0;
    for (int v = 0; v < N && merges; v++) merges = stride[v][rank - 1] == step[v] * size;
    if (merges) rank--;
    shape[rank] = merges ? shape[rank] * size : size;
    for (int v = 0; v < N; v++) stride[v][rank] = step[v];
    rank++;
  }

  // Takes the innermost axis off; an axis of size 1 when there is none.
  int64_t pop(int64_t (&step)[N]) {
    for (int v = 0; v < N; v++) step[v] = rank ? stride[v][rank - 1] : 0;
    return rank ? shape[--rank] : 1;
  }

  int64_t count() const {
    int64_t n = 1;
    for (int i = 0; i < rank; i++) n *= shape[i];
    return n;
  }
};

// The offsets, in elements, of one position after another in row-major order.
template <int N>
struct Walk {
  const Axes<N>& axes;
  int64_t at[N] = {};
  int64_t coordinate[kMaxRank] = {};

  Walk(const Axes<N>& over, int64_t position) : axes(over) {
    for (int i = axes.rank - 1; i >= 0 && position > 0; i--) {
      coordinate[i] = i ? position % axes.shape[i] : position;
      position = i ? position / axes.shape[i] : 0;
      for (int v = 0; v < N; v++) at[v] += coordinate[i] * axes.stride[v][i];
    }
  }

  void next() {
    for (int i = axes.rank - 1; i >= 0; i--) {
      for (int v = 0; v < N; v++) at[v] += axes.stride[v][i];
      if (++coordinate[i] < axes.shape[i]) return;
      for (int v = 0; v < N; v++) at[v] -= axes.shape[i] * axes.stride[v][i];
      coordinate[i] = 0;
    }
  }
};

}  // namespace kerf
