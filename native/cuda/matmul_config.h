// Which kernel computes a product on which GPU, and how it is launched: plain data and arithmetic, no CUDA. The rates
// below are what published figures of kernels of the same design let expect (docs/cuda.md), not measurements; a run on
// a GPU is to replace them.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

namespace kerf {
namespace cuda {

enum class MatmulKind { simt, mma, split, codes8, codes4, kept, wgmma, wgmma_sparse };
inline const char* name_of(MatmulKind kind) {
  static const char* const names[] = {"simt", "mma", "split", "codes8", "codes4", "kept", "wgmma", "wgmma_sparse"};
  return names[static_cast<int>(kind)];
}

// A compiled kernel. `type` and `out`: short dtypes, `any` for whichever float dtype (and of bytes int32, int8, uint8). shared_bytes and threads are what it is launched with.
struct MatmulConfig {
  MatmulKind kind;
  const char* type;
  const char* out;
  int features, tokens, stages, threads, shared_bytes;
};

// The product. weights: dense ones, codes of 8 or 4 bits, or 2:4 in units (for mma.sp), in rows (for wgmma.sp) or in both. multiprocessors and sm (80, 90, ...) of the GPU.
enum class MatmulWeights { dense, codes8, codes4, kept, kept_units, kept_rows };
struct MatmulDesc {
  int64_t features, tokens, k;
  const char* type;
  const char* out;
  MatmulWeights weights;
  int sm, multiprocessors;
};

// What a block may have: shared memory of a multiprocessor in bytes, of which a block gets 1 KB less.
constexpr bool is_datacentre(int sm) { return sm == 90 || sm == 100 || sm == 103; }
constexpr int shared_of_sm(int sm) { return (is_datacentre(sm) ? 228 : sm == 80 || sm == 87 ? 164 : 100) * 1024; }
constexpr int threads_of_sm(int sm) { return is_datacentre(sm) || sm == 80 || sm == 87 ? 2048 : 1536; }

// Blocks that a multiprocessor holds at once; 0: the kernel does not run there. A block costs 1 KB beside its own
// shared memory; registers are given to a warp in units of 256.
inline int resident_blocks(int sm, int threads, int shared_bytes, int registers) {
  if (shared_bytes > shared_of_sm(sm) - 1024) return 0;
  const int of_warp = (registers * 32 + 255) / 256 * 256, warps = threads / 32;
  return std::min({threads_of_sm(sm) / threads, 65536 / (of_warp * warps), shared_of_sm(sm) / (shared_bytes + 1024)});
}

struct MatmulChoice {
  const MatmulConfig* config;  // null: none fits
  int parts;                   // of K
  int blocks;                  // of a multiprocessor, at once
  double cost;                 // in units of reading 128 bytes of a row: only for comparing
};

inline bool same(const char* a, const char* b) { return strcmp(a, b) == 0; }
inline int bytes_of(const char* type) { return same(type, "f32") || same(type, "any") ? 4 : same(type, "i8") ? 1 : 2; }

inline bool fits(const MatmulConfig& c, const MatmulDesc& d) {
  if (!same(c.type, d.type) || !(same(c.out, d.out) || same(c.out, "any"))) return false;
  // rows begin at 16 bytes; of TMA's kept values too
  const int64_t row_bytes = d.k * bytes_of(d.type);
  if (row_bytes % (c.kind == MatmulKind::wgmma_sparse ? 32 : 16)) return false;
  if (c.shared_bytes > shared_of_sm(d.sm) - 1024) return false;
  const bool persistent = c.kind == MatmulKind::wgmma || c.kind == MatmulKind::wgmma_sparse;
  if (!persistent && (d.tokens + c.tokens - 1) / c.tokens > 65535) return false;  // the grid's second axis
  switch (c.kind) {
    case MatmulKind::codes8: return d.weights == MatmulWeights::codes8;
    case MatmulKind::codes4: return d.weights == MatmulWeights::codes4;
    case MatmulKind::kept: return d.weights == MatmulWeights::kept || d.weights == MatmulWeights::kept_units;
    case MatmulKind::wgmma_sparse: return (d.weights == MatmulWeights::kept || d.weights == MatmulWeights::kept_rows) && d.sm == 90;
    case MatmulKind::wgmma: return d.weights == MatmulWeights::dense && d.sm == 90;
    default: return d.weights == MatmulWeights::dense;
  }
}

inline std::vector<const MatmulConfig*> candidates(const std::vector<MatmulConfig>& table, const MatmulDesc& d) {
  std::vector<const MatmulConfig*> found;
  for (const MatmulConfig& c : table)
    if (fits(c, d)) found.push_back(&c);
  return found;
}

// Bytes of weights that 128 bytes of an activation row meet, for each feature.
inline double weight_bytes(MatmulKind kind) {
  switch (kind) {
    case MatmulKind::codes8: return 64 + 4;  // and a scale, at worst for each 64
    case MatmulKind::codes4: return 32 + 4;
    case MatmulKind::kept: return 72;
    case MatmulKind::wgmma_sparse: return 72;
    default: return 128;
  }
}

// Products of two 128-byte pieces of rows in the time in which a multiprocessor's share of memory gives 128 bytes.
// Peaks of an H100 SXM allow 295 of 16-bit floats or bytes (989 TFLOPS, 128 flops each, against 3.35 TB/s) and 40 of
// float32; kernels of these kinds reach a part.
inline double products_a_read(const MatmulConfig& c) {
  const bool wide = c.tokens >= 256;  // fewer reads of shared memory for each product
  switch (c.kind) {
    case MatmulKind::simt: return 22;
    case MatmulKind::wgmma: return wide ? 190 : 165;
    case MatmulKind::wgmma_sparse: return 250;
    default: break;
  }
  const double of_tile = c.tokens >= 128 ? 1 : c.tokens >= 64 ? 0.8 : c.tokens >= 32 ? 0.55 : 0.35;
  return of_tile * (c.kind == MatmulKind::kept ? 140 : 110);
}

// What a read costs on average if `times` blocks read the same: all but the first find it in the level-2 cache.
inline double read_cost(int64_t times) { return 0.25 + 0.75 / static_cast<double>(times); }

// As many parts of K as fill the GPU once, none shorter than 4 steps; 1 where the kernel cannot split.
inline MatmulChoice plan(const MatmulConfig& c, const MatmulDesc& d) {
  const int64_t tiles_m = (d.features + c.features - 1) / c.features, tiles_n = (d.tokens + c.tokens - 1) / c.tokens;
  const int64_t tiles = tiles_m * tiles_n;
  const int64_t steps = std::max<int64_t>(1, (d.k * bytes_of(d.type) + 127) / 128);
  const bool hopper = c.kind == MatmulKind::wgmma || c.kind == MatmulKind::wgmma_sparse;
  const int shared_blocks = shared_of_sm(d.sm) / (c.shared_bytes + 1024);
  const int blocks = hopper ? 1 : std::max(1, std::min(shared_blocks, c.tokens >= 128 ? 2 : 4));
  const int64_t slots = static_cast<int64_t>(d.multiprocessors) * blocks;
  const bool splits = c.kind == MatmulKind::split || c.kind == MatmulKind::codes8 || c.kind == MatmulKind::codes4 ||
                      c.kind == MatmulKind::kept;
  const int64_t parts = splits ? std::clamp<int64_t>(slots / tiles, 1, std::max<int64_t>(1, steps / 4)) : 1;
  // Memory serves all blocks together, whichever multiprocessor they run on; products take the time of the fullest one.
  // A block also fills its ring, and its sums leave, a split product's twice through memory.
  const double steps_of_part = static_cast<double>((steps + parts - 1) / parts) + 1;
  const double reads =
      c.features * weight_bytes(c.kind) / 128 * read_cost(tiles_n) + c.tokens * read_cost(tiles_m);
  const double sums = c.features * c.tokens * (parts > 1 ? 8.0 : 2.0) / 128;
  const double all_reads = static_cast<double>(tiles * parts) * (steps_of_part * reads + sums) / d.multiprocessors;
  const double fullest = static_cast<double>((tiles * parts + d.multiprocessors - 1) / d.multiprocessors);
  const double products = static_cast<double>(c.features) * c.tokens / products_a_read(c);
  const double multiplying = fullest * steps_of_part * products;
  // of two that memory binds alike the one that multiplies faster
  return {&c, static_cast<int>(parts), blocks, std::max(all_reads, multiplying) + 1e-3 * multiplying};
}

inline MatmulChoice choose(const std::vector<MatmulConfig>& table, const MatmulDesc& d) {
  MatmulChoice best{nullptr, 0, 0, 0};
  for (const MatmulConfig* c : candidates(table, d)) {
    const MatmulChoice choice = plan(*c, d);
    if (!best.config || choice.cost < best.cost) best = choice;
  }
  return best;
}

inline std::string show(const MatmulConfig& c) {
  char line[160];
  snprintf(line, sizeof line, "%s_%s_%s_%dx%d", name_of(c.kind), c.type, c.out, c.features, c.tokens);
  return line;
}

// One line: what was chosen, and why it can run.
inline std::string explain(const MatmulDesc& d, const MatmulChoice& choice) {
  char line[320];
  if (!choice.config) {
    snprintf(line, sizeof line, "%lldx%lldx%lld %s on sm_%d: no kernel", static_cast<long long>(d.features),
             static_cast<long long>(d.tokens), static_cast<long long>(d.k), d.type, d.sm);
  } else {
    const MatmulConfig& c = *choice.config;
    snprintf(line, sizeof line,
             "%lldx%lldx%lld %s on sm_%d: %s, %d parts of K, %d threads, %d bytes of shared memory, %d blocks a "
             "multiprocessor",
             static_cast<long long>(d.features), static_cast<long long>(d.tokens), static_cast<long long>(d.k), d.type,
             d.sm, show(c).c_str(), choice.parts, c.threads, c.shared_bytes, choice.blocks);
  }
  return line;
}

}  // namespace cuda
}  // namespace kerf
