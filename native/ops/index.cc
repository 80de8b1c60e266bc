// indexSelect and gather read at indices, indexAdd and scatterAdd add at them.
//
// Additions happen in index order, so a result is deterministic: threads share the other axes, never the index. A sum
// of 16-bit floats is kept in float32 and rounded once.
#include <algorithm>
#include <atomic>

#include "../core/contracts.h"
#include "../core/stream.h"
#include "axes.h"
#include "ops.h"
#include "scalar.h"

namespace kerf::ops {
namespace {

constexpr int64_t kTaskElements = 16384;
constexpr int64_t kRun = 256;  // elements of one run: neighbours along the innermost of the other axes

// What pool threads find and the stream's thread reports: the first index out of range, by its number in the index
// view.
struct BadIndex {
  std::atomic<int64_t> number{INT64_MAX};

  void found(int64_t at) {
    int64_t seen = number.load();
    while (at < seen && !number.compare_exchange_weak(seen, at)) {
    }
  }

  void report(const char* op, const View& index, int64_t size) const {
    if (number == INT64_MAX) return;
    int64_t rest = number, offset = 0;
    char position[160];
    int length = 0;
    int64_t coordinate[kMaxRank];
    for (int i = index.rank - 1; i >= 0; i--) {
      coordinate[i] = rest % index.shape[i];
      rest /= index.shape[i];
      offset += coordinate[i] * index.stride[i];
    }
    for (int i = 0; i < index.rank; i++)
      length += snprintf(position + length, sizeof position - static_cast<size_t>(length), i ? ", %lld" : "%lld",
                         static_cast<long long>(coordinate[i]));
    position[index.rank ? length : 0] = 0;
    Stream::fail(Code::range, "%s: index %lld at [%s] is outside [%lld, %lld)", op,
                 static_cast<long long>(static_cast<const int64_t*>(index.data)[offset]), position,
                 static_cast<long long>(-size), static_cast<long long>(size));
  }
};

bool same_but(const View& a, const View& b, int64_t axis) {
  if (a.rank != b.rank) return false;
  for (int i = 0; i < a.rank; i++)
    if (i != axis && a.shape[i] != b.shape[i]) return false;
  return true;
}

int64_t distance(int64_t stride) { return stride < 0 ? -stride : stride; }

// The loops shared by all four ops: runs along the innermost of the other axes, or along the index axis where that is
// denser or the only one. x is the view that is indexed, y the one with the index's shape.
struct IndexLoop {
  View x, y, index;
  int64_t axis;
  bool along;      // runs go along the index axis
  Axes<4> others;  // x, y, index, number of the index; without the run unless `along`
  int64_t run;     // elements of a whole run
  int64_t run_x, run_y, run_index, run_number;
  int64_t steps;  // runs at each position of `others`: along the index axis, 1 if the run goes along it
  int64_t number_step;

  IndexLoop(const View& x_, const View& y_, const View& index_, int64_t axis_, bool one_vector)
      : x(x_), y(y_), index(index_), axis(axis_) {
    int64_t number[kMaxRank] = {};
    int64_t n = 1;
    for (int i = index.rank - 1; i >= 0; i--) {
      if (one_vector && i != axis) continue;
      number[i] = n;
      n *= index.shape[i];
    }
    int rank = index.rank;
    for (int i = 0; i < rank; i++)
      if (i != axis) others.push(index.shape[i], {x.stride[i], y.stride[i], index.stride[i], number[i]});
    int64_t length = rank ? index.shape[axis] : 1;
    number_step = rank ? number[axis] : 0;
    int last = others.rank - 1;
    along = last < 0 || others.shape[last] < 4 || (rank && distance(y.stride[axis]) < distance(others.stride[1][last]));
    if (along) {
      run = length;
      steps = 1;
      run_x = 0;
      run_y = rank ? y.stride[axis] : 0;
      run_index = rank ? index.stride[axis] : 0;
      run_number = number_step;
    } else {
      int64_t step[4];
      run = others.pop(step);
      steps = length;
      run_x = step[0];
      run_y = step[1];
      run_index = step[2];
      run_number = step[3];
    }
  }

