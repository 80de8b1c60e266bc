// Hopper's warpgroups: wgmma with operands in shared memory, its groups, named barriers, setmaxnreg. The tensor core is
// an actor of its own, one for each warpgroup: what it reads is ordered before later writes only by wgmma.wait_group.
#pragma once
#include "asynchronous.h"

namespace cu {
namespace emu {

struct Group {
  std::vector<std::function<void()>> products;
  uint32_t time = 0;  // of the tensor core's clock
};

struct Warpgroup {
  int arrived = 0;
  const char* collective = nullptr;
  Group open;
  std::deque<Group> groups;
  bool fenced = false;
  int registers = 0;
};

struct WarpgroupState {
  std::map<int, Warpgroup> groups;
  std::map<int, std::vector<Thread*>> named;  // who waits at each named barrier
};
inline WarpgroupState warpgroup_state;

inline void begin_async_block() {
  async_state = {};
  warpgroup_state = {};
}

inline void end_async_block() {
  if (!async_state.copies.empty()) report("block ended with TMA copies under way");
  int registers = 0;
  for (auto& [id, group] : warpgroup_state.groups) {
    if (!group.open.products.empty()) report("block ended with wgmma products that no group holds");
    registers += group.registers * 128;
  }
  if (registers > 65536) report("setmaxnreg: more than 65536 registers");
}

// All 128 threads of the warpgroup arrive; the last executes for all.
template <class Execute>
void warpgroup_collective(const char* name, Execute execute) {
  int id = machine.current->number / 128;
  Warpgroup& group = warpgroup_state.groups[id];
  if (group.arrived == 0)
    group.collective = name;
  else if (strcmp(group.collective, name) != 0)
    stop("divergent warpgroup collective");
  if (++group.arrived < 128) {
    machine.current->state = State::in_collective;
    yield();
    return;
  }
  group.arrived = 0;
  execute(group);
  for (int i = 0; i < 128; i++) machine.threads[id * 128 + i].state = State::running;
}

inline int tensor_core_of(int warpgroup) { return machine.warp_count + warpgroup; }

// Row `row`, 16-byte chunk `chunk` of the tile that a descriptor names.
inline const uint8_t* tile_row(uint64_t descriptor, int row, int chunk) {
  if (descriptor >> 62 != 1) report("only the 128-byte swizzle is modelled");
  uint32_t start = static_cast<uint32_t>(descriptor & 0x3fff) << 4;
  uint32_t stride = static_cast<uint32_t>(descriptor >> 32 & 0x3fff) << 4;  // of 8 rows
  uint32_t at = start + row / 8 * stride + row % 8 * 128 + chunk * 16;
  return machine.shared + (at ^ (at >> 7 & 7) << 4);
}

// `selector` < 0: dense. Else A is 2:4 and holds half of each row, B has 64 bytes a column.
template <class T, class Sum, int columns, int selector>
struct WarpgroupProduct {
  static constexpr bool kSparse = selector >= 0;
  static constexpr int kStored = 32 / kBytesOf<T>, kDepth = kSparse ? 2 * kStored : kStored;
  std::vector<Sum*> d;
  std::vector<uint32_t> metadata;
  uint64_t a, b;
  bool accumulate;
  int actor;
  Clock seen;
  uint32_t time;

  template <int count>
  void read(uint64_t descriptor, int row, Sum (&to)[count]) const {
    constexpr int kBytes = count * kBytesOf<T>;
    uint8_t bytes[kBytes] = {};
    for (int chunk = 0; chunk < kBytes / 16; chunk++) {
      const uint8_t* p = tile_row(descriptor, row, chunk);
      note_read_by(actor, seen, time, p, 16);
      if (is_shared(p)) memcpy(bytes + 16 * chunk, p, 16);
    }
    widen(T{}, bytes, kBytes, to);
  }

