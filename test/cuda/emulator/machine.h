// The state of the emulated multiprocessor: one block at a time, its threads, warps and shared memory, and what was
// found wrong. Everything else in this folder works on `machine`.
#pragma once
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <source_location>
#include <string>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "fiber.h"

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

namespace cu::emu {

using Where = std::source_location;

// 32 warps of a block, and an actor for each of its 8 warpgroups: the tensor core that reads shared memory on its own
// time.
constexpr int kMaxActors = 40;

// File, line, column, whether shared memory.
using SiteKey = std::tuple<const char*, unsigned, unsigned, bool>;

// A vector clock: how much of every actor's past has been seen.
struct Clock {
  uint32_t at[kMaxActors] = {};
  void join(const Clock& other) {
    for (int i = 0; i < kMaxActors; i++) at[i] = std::max(at[i], other.at[i]);
  }
};

// What the race detector knows about 16 bytes of shared memory.
struct Granule {
  uint32_t write_time = 0;
  int16_t writer = -1;
  bool pending = false;  // the target of an asynchronous copy that nobody has waited for
  uint32_t read_time[kMaxActors] = {};
};

// What has been seen of other blocks of the launch, by their number.
using Foreign = std::map<int, Clock>;

// What the race detector knows about a byte of global memory in this launch: the last write and the last read, each by
// block, warp and the warp's time.
struct GlobalAccess {
  int block = -1, warp = 0;
  uint32_t time = 0;
};
struct GlobalCell {
  GlobalAccess write, read;
};

struct Copy {
  uint8_t* to;
  const void* from;
  bool valid;  // else 16 zeros
};

enum class State { running, in_collective, at_barrier, at_named_barrier, waiting, done };

struct Thread {
  void* stack = nullptr;
  State state = State::running;
  dim3 index;
  int number = 0, lane = 0, warp = 0;
  void* slot = nullptr;  // its operands in the collective that it takes part in
  std::vector<Copy> open;
  std::deque<std::vector<Copy>> groups;
  std::map<SiteKey, unsigned> visits;  // how often it came to each access, for the counters
  std::function<bool()> ready;
};

struct Warp {
  int arrived = 0;
  const char* collective = nullptr;
  Clock clock;
  Foreign seen;      // of other blocks, in force
  Foreign acquired;  // by atomics, in force after the next fence
  Clock fenced;      // what the last fence covers of the own block,
  Foreign passed;    // and of others
};

struct Options {
  unsigned seed = 0;  // 0: threads run in order; else the order is drawn anew for each block
  bool late = true;   // asynchronous copies and products complete as late as they may; else at once
  bool count = true;  // wavefronts and sectors
};

// Warp-wide accesses of one place in the source: wavefronts of shared memory, or 32-byte sectors of global memory.
struct Site {
  uint64_t accesses = 0, actual = 0, ideal = 0;
};

struct Access {
  uint64_t address[32];
  uint32_t lanes = 0;
  int bytes = 0;
};

struct Machine {
  Options options;
  dim3 grid, block, block_index;
  std::vector<Thread> threads;
  std::vector<Warp> warps;  // actors: the warps, then one for each warpgroup
  int warp_count = 0, live = 0, at_barrier = 0;
  Thread* current = nullptr;
  void* scheduler = nullptr;  // its stack while a thread runs
  std::function<void()> body;
  Stacks stacks;

  uint8_t* shared = nullptr;
  size_t shared_bytes = 0;
  std::vector<Granule> granules;
  std::map<const uint8_t*, size_t> buffers;  // global memory that kernels may touch

  int block_number = 0;
  std::unordered_map<uintptr_t, std::vector<GlobalCell>> global;  // lines of 256 bytes that this launch touched
  uintptr_t last_line = 0;
  std::vector<GlobalCell>* last_cells = nullptr;
  std::map<const void*, Foreign> atomics;                         // what each atomic word carries from block to block

  std::map<SiteKey, Site> sites;
  std::map<std::tuple<SiteKey, int, unsigned>, Access> half_done;  // lanes of a warp that have come to an access so far
  std::map<std::string, int> reports;                              // what was found, and how often
  std::string first_report;                                        // with the place
  bool stopped = false;                                            // a mistake ended the launch
};

inline Machine machine;

inline bool is_shared(const void* p) {
  const uint8_t* at = static_cast<const uint8_t*>(p);
  return at >= machine.shared && at < machine.shared + machine.shared_bytes;
}

inline void report(const std::string& what, const void* p = nullptr) {
  machine.reports[what]++;
  if (!machine.first_report.empty()) return;
  machine.first_report = what + " (block " + std::to_string(machine.block_index.x) + "," +
                         std::to_string(machine.block_index.y) + ", thread " +
                         std::to_string(machine.current ? machine.current->number : -1);
  if (p && is_shared(p))
    machine.first_report += ", shared byte " + std::to_string(static_cast<const uint8_t*>(p) - machine.shared);
  machine.first_report += ")";
}

inline void check_global(const void* p, size_t bytes, const char* what) {
  const uint8_t* at = static_cast<const uint8_t*>(p);
  auto after = machine.buffers.upper_bound(at);
  if (after != machine.buffers.begin()) {
    auto [base, size] = *std::prev(after);
    if (at + bytes <= base + size) return;
  }
  report(std::string(what) + " outside of every buffer");
}

inline void check_aligned(const void* p, size_t bytes, const char* what) {
  if (reinterpret_cast<uintptr_t>(p) % bytes) report(std::string(what) + ": misaligned", p);
}

// Global memory of a test: aligned as cudaMalloc aligns, filled with a byte that is NaN in every float format, and the
// only memory that kernels may touch.
template <class T>
class Buffer {
 public:
  explicit Buffer(size_t count) : count_(count) {
    size_t bytes = std::max<size_t>(count * sizeof(T), 1);
    memory_ = static_cast<uint8_t*>(aligned_alloc(256, (bytes + 255) / 256 * 256));
    memset(memory_, 0xff, bytes);
    machine.buffers[memory_] = bytes;
  }
  ~Buffer() {
    machine.buffers.erase(memory_);
    free(memory_);
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  T* data() const { return reinterpret_cast<T*>(memory_); }
  size_t size() const { return count_; }
  T& operator[](size_t i) { return data()[i]; }
  const T& operator[](size_t i) const { return data()[i]; }

 private:
  uint8_t* memory_;
  size_t count_;
};

}  // namespace cu::emu
