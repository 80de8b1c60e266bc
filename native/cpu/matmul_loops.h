// Matmul around the register tile: which operands are read in place, which are packed, and how C is cut into tasks.
//
//   for each task, a block of C (row panels x column panels), on the pool:
//     for each block of k (about kBlock units: what a panel of B may take of the L2 cache):
//       pack the block's rows of A (thread's scratch), unless A is read in place or was packed for all tasks
//       for each panel of B:                  stays in L1/L2
//         for each row panel of A:            streams from L2
//           tile
//           after the last block of k: epilogue
//
// What differs between float and int8 products (how A is packed, what becomes of the sums) are the Rules of a dtype T:
//   Problem                                    what the cell is asked to do
//   kPacksB                                    B may come unpacked
//   sums_in_c(p)                               C's elements have room for the sums, which are kept there
//   finished(p)                                the sums are the result
//   begin_rows(p, row, rows)                   before the first of these rows is packed
//   pack_rows<T>(p, out, row, rows, k0, k)     a row panel's k columns from k0; false when memory is exhausted
//   finish<T>(p, sums, sums_row, row, rows, col, cols)
//
// Row panels are even (m = 15 is 8 + 7 rows, not 14 + 1): no tile wastes registers on a remainder. With at most kRows
// rows B is read once, so it is a matter of bandwidth: k is not blocked and tiles take several panels.
#pragma once
#include "matmul_pack.h"