  int64_t axis_step() const { return x.rank ? x.stride[axis] : 0; }
  int64_t axis_size() const { return x.rank ? x.shape[axis] : 1; }
  int64_t elements() const { return others.count() * steps * run; }
  const int64_t* index_at(int64_t offset) const { return static_cast<const int64_t*>(index.data) + offset; }
  int64_t y_step() const { return along ? 0 : y.stride[axis]; }
  int64_t index_step() const { return along ? 0 : index.stride[axis]; }
};

// ---- reading

Status read(const char* op, Stream& stream, const View& out, const View& a, const View& index, const View& shown,
            i64 axis, bool one_vector) {
  REQUIRE(out.dtype == a.dtype && index.dtype == DType::int64_);
  REQUIRE(same_shape(out, index) && a.rank == out.rank && (a.rank == 0 || (axis >= 0 && axis < a.rank)));
  GatherCell cell = kernels().gather[static_cast<int>(a.dtype)];
  if (!cell) return no_kernel(op, a.dtype);
  double ns = static_cast<double>(count(out)) * (0.3 + static_cast<double>(element_bytes(a.dtype)) / 10) + 150;
  return stream.run(ns, [=] {
    if (count(out) == 0) return;
    IndexLoop loop(a, out, index, axis, one_vector);
    int d = static_cast<int>(a.dtype);
    CopyCell copy = kernels().copy[d][d];
    int64_t bytes = element_bytes(a.dtype), size = loop.axis_size(), axis_step = loop.axis_step();
    bool whole = !loop.along && loop.run_index == 0;  // a run has one index: it is copied as it stands
    int64_t runs = loop.others.count() * loop.steps;
    int64_t per_task = ceil_div(kTaskElements, loop.run);
    BadIndex bad;
    run_tasks(ns, ceil_div(runs, per_task), [&](int64_t task) {
      int64_t begin = task * per_task, end = begin + per_task < runs ? begin + per_task : runs;
      Walk<4> at(loop.others, begin / loop.steps);
      int64_t step = begin % loop.steps;
      for (int64_t r = begin; r < end; r++) {
        const int64_t* indices = loop.index_at(at.at[2] + step * loop.index_step());
        char* to = element(out, at.at[1] + step * loop.y_step());
        int64_t number = at.at[3] + step * loop.number_step;
        if (whole) {
          int64_t i = *indices;
          if (i < -size || i >= size) {
            bad.found(number);
            for (int64_t e = 0; e < loop.run; e++) memset(to + e * loop.run_y * bytes, 0, static_cast<size_t>(bytes));
          } else {
            copy(loop.run, to, loop.run_y, element(a, at.at[0] + (i < 0 ? i + size : i) * axis_step), loop.run_x);
          }
        } else {
          for (int64_t e = 0; e < loop.run; e++) {  // goes on after an index out of range, whose element is 0
            e += cell(loop.run - e, to + e * loop.run_y * bytes, loop.run_y, element(a, at.at[0] + e * loop.run_x),
                      loop.run_x, axis_step, size, indices + e * loop.run_index, loop.run_index);
            if (e == loop.run) break;
            bad.found(number + e * loop.run_number);
            memset(to + e * loop.run_y * bytes, 0, static_cast<size_t>(bytes));
          }
        }
        if (++step < loop.steps) continue;
        step = 0;
        at.next();
      }
    });
    bad.report(op, shown, size);
  });
}

// ---- adding

// Adds y's runs [begin, begin + n) of one position, in index order. `sums` is x itself, or float32 sums of its lines.
struct Lines {
  char* sums;
  int64_t bytes, step, axis_step;
};

void add_runs(const IndexLoop& loop, ScatterAddCell cell, const Lines& lines, const Walk<4>& at, int64_t begin,
              int64_t n, BadIndex& bad) {
  int64_t y_bytes = element_bytes(loop.y.dtype);
  for (int64_t step = 0; step < loop.steps; step++) {
    const int64_t* indices = loop.index_at(at.at[2] + step * loop.index_step() + begin * loop.run_index);
    const char* from = element(loop.y, at.at[1] + step * loop.y_step() + begin * loop.run_y);
    for (int64_t e = 0; e < n; e++) {
      e += cell(n - e, lines.sums + e * lines.step * lines.bytes, lines.step, lines.axis_step, loop.axis_size(),
                indices + e * loop.run_index, loop.run_index, from + e * loop.run_y * y_bytes, loop.run_y);
      if (e == n) break;
      bad.found(at.at[3] + step * loop.number_step + (begin + e) * loop.run_number);
    }
  }
}

// float32 sums of `lines` lines of x along the index axis, laid out [size][lines].
bool add_in_float(const IndexLoop& loop, ScatterAddCell cell, const Walk<4>& at, int64_t begin, int64_t n,
                  int64_t lines, BadIndex& bad) {
  int64_t size = loop.axis_size();
  float* sums = static_cast<float*>(scratch(Scratch::row, static_cast<size_t>(size * lines) * sizeof(float)));
  if (!sums) return false;
  int d = static_cast<int>(loop.x.dtype), f = static_cast<int>(DType::float32_);
  for (int64_t i = 0; i < size; i++)
    kernels().copy[d][f](lines, sums + i * lines, 1,
                         element(loop.x, at.at[0] + begin * loop.run_x + i * loop.axis_step()), loop.run_x);
  add_runs(loop, cell, {reinterpret_cast<char*>(sums), 4, loop.along ? 0 : 1, lines}, at, begin, n, bad);
  for (int64_t i = 0; i < size; i++)
    kernels().copy[f][d](lines, element(loop.x, at.at[0] + begin * loop.run_x + i * loop.axis_step()), loop.run_x,
                         sums + i * lines, 1);
  return true;
}

// Whole contiguous runs with one index each (an embedding's gradient) are vector additions. 16-bit floats visit their
// targets one by one, so that each is converted and rounded once.
struct Visit {
  int64_t target, step;
  bool operator<(const Visit& other) const {
    return target != other.target ? target < other.target : step < other.step;
  }
};

bool add_sorted(const IndexLoop& loop, const Visit* visits, int64_t n_visits, const Walk<4>& at, int64_t begin,
                int64_t n) {
  float* sums = static_cast<float*>(scratch(Scratch::row, static_cast<size_t>(2 * n) * sizeof(float)));
  if (!sums) return false;
  float* value = sums + n;
  int d = static_cast<int>(loop.x.dtype), f = static_cast<int>(DType::float32_);
  const Kernels& k = kernels();
  for (int64_t v = 0; v < n_visits;) {
    char* to = element(loop.x, at.at[0] + begin * loop.run_x + visits[v].target * loop.axis_step());
    k.copy[d][f](n, sums, 1, to, loop.run_x);
    for (int64_t target = visits[v].target; v < n_visits && visits[v].target == target; v++) {
      k.copy[d][f](n, value, 1, element(loop.y, at.at[1] + begin * loop.run_y + visits[v].step * loop.y_step()),
                   loop.run_y);
      k.binary[static_cast<int>(Binary::add)][f](n, sums, sums, 1, value, 1);
    }
    k.copy[f][d](n, to, loop.run_x, sums, 1);
  }
  return true;
}

void add_whole_runs(const IndexLoop& loop, const Walk<4>& at, int64_t begin, int64_t n, BadIndex& bad) {
  BinaryCell add = kernels().binary[static_cast<int>(Binary::add)][static_cast<int>(loop.x.dtype)];
  int64_t size = loop.axis_size();
  for (int64_t step = 0; step < loop.steps; step++) {
    int64_t i = *loop.index_at(at.at[2] + step * loop.index_step());
    if (i < -size || i >= size) {
      bad.found(at.at[3] + step * loop.number_step);
      continue;
    }
    char* to = element(loop.x, at.at[0] + begin + (i < 0 ? i + size : i) * loop.axis_step());
    add(n, to, to, 1, element(loop.y, at.at[1] + step * loop.y_step() + begin * loop.run_y), loop.run_y);
  }
}

// The visits of the one index vector, by target and then in index order; those out of range are left out. Null when
// there is no memory.
Visit* sort_visits(const IndexLoop& loop, int64_t& n_visits, BadIndex& bad) {
  Visit* visits = static_cast<Visit*>(scratch(Scratch::convert, static_cast<size_t>(loop.steps) * sizeof(Visit)));
  if (!visits) return nullptr;
  int64_t size = loop.axis_size();
  n_visits = 0;
  for (int64_t step = 0; step < loop.steps; step++) {
    int64_t i = *loop.index_at(step * loop.index_step());
    if (i < -size || i >= size)
      bad.found(step * loop.number_step);
    else
      visits[n_visits++] = {i < 0 ? i + size : i, step};
  }
  std::sort(visits, visits + n_visits);
  return visits;
}

Status add_at(const char* op, Stream& stream, const View& out, const View& a, const View& index, const View& shown,
              i64 axis, bool one_vector) {
  REQUIRE(out.dtype == a.dtype && index.dtype == DType::int64_);
  REQUIRE(index.rank == a.rank && out.rank == a.rank && (a.rank == 0 || (axis >= 0 && axis < a.rank)));
  for (int i = 0; i < a.rank; i++)
    REQUIRE(index.shape[i] <= a.shape[i] && (i == axis || index.shape[i] <= out.shape[i]));
  ScatterAddCell cell = kernels().scatter_add[static_cast<int>(a.dtype)];
  if (!cell) return no_kernel(op, a.dtype);
  double ns = static_cast<double>(count(index)) * 1.0 + 150;
  return stream.run(ns, [=] {
    if (count(index) == 0) return;
    IndexLoop loop(out, a, index, axis, one_vector);
    bool narrow = is_floating(a.dtype) && a.dtype != DType::float32_;
    bool whole = one_vector && !loop.along && loop.run_x == 1 &&
                 kernels().binary[static_cast<int>(Binary::add)][static_cast<int>(a.dtype)];
    BadIndex bad;
    int64_t n_visits = 0;
    Visit* visits = nullptr;
    if (whole && narrow && !(visits = sort_visits(loop, n_visits, bad)))
      return Stream::fail(Code::out_of_memory, "%s: no memory to sort %lld indices", op,
                          static_cast<long long>(loop.steps));
    int64_t size = loop.axis_size();
    int64_t lines = kRun;  // float32 sums of whole lines must stay within a few MiB
    if (narrow && !whole)
      lines = size > (1 << 20) / kRun ? std::max<int64_t>((1 << 20) / std::max<int64_t>(size, 1), 1) : kRun;
    int64_t blocks = loop.along ? 1 : ceil_div(loop.run, lines);
    std::atomic<bool> failed = false;
    run_tasks(ns, loop.others.count() * blocks, [&](int64_t task) {
      Walk<4> at(loop.others, task / blocks);
      int64_t begin = loop.along ? 0 : task % blocks * lines;
      int64_t n = loop.along ? loop.run : std::min(lines, loop.run - begin);
      bool fine = true;
      if (visits)
        fine = add_sorted(loop, visits, n_visits, at, begin, n);
      else if (whole)
        add_whole_runs(loop, at, begin, n, bad);
      else if (narrow)
        fine = add_in_float(loop, cell, at, begin, n, loop.along ? 1 : n, bad);
      else
        add_runs(loop, cell,
                 {element(out, at.at[0] + begin * loop.run_x), element_bytes(out.dtype), loop.run_x, loop.axis_step()},
                 at, begin, n, bad);
      if (!fine) failed = true;
    });
    if (failed) Stream::fail(Code::out_of_memory, "%s: no memory for float32 sums", op);
    bad.report(op, shown, size);
  });
}

}  // namespace

Status indexSelect(Stream& stream, View out, View a, View index, i64 axis) {
  REQUIRE(index.rank == 1 && axis >= 0 && axis < a.rank && same_but(out, a, axis) && out.shape[axis] == index.shape[0]);
  return read("indexSelect", stream, out, a, spread(index, out, axis), index, axis, true);
}

Status gather(Stream& stream, View out, View a, View index, i64 axis) {
  for (int i = 0; i < out.rank && i < a.rank; i++) REQUIRE(i == axis || out.shape[i] <= a.shape[i]);
  return read("gather", stream, out, a, index, index, axis, false);
}

Status indexAdd(Stream& stream, View out, View a, View index, i64 axis) {
  REQUIRE(index.rank == 1 && axis >= 0 && axis < a.rank && same_but(out, a, axis) && a.shape[axis] == index.shape[0]);
  return add_at("indexAdd", stream, out, a, spread(index, a, axis), index, axis, true);
}

Status scatterAdd(Stream& stream, View out, View a, View index, i64 axis) {
  return add_at("scatterAdd", stream, out, a, index, index, axis, false);
}

}  // namespace kerf::ops
