// Hopper's asynchronous copies: mbarriers and TMA loads of 2-D boxes with the 128-byte swizzle. fence.proxy.async is
// not modelled: no kernel here reads through the asynchronous proxy what threads wrote.
#pragma once
#include "warp.h"

namespace cu {

// What cuTensorMapEncodeTiled encodes for rows of `row_bytes`, boxes of box_rows x 128 bytes, zeros outside.
struct TensorMap {
  const uint8_t* base;
  int64_t rows, row_bytes, pitch;
  int box_rows, element_bytes;
};

namespace emu {

struct Mbarrier {
  int count = 0, left = 0, phase = 0;
  int64_t bytes = 0;
  Clock collecting, released;  // clocks of this phase's arrivals; those of the phase that ended last
};

struct BoxCopy {
  uint8_t* to;
  TensorMap map;
  int x, y;
  uint64_t* barrier;
  Clock clock;  // of the issuing warp
  int warp;
};

struct AsyncState {
  std::map<uint64_t*, Mbarrier> barriers;
  std::deque<BoxCopy> copies;
};
inline AsyncState async_state;

inline Mbarrier& mbarrier_at(uint64_t* p) {
  auto at = async_state.barriers.find(p);
  if (at != async_state.barriers.end()) return at->second;
  report("mbarrier used before init", p);
  return async_state.barriers[p];
}

inline void end_phase_if_complete(Mbarrier& b) {
  if (b.left != 0 || b.bytes != 0) return;
  b.phase ^= 1;
  b.left = b.count;
  b.released = b.collecting;
  b.collecting = Clock{};
}

inline void mbarrier_signal(uint64_t* p, int bytes) {
  Mbarrier& b = mbarrier_at(p);
  int warp = machine.current->warp;
  Clock& clock = machine.warps[warp].clock;
  b.collecting.join(clock);
  clock.at[warp]++;
  b.bytes += bytes;
  if (--b.left < 0) report("mbarrier: too many arrivals", p);
  end_phase_if_complete(b);
}

inline void land(const BoxCopy& copy) {
  for (int r = 0; r < copy.map.box_rows; r++)
    for (int chunk = 0; chunk < 8; chunk++) {
      uint8_t* to = copy.to + r * 128 + ((chunk ^ (r & 7)) << 4);
      if (!is_shared(to)) continue;
      int64_t row = copy.y + r, first = int64_t{copy.x} * copy.map.element_bytes + chunk * 16;
      for (int i = 0; i < 16; i++) {
        bool inside = row >= 0 && row < copy.map.rows && first + i >= 0 && first + i < copy.map.row_bytes;
        to[i] = inside ? copy.map.base[row * copy.map.pitch + first + i] : 0;
      }
      Granule& g = machine.granules[granule_of(to)];
      g.pending = false;
      g.writer = static_cast<int16_t>(copy.warp);
      g.write_time = copy.clock.at[copy.warp];
    }
  Mbarrier& b = mbarrier_at(copy.barrier);
  b.collecting.join(copy.clock);
  b.bytes -= copy.map.box_rows * 128;
  end_phase_if_complete(b);
}

inline bool land_oldest_copy() {
  if (async_state.copies.empty()) return false;
  BoxCopy copy = async_state.copies.front();
  async_state.copies.pop_front();
  land(copy);
  return true;
}

}  // namespace emu

inline void mbarrier_init(uint64_t* p, int count) {
  emu::check_aligned(p, 8, "mbarrier");
  emu::check_shared(p, 8, "mbarrier");
  emu::Mbarrier& b = emu::async_state.barriers[p];
  b = {};
  b.count = b.left = count;
}
inline void mbarrier_fence_init() {}
inline void mbarrier_arrive(uint64_t* p) { emu::mbarrier_signal(p, 0); }
inline void mbarrier_arrive_expect(uint64_t* p, int bytes) { emu::mbarrier_signal(p, bytes); }

// Waits until the phase with this parity has ended.
inline void mbarrier_wait(uint64_t* p, int parity) {
  emu::block_until([=] { return emu::mbarrier_at(p).phase != parity; });
  emu::machine.warps[emu::machine.current->warp].clock.join(emu::mbarrier_at(p).released);
}

// The box whose first element is x of row y.
inline void tma_load(void* to, const TensorMap* map, int x, int y, uint64_t* barrier) {
  emu::Thread& thread = *emu::machine.current;
  emu::check_aligned(to, 1024, "TMA with the 128-byte swizzle");
  emu::check_aligned(map->base, 16, "TMA");
  if (map->pitch % 16 || map->box_rows > 256) emu::report("TMA: bad tensor map");
  emu::check_global(map->base, static_cast<size_t>((map->rows - 1) * map->pitch + map->row_bytes), "TMA");
  emu::note_write(to, map->box_rows * 128, true);
  emu::BoxCopy copy{static_cast<uint8_t*>(to),           *map, x, y, barrier,
                    emu::machine.warps[thread.warp].clock, thread.warp};
  if (emu::machine.options.late)
    emu::async_state.copies.push_back(copy);
  else
    emu::land(copy);
}

}  // namespace cu
