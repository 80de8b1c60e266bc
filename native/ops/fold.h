// Folds any subset of a view's axes, whatever its strides: the frame that sum, max, variance, argmax ... share.
//
// Outputs are handled in units: one output when the innermost reduced axis is the denser one (rows), else up to
// kUnit neighbouring outputs at once (columns). When there are too few units to share among threads, the reduced
// range is cut into pieces too, whose states are merged in order. Every cut depends on shapes alone, so the result does
// not depend on the number of threads.
#pragma once
#include <cstring>

#include "../core/contracts.h"
#include "../core/stream.h"
#include "axes.h"
#include "targets.h"

namespace kerf {

constexpr int64_t kUnit = 512;             // columns in a unit: 8 KiB of state
constexpr int64_t kTile = 4096;            // elements gathered at a time when a view is not dense
constexpr int64_t kPieceElements = 65536;  // work of a piece, a few microseconds
constexpr int64_t kTaskElements = 32768;
constexpr int64_t kEnoughUnits = 16;

// The running state of a unit: two arrays of up to 8 bytes an output.
struct FoldState {
  int64_t index;  // of the unit's first output
  alignas(64) char first[kUnit * 8];
  alignas(64) char second[kUnit * 8];
  template <class T>
  T* first_as() {
    return reinterpret_cast<T*>(first);
  }
  template <class T>
  T* second_as() {
    return reinterpret_cast<T*>(second);
  }
};

struct FoldPlan {
  Axes<2> kept;     // of a and out, without the columns
  Axes<1> reduced;  // of a, without the steps
  int64_t columns, a_column, out_column;
  int64_t steps, a_step;  // the innermost reduced axis
  bool by_columns;
  int64_t outputs, size;  // size: elements folded into one output

  FoldPlan(const View& out, const View& a) {
    int order[kMaxRank];
    for (int i = 0; i < a.rank; i++) {  // by falling stride: permuted views are read as they lie in memory
      int at = i;
      for (; at > 0 && magnitude(a.stride[order[at - 1]]) < magnitude(a.stride[i]); at--) order[at] = order[at - 1];
      order[at] = i;
    }
    size = 1;
    for (int k = 0; k < a.rank; k++) {
      int i = order[k];
      if (out.shape[i] == a.shape[i]) {
        kept.push(a.shape[i], {a.stride[i], out.stride[i]});
      } else {
        reduced.push(a.shape[i], {a.stride[i]});
        size *= a.shape[i];
      }
    }
    outputs = kept.count();
    int64_t innermost = kept.rank ? magnitude(kept.stride[0][kept.rank - 1]) : 0;
    int64_t width = kept.rank ? kept.shape[kept.rank - 1] : 1;
    int64_t step[1];
    steps = reduced.pop(step);
    a_step = step[0];
    // A call for each of many short rows costs more than gathering them into columns.
    bool short_rows = steps < 16 && width >= 32;
    by_columns = size == 1 || (kept.rank && (innermost < magnitude(a_step) || short_rows));
    columns = 1;
    a_column = out_column = 0;
    if (by_columns) {
      int64_t column[2];
      columns = kept.pop(column);
      a_column = column[0];
      out_column = column[1];
    }
  }

  static int64_t magnitude(int64_t stride) { return stride < 0 ? -stride : stride; }
};

// A Fold has: bytes (of an element), start(state, count), row(state, n, a, first), columns(state, rows, columns, a,
// row, first), merge(state, count, first, second) and finish(state, count, out, out_column); `first` numbers the
// elements along the reduced axes.
template <class Fold>
class Folding {
 public:
  Folding(const Fold& fold, const View& out, const View& a) : fold_(fold), out_(out), a_(a), plan_(out, a) {}

  void run(double ns) {
    if (plan_.outputs == 0) return;
    blocks_ = ceil_div(plan_.columns, kUnit);
    int64_t units = plan_.outputs / plan_.columns * blocks_;
    int64_t total = plan_.outputs * plan_.size;
    pieces_ = 1;
    piece_ = plan_.size;
    if (units < kEnoughUnits && total > 2 * kPieceElements) {
      int64_t outputs = plan_.columns < kUnit ? plan_.columns : kUnit;
      piece_ = ceil_div(kPieceElements, outputs);
      if (piece_ < plan_.size / 256) piece_ = ceil_div(plan_.size, 256);
      pieces_ = ceil_div(plan_.size, piece_);
    }
    if (pieces_ > 1) {
      partial_ = static_cast<char*>(scratch(Scratch::convert, static_cast<size_t>(pieces_ * plan_.outputs * 16)));
      if (!partial_) return Stream::fail(Code::out_of_memory, "no memory for a reduction's partial results");
    }
    int64_t items = units * pieces_;
    int64_t each = total / items > 0 ? total / items : 1;
    int64_t per_task = ceil_div(kTaskElements, each);
    run_tasks(ns, ceil_div(items, per_task), [&](int64_t task) {
      int64_t end = (task + 1) * per_task < items ? (task + 1) * per_task : items;
      work(task * per_task, end);
    });
    if (pieces_ > 1) merge(units);
  }

 private:
  struct Unit {
    int64_t column, count, index;
  };  // index of its first output