namespace kerf::KERF_TARGET {

constexpr double kTaskOverheadNs = 500;
constexpr double kCachedBytes = 1 << 20;    // what a core's L2 cache holds
constexpr double kMemoryBytesPerNs = 40;

template <class T>
struct Product : RowPanels {
  const typename T::Rules::Problem* problem;
  int64_t units, k_blocks;
  int64_t unit_of(int64_t k_block) const {
    return k_block == k_blocks ? units : k_block * units / k_blocks / T::kTogether * T::kTogether;
  }
  int64_t most_units() const { return row_units<T>(ceil_div(units, k_blocks) + T::kTogether - 1); }
  int64_t col_panels;
  int64_t row_blocks, col_blocks;
  int64_t threads;
  // B: panel j starts at b + j * b_panel; `tail` is the packed last panel when B is read in place.
  const typename T::Unit* b;
  int64_t b_unit, b_panel;
  const typename T::Unit* tail;
  const float* a;  // null: each task packs its rows
  int64_t a_word;  // 0: packed panels of all of A; else read in place with these steps
  int64_t a_row;
};

template <class T>
static int vectors_at_once(int64_t rows) {
  constexpr int room = T::kRows * kPanelVectors;
  return rows * 8 <= room ? 8 : rows * 4 <= room ? 4 : kPanelVectors;
}

// C's lines for the tile after this one, into L2 (rows 4 KiB apart would evict each other from L1).
KERF_INLINE void prefetch_tile(const float* c, int64_t c_row, int64_t rows) {
  for (int64_t r = 0; r < rows; r++, c += c_row)
    for (int line = 0; line < kPanel; line += 16) __builtin_prefetch(c + line, 1, 2);
}

// A panel of 16-bit floats as the float32 panel that it stands for. Widening in the tile costs f16 7 % (the conversion
// shares pipes with the FMAs); done once for several row panels it costs next to nothing.
template <class T>
static void widen_panel(float* out, const typename T::Unit* b, int64_t units) {
  for (int64_t u = 0; u < units; u++, b += kPanel) {
#pragma GCC unroll 2
    for (int v = 0; v < kPanelVectors; v++) {
      const typename T::Loaded loaded = T::load_units(b + v * W);
#pragma GCC unroll 2
      for (int s = 0; s < T::kSub; s++) store(out + s * kPanel + v * W, T::step(loaded, s));
    }
    out += T::kSub * kPanel;
  }
}

constexpr int64_t kWidenRowPanels = 3;

// One task. False when scratch memory is exhausted.
template <class T>
static bool run_block(const Product<T>& x, int64_t row_block, int64_t col_block) {
  using Rules = typename T::Rules;
  const typename Rules::Problem& p = *x.problem;
  const int64_t row_panel0 = row_block * x.row_panels / x.row_blocks;
  const int64_t row_panel1 = (row_block + 1) * x.row_panels / x.row_blocks;
  const int64_t col_panel0 = col_block * x.col_panels / x.col_blocks;
  const int64_t col_panel1 = (col_block + 1) * x.col_panels / x.col_blocks;
  const int64_t row0 = x.row_of(row_panel0), rows = x.row_of(row_panel1) - row0;
  const int64_t col0 = col_panel0 * kPanel, cols = min_of(col_panel1 * kPanel, p.n) - col0;

  // Sums of 4 bytes: in C itself, else in a tile that is rounded at once, else in a block of scratch.
  const bool in_c = Rules::sums_in_c(p), finished = Rules::finished(p);
  alignas(64) float one_tile[T::kRows * kPanel];
  float* sums = one_tile;
  int64_t sums_row = 0;
  if (in_c) {
    sums = static_cast<float*>(p.c) + row0 * p.c_row + col0;
    sums_row = p.c_row;
  } else if (x.k_blocks > 1) {
    sums_row = ceil_div(cols, W) * W;
    sums = static_cast<float*>(scratch(Scratch::convert, static_cast<size_t>(rows * sums_row) * sizeof(float)));
    if (!sums) return false;
  }

  const int64_t panels_at_once = x.row_panels == 1 ? vectors_at_once<T>(p.m) / kPanelVectors : 1;
  float* wide = nullptr;
  if (T::kWidens && row_panel1 - row_panel0 >= kWidenRowPanels) {
    const int64_t words = x.most_units() * T::kSub;
    wide = static_cast<float*>(scratch(Scratch::widen, static_cast<size_t>(words * kPanel) * sizeof(float)));
    if (!wide) return false;
  }
  float* own_a = nullptr;
  if (!x.a) {
    const int64_t words = rows * x.most_units() * T::kSub + kBeyondA<T>;
    own_a = static_cast<float*>(scratch(Scratch::pack_a, static_cast<size_t>(words) * sizeof(float)));
    if (!own_a) return false;
    Rules::begin_rows(p, row0, rows);
  }

  [[maybe_unused]] const typename T::TileState state;
  for (int64_t k_block = 0; k_block < x.k_blocks; k_block++) {
    const int64_t unit0 = x.unit_of(k_block), units = x.unit_of(k_block + 1) - unit0;
    const bool last_block = k_block + 1 == x.k_blocks;
    if (own_a) {
      const int64_t p0 = unit0 * T::kElements, k = min_of(units * T::kElements, p.k - p0);
      for (int64_t panel = row_panel0; panel < row_panel1; panel++) {
        const int64_t row = x.row_of(panel);
        float* to = own_a + (row - row0) * row_units<T>(units) * T::kSub;
        if (!Rules::template pack_rows<T>(p, to, row, x.row_of(panel + 1) - row, p0, k)) return false;
      }
    }
    int64_t step;
    for (int64_t col_panel = col_panel0; col_panel < col_panel1; col_panel += step) {
      step = 1;
      while (step * 2 <= panels_at_once && (col_panel + step * 2) * kPanel <= col0 + cols) step *= 2;
      const int64_t col = col_panel * kPanel, width = min_of(step * kPanel, p.n - col);
      const int vectors = static_cast<int>(width <= W ? 1 : step * kPanelVectors);
      const bool tail = x.tail && width < kPanel;
      TileArgs<T> args;
      args.units = units;
      args.b_unit = tail ? kPanel : x.b_unit;
      args.b_panel = x.b_panel;
      args.b = (tail ? x.tail : x.b + col_panel * x.b_panel) + unit0 * args.b_unit;
      args.last = width - (vectors - 1) * W;
      args.accumulate = k_block > 0;
      if (x.row_panels == 1) {
        args.distance = kStreamAhead / static_cast<int64_t>(sizeof(typename T::Unit)) / step;
        args.ahead = reinterpret_cast<const char*>(args.b);
        args.ahead_step = 0;
      } else {
        args.distance = T::kPrefetch;
        args.ahead = reinterpret_cast<const char*>(args.b + args.b_panel);
        args.ahead_step = ceil_div(kPanel * static_cast<int64_t>(sizeof(typename T::Unit)), row_panel1 - row_panel0);
      }
      TileArgs<typename T::Wide> wide_args;
      if constexpr (T::kWidens) {
        if (wide) {
          widen_panel<T>(wide, args.b, units);
          wide_args.units = units * T::kSub;
          wide_args.b = wide;
          wide_args.b_unit = kPanel;
          wide_args.b_panel = 0;
          wide_args.last = args.last;
          wide_args.accumulate = args.accumulate;
          wide_args.distance = 0;
          wide_args.ahead_step = ceil_div(args.ahead_step, T::kSub);
        }
      }
      for (int64_t panel = row_panel0; panel < row_panel1; panel++) {
        const int64_t row = x.row_of(panel), height = x.row_of(panel + 1) - row;
        bool direct = false;
        args.a_row = 1;
        if (own_a) {
          args.a = own_a + (row - row0) * row_units<T>(units) * T::kSub;
          args.a_word = height;
        } else if (x.a_word == 0) {
          args.a = x.a + (row * row_units<T>(x.units) + unit0 * height) * T::kSub;
          args.a_word = height;
        } else {
          args.a = x.a + row * x.a_row + unit0 * T::kSub * x.a_word;
          args.a_word = x.a_word;
          args.a_row = x.a_row;
          direct = x.a_row != 1;
        }
        args.c = sums_row ? sums + (row - row0) * sums_row + (col - col0) : sums;
        args.c_row = sums_row ? sums_row : vectors * W;
        if (sums_row) {
          const bool wraps = panel + 1 == row_panel1;
          prefetch_tile(wraps ? sums + (col - col0) + width : args.c + height * args.c_row, args.c_row, height);
        }
        if (wide) {
          wide_args.a = args.a;
          wide_args.a_word = args.a_word;
          wide_args.a_row = 1;
          wide_args.c = args.c;
          wide_args.c_row = args.c_row;
          wide_args.ahead = args.ahead;
          multiply_tile<typename T::Wide, ASource::packed>(wide_args, height, vectors);
        } else if (direct) {
          if constexpr (T::kReadsInPlace) multiply_tile<T, ASource::direct>(args, height, vectors);
        } else {
          multiply_tile<T, ASource::packed>(args, height, vectors);
        }
        if (last_block && !finished) Rules::template finish<T>(p, args.c, args.c_row, row, height, col, width);
        args.ahead += args.units * args.ahead_step;
      }
    }
  }
  return true;
}

// Whether tasks read A where it is, for want of uses that would pay for packing it.
template <class T>
static bool reads_a_in_place(const Product<T>& x) {
  const auto& p = *x.problem;
  if (!T::kReadsInPlace || p.a_col != 1) return false;
  if (p.m == 1) return true;
  // Rows a multiple of 4 KiB apart fall into the same cache set: more of them than ways would evict each other.
  if (p.m > 8 && p.a_row % 1024 == 0 && p.k > 64) return false;
  // Packing pays from four panels of B on (3 %), but not as one more parallel region before a short one (5 to 10 %).
  return x.col_panels <= 3 || (x.threads > 1 && p.m * p.k <= 64 * 1024);
}

// How many blocks C is cut into. One thread: as few as the caches allow. Several: the grid that should end first, by the
// number of turns and the largest block's time, where a tenth of that time stands for a thread that wakes late.
template <class T>
static void cut_into_tasks(Product<T>& x) {
  const auto& p = *x.problem;
  const double ns = 2.0 * p.m * p.n * p.k / T::kFlopsPerNs +
                    static_cast<double>(packed_bytes<T>(p.k, p.n)) / 40 + static_cast<double>(p.m) * p.n / 10;
  const int64_t threads = x.threads = ns < kSerialNs ? 1 : pool_threads();
  const int64_t row_panel_bytes = T::kRows * x.most_units() * T::kSub * 4;
  const int64_t panels_max = min_of(T::kRowPanelsInBlock, max_of(1, T::kPackedA / max_of(row_panel_bytes, 1)));
  const int64_t rows_min = ceil_div(x.row_panels, panels_max);
  const int64_t cols_min = !T::Rules::sums_in_c(p) && x.k_blocks > 1 ? ceil_div(p.n, 1024) : 1;
  x.row_blocks = rows_min;
  x.col_blocks = cols_min;
  if (threads == 1) return;
  if (rows_min * cols_min >= 4 * threads) {
    x.row_blocks = min_of(ceil_div(rows_min, threads) * threads, x.row_panels);
    return;
  }
  const int64_t most = min_of(8 * threads, static_cast<int64_t>(ns / kTaskNs));
  // A B that the caches do not hold is read once more for every block of rows.
  const double b_bytes = static_cast<double>(packed_bytes<T>(p.k, p.n));
  const double panel_ns = b_bytes > kCachedBytes ? b_bytes / kMemoryBytesPerNs / static_cast<double>(x.col_panels) : 0;
  double best = 0;
  for (int64_t rows = rows_min; rows <= x.row_panels && rows * cols_min <= most; rows++) {
    for (int64_t cols = cols_min; cols <= x.col_panels && rows * cols <= most; cols++) {
      const int64_t col_panels = ceil_div(x.col_panels, cols), panels = ceil_div(x.row_panels, rows) * col_panels;
      const double overhead = kTaskOverheadNs + panel_ns * static_cast<double>(col_panels);
      const double largest =
          overhead + ns * static_cast<double>(panels) / static_cast<double>(x.row_panels * x.col_panels);
      const double turns = static_cast<double>(ceil_div(rows * cols, threads)) * largest;
      // blocks of unlike size, handed out one by one
      const double all = ns + static_cast<double>(rows * cols) * overhead;
      const double greedy = (all + largest * static_cast<double>(threads - 1)) / static_cast<double>(threads);
      const double end = (turns < greedy ? turns : greedy) + largest / 10;
      if (best == 0 || end <= best) {  // of equals the widest block: all its panels but the first are fetched ahead
        best = end;
        x.row_blocks = rows;
        x.col_blocks = cols;
      }
    }
  }
}

// Decides how B is reached; packs it when it is neither packed nor readable in place.
template <class T>
static bool prepare_b(Product<T>& x) {
  const auto& p = *x.problem;
  using Unit = typename T::Unit;
  x.tail = nullptr;
  x.b_unit = kPanel;
  x.b_panel = kPanel * x.units;
  x.b = static_cast<const Unit*>(p.packed);
  if (p.packed) return true;
  if constexpr (T::kReadsInPlace) {
    // Rows of B far apart cost a page each: in place only while that is little work or B is used once.
    if (p.b_col == 1 && (x.row_panels == 1 || (p.m <= 128 && p.k * p.n <= 128 * 1024))) {
      x.b = static_cast<const Unit*>(p.b);
      x.b_unit = p.b_row;
      x.b_panel = kPanel;
      if (p.n % kPanel) {
        Unit* tail = static_cast<Unit*>(scratch(Scratch::pack_b, static_cast<size_t>(kPanel * x.units) * sizeof(Unit)));
        if (!tail) return false;
        const int64_t j = p.n / kPanel * kPanel;
        pack_b_panel<T>(tail, x.b + j, p.k, p.n - j, p.b_row, 1);
        x.tail = tail;
      }
      return true;
    }
  }
  if constexpr (T::Rules::kPacksB) {
    const int64_t bytes = packed_bytes<T>(p.k, p.n);
    void* packed = scratch(Scratch::pack_b, static_cast<size_t>(bytes));
    if (!packed) return false;
    const int64_t panels_a_task = max_of(1, 64 * 1024 / (kPanel * max_of(x.units, 1)));
    parallel_if(p.k * p.n > 256 * 1024, ceil_div(x.col_panels, panels_a_task), [&](int64_t task) {
      const int64_t begin = task * panels_a_task;
      pack_b_panels<T>(packed, p.b, p.k, p.n, p.b_row, p.b_col, begin, min_of(begin + panels_a_task, x.col_panels));
    });
    x.b = static_cast<const Unit*>(packed);
  }
  return true;
}

// A is read in place when that is cheap, packed once when several tasks share its rows, else left to the tasks.
template <class T>
static bool prepare_a(Product<T>& x) {
  using Rules = typename T::Rules;
  const typename Rules::Problem& p = *x.problem;
  x.a = nullptr;
  x.a_word = 0;
  x.a_row = 1;
  if constexpr (T::kReadsInPlace) {
    if (reads_a_in_place(x)) {
      x.a = static_cast<const float*>(p.a);
      x.a_word = 1;
      x.a_row = p.m == 1 ? 1 : p.a_row;
      return true;
    }
    if (p.a_row == 1 && x.col_panels <= 12 && p.m * p.k <= 16 * 1024) {
      x.a = static_cast<const float*>(p.a);
      x.a_word = p.a_col;
      return true;
    }
  }
  if (x.col_blocks == 1) return true;
  const size_t words = static_cast<size_t>(p.m * row_units<T>(x.units) * T::kSub + kBeyondA<T>);
  float* out = static_cast<float*>(scratch(Scratch::pack_a, words * sizeof(float)));
  if (!out) return false;
  int32_t failed = 0;
  parallel_if(p.m * p.k > 32 * 1024, x.row_panels, [&](int64_t panel) {
    const int64_t row = x.row_of(panel), rows = x.row_of(panel + 1) - row;
    Rules::begin_rows(p, row, rows);
    if (!Rules::template pack_rows<T>(p, out + row * row_units<T>(x.units) * T::kSub, row, rows, 0, p.k))
      __atomic_store_n(&failed, 1, __ATOMIC_RELAXED);
  });
  x.a = out;
  return !failed;
}

// The product by tiles.
template <class T>
static bool run_tiles(const typename T::Rules::Problem& p) {
  if (p.m == 0 || p.n == 0) return true;
  Product<T> x;
  x.problem = &p;
  x.m = p.m;
  x.units = units_of<T>(p.k);
  x.row_panels = ceil_div(p.m, T::kRows);
  x.col_panels = ceil_div(p.n, kPanel);
  const int64_t k_block = T::Rules::sums_in_c(p) ? T::kBlock : T::kBlock16;
  x.k_blocks = x.row_panels == 1 ? 1 : max_of(1, (x.units + k_block / 2) / k_block);
  cut_into_tasks(x);
  if (!prepare_b(x) || !prepare_a(x)) return false;
  int32_t failed = 0;
  parallel_if(true, x.row_blocks * x.col_blocks, [&](int64_t task) {
    if (!run_block(x, task % x.row_blocks, task / x.row_blocks)) __atomic_store_n(&failed, 1, __ATOMIC_RELAXED);
  });
  return !failed;
}

}  // namespace kerf::KERF_TARGET