  void operator()() const {
    std::vector<Sum> b_rows(static_cast<size_t>(kDepth) * columns);
    for (int n = 0; n < columns; n++) {
      Sum column[kDepth];
      read(b, n, column);
      for (int k = 0; k < kDepth; k++) b_rows[static_cast<size_t>(k) * columns + n] = column[k];
    }
    for (int m = 0; m < 64; m++) {
      Sum stored[kStored], sum[columns] = {};
      read(a, m, stored);
      for (int j = 0; j < kStored; j++) {
        int k = j;
        if constexpr (kSparse) {
          auto metadata_of = [&](int lane) { return metadata[static_cast<size_t>(m / 16 * 32 + lane)]; };
          k = kept_at<T>(m % 16, j, selector, metadata_of);
        }
        for (int n = 0; n < columns; n++) sum[n] += stored[j] * b_rows[static_cast<size_t>(k) * columns + n];
      }
      for (int n = 0; n < columns; n++) {
        Sum& out = d[m / 16 * 32 + m % 8 * 4 + n % 8 / 2][n / 8 * 4 + m % 16 / 8 * 2 + n % 2];
        out = (accumulate ? out : Sum{}) + sum[n];
      }
    }
  }
};

}  // namespace emu

// The descriptor of a K-major tile of 128-byte rows, swizzled; `p` may point at any 32 bytes of the first row.
inline uint64_t tile_descriptor(const void* p) {
  uint64_t at = static_cast<uint64_t>(static_cast<const uint8_t*>(p) - emu::machine.shared);
  return at >> 4 | uint64_t{1} << 16 | uint64_t{64} << 32 | uint64_t{1} << 62;
}

inline void wgmma_fence() {
  emu::warpgroup_collective("wgmma.fence", [](emu::Warpgroup& group) { group.fenced = true; });
}

inline void wgmma_commit() {
  emu::warpgroup_collective("wgmma.commit_group", [](emu::Warpgroup& group) {
    int actor = emu::tensor_core_of(emu::machine.current->number / 128);
    group.open.time = emu::machine.warps[actor].clock.at[actor]++;
    group.groups.push_back(std::move(group.open));
    group.open = {};
  });
}

// Waits until at most `pending` groups are under way.
template <int pending>
void wgmma_wait() {
  emu::warpgroup_collective("wgmma.wait_group", [](emu::Warpgroup& group) {
    int id = emu::machine.current->number / 128, actor = emu::tensor_core_of(id);
    while (static_cast<int>(group.groups.size()) > pending) {
      for (auto& product : group.groups.front().products) product();
      for (int w = 0; w < 4; w++) {
        uint32_t& seen = emu::machine.warps[id * 4 + w].clock.at[actor];
        seen = std::max(seen, group.groups.front().time);
      }
      group.groups.pop_front();
      group.fenced = false;
    }
  });
}

namespace emu {
template <int selector, class T, class Sum, int count>
void begin_product(Sum (&d)[count], uint64_t a, uint64_t b, uint32_t metadata, bool accumulate) {
  struct Slot { Sum* d; uint64_t a, b; uint32_t metadata; bool accumulate; } slot{d, a, b, metadata, accumulate};
  machine.current->slot = &slot;
  warpgroup_collective(selector < 0 ? "wgmma" : "wgmma.sp", [&](Warpgroup& group) {
    if (!group.fenced) report("wgmma without wgmma.fence");
    int id = machine.current->number / 128, actor = tensor_core_of(id);
    WarpgroupProduct<T, Sum, count * 2, selector> product{{}, {}, a, b, accumulate, actor, {}, 0};
    for (int i = 0; i < 128; i++) {
      Slot& other = *static_cast<Slot*>(machine.threads[id * 128 + i].slot);
      product.d.push_back(other.d);
      product.metadata.push_back(other.metadata);
      if (other.a != a || other.b != b || other.accumulate != accumulate)
        report("wgmma: operands differ between threads");
    }
    Clock& clock = machine.warps[actor].clock;
    for (int w = 0; w < 4; w++) clock.join(machine.warps[id * 4 + w].clock);
    product.seen = clock;
    product.time = clock.at[actor];
    if (machine.options.late) {
      group.open.products.push_back(product);
    } else {
      product();
      group.open.products.push_back([] {});
    }
  });
}
}  // namespace emu

// d (64 x 2 * count) = a b, or d + a b where `accumulate`.
template <class T, class Sum, int count>
void wgmma(T, Sum (&d)[count], uint64_t a, uint64_t b, bool accumulate) {
  emu::begin_product<-1, T>(d, a, b, 0, accumulate);
}

// The same with a 2:4 sparse a; each warp brings the metadata of its 16 rows.
template <int selector, class T, class Sum, int count>
void wgmma_sparse(T, Sum (&d)[count], uint64_t a, uint64_t b, uint32_t metadata, bool accumulate) {
  static_assert(kBytesOf<T> == 2 || selector == 0, "all four lanes of a quad bring metadata of 8-bit types");
  emu::begin_product<selector, T>(d, a, b, metadata, accumulate);
}

// `threads` threads of whole warps meet at one of 16 barriers; 0 is that of sync_threads.
inline void named_barrier(int id, int threads) {
  auto& waiting = emu::warpgroup_state.named[id];
  waiting.push_back(emu::machine.current);
  if (static_cast<int>(waiting.size()) < threads) {
    emu::machine.current->state = emu::State::at_named_barrier;
    emu::yield();
    return;
  }
  emu::Clock all;
  for (emu::Thread* thread : waiting) all.join(emu::machine.warps[thread->warp].clock);
  for (emu::Thread* thread : waiting) {
    emu::machine.warps[thread->warp].clock.join(all);
    thread->state = emu::State::running;
  }
  std::vector<emu::Warp*> met;
  for (emu::Thread* thread : waiting) {
    if (thread->lane != 0) continue;
    emu::machine.warps[thread->warp].clock.at[thread->warp]++;
    met.push_back(&emu::machine.warps[thread->warp]);
  }
  emu::share_foreign(met);
  waiting.clear();
}

namespace emu {
inline void set_registers(int count) {
  if (count % 8 || count < 24 || count > 256) report("setmaxnreg: not a multiple of 8 from 24 to 256");
  warpgroup_collective("setmaxnreg", [=](Warpgroup& group) { group.registers = count; });
}
}  // namespace emu
template <int count>
void registers_increase() {
  emu::set_registers(count);
}
template <int count>
void registers_decrease() {
  emu::set_registers(count);
}

}  // namespace cu