  Unit unit(int64_t position, int64_t block) const {
    int64_t column = block * kUnit;
    int64_t count = plan_.columns - column < kUnit ? plan_.columns - column : kUnit;
    return {column, count, position * plan_.columns + column};
  }

  char* partial(int64_t piece, int64_t index, int part) const {
    return partial_ + ((part * pieces_ + piece) * plan_.outputs + index) * 8;
  }

  // Items are numbered piece by piece, and within a piece by kept position and column block.
  void work(int64_t item, int64_t end) {
    int64_t per_piece = plan_.outputs / plan_.columns * blocks_;
    int64_t piece = item / per_piece, position = item % per_piece / blocks_, block = item % per_piece % blocks_;
    Walk<2> at(plan_.kept, position);
    FoldState state;
    for (; item < end; item++) {
      Unit u = unit(position, block);
      state.index = u.index;
      fold_.start(state, u.count);
      fold(state, u, at.at[0], piece * piece_, piece_end(piece));
      if (pieces_ == 1) {
        fold_.finish(state, u.count, element(out_, at.at[1] + u.column * plan_.out_column), plan_.out_column);
      } else {
        memcpy(partial(piece, u.index, 0), state.first, static_cast<size_t>(u.count) * 8);
        memcpy(partial(piece, u.index, 1), state.second, static_cast<size_t>(u.count) * 8);
      }
      if (++block < blocks_) continue;
      block = 0;
      at.next();
      if (++position * blocks_ < per_piece) continue;
      position = 0;
      piece++;
    }
  }

  int64_t piece_end(int64_t piece) const {
    return (piece + 1) * piece_ < plan_.size ? (piece + 1) * piece_ : plan_.size;
  }

  void fold(FoldState& state, const Unit& u, int64_t offset, int64_t begin, int64_t end) {
    if (begin >= end) return;
    Walk<1> outer(plan_.reduced, begin / plan_.steps);
    int64_t step = begin % plan_.steps;
    while (begin < end) {
      int64_t n = plan_.steps - step < end - begin ? plan_.steps - step : end - begin;
      const char* a = element(a_, offset + u.column * plan_.a_column + outer.at[0] + step * plan_.a_step);
      if (plan_.by_columns)
        columns(state, n, u.count, a, begin);
      else
        row(state, n, a, begin);
      begin += n;
      step = 0;
      outer.next();
    }
  }

  void row(FoldState& state, int64_t n, const char* a, int64_t first) {
    if (plan_.a_step == 1 || n == 1) return fold_.row(state, n, a, first);
    char* tile = static_cast<char*>(scratch(Scratch::row, kTile * 8));
    if (!tile) return;
    CopyCell copy = kernels().copy[static_cast<int>(a_.dtype)][static_cast<int>(a_.dtype)];
    for (int64_t i = 0; i < n; i += kTile) {
      int64_t count = n - i < kTile ? n - i : kTile;
      copy(count, tile, 1, a + i * plan_.a_step * fold_.bytes, plan_.a_step);
      fold_.row(state, count, tile, first + i);
    }
  }

  void columns(FoldState& state, int64_t rows, int64_t count, const char* a, int64_t first) {
    if (plan_.a_column == 1 || count == 1) return fold_.columns(state, rows, count, a, plan_.a_step, first);
    char* tile = static_cast<char*>(scratch(Scratch::row, kTile * 8));
    if (!tile) return;
    CopyCell copy = kernels().copy[static_cast<int>(a_.dtype)][static_cast<int>(a_.dtype)];
    for (int64_t r = 0; r < rows; r += kTile / count) {
      int64_t some = rows - r < kTile / count ? rows - r : kTile / count;
      for (int64_t i = 0; i < some; i++)
        copy(count, tile + i * count * fold_.bytes, 1, a + (r + i) * plan_.a_step * fold_.bytes, plan_.a_column);
      fold_.columns(state, some, count, tile, count, first + r);
    }
  }

  void merge(int64_t units) {
    Walk<2> at(plan_.kept, 0);
    FoldState state;
    for (int64_t i = 0; i < units; i++) {
      Unit u = unit(i / blocks_, i % blocks_);
      state.index = u.index;
      fold_.start(state, u.count);
      for (int64_t p = 0; p < pieces_; p++) fold_.merge(state, u.count, partial(p, u.index, 0), partial(p, u.index, 1));
      fold_.finish(state, u.count, element(out_, at.at[1] + u.column * plan_.out_column), plan_.out_column);
      if (i % blocks_ == blocks_ - 1) at.next();
    }
  }

  const Fold& fold_;
  const View& out_;
  const View& a_;
  FoldPlan plan_;
  int64_t blocks_ = 1, pieces_ = 1, piece_ = 0;
  char* partial_ = nullptr;
};

// One core: about 0.05 ns an element beside the memory traffic at 20 GB/s.
static inline double fold_ns(const View& a) {
  return static_cast<double>(count(a)) * (0.05 + static_cast<double>(element_bytes(a.dtype)) / 20) + 100;
}

template <class Fold>
static inline void fold_axes(const Fold& fold, const View& out, const View& a, double ns) {
  Folding<Fold>(fold, out, a).run(ns);
}

}  // namespace kerf
