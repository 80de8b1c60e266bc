// Happens-before between the blocks of one launch, in global memory: blocks run one after another here and side by side
// on a GPU, so that an access of two blocks is a race unless fences and an atomic order it. Within a block the barriers
// order global memory as they order shared memory; that is not checked again.
#pragma once
#include "machine.h"

namespace cu::emu {

inline void join(Foreign& into, const Foreign& from) {
  for (const auto& [block, clock] : from) into[block].join(clock);
}

// All of `warps` know what each of them has seen of other blocks: they met at a barrier.
template <class Warps>
void share_foreign(const Warps& warps) {
  Foreign all;
  for (Warp* warp : warps) join(all, warp->seen);
  if (all.empty()) return;
  for (Warp* warp : warps) warp->seen = all;
}

inline bool ordered(const GlobalAccess& earlier, const Warp& warp) {
  if (earlier.block < 0 || earlier.block == machine.block_number) return true;
  auto seen = warp.seen.find(earlier.block);
  return seen != warp.seen.end() && seen->second.at[earlier.warp] >= earlier.time;
}

// `note` gets the cell of every byte.
template <class Note>
void each_global_cell(const void* p, size_t bytes, Note note) {
  uintptr_t at = reinterpret_cast<uintptr_t>(p);
  while (bytes > 0) {
    if (at / 256 != machine.last_line) {  // neighbours are asked for one after the other
      machine.last_line = at / 256;
      machine.last_cells = &machine.global[at / 256];
      if (machine.last_cells->empty()) machine.last_cells->resize(256);
    }
    std::vector<GlobalCell>& line = *machine.last_cells;
    size_t here = std::min<size_t>(bytes, 256 - at % 256);
    for (size_t cell = at % 256; cell < at % 256 + here; cell++) note(line[cell]);
    at += here;
    bytes -= here;
  }
}

inline GlobalAccess this_access() {
  int warp = machine.current->warp;
  return {machine.block_number, warp, machine.warps[warp].clock.at[warp]};
}

// `fresh`: not through the read-only cache, which need not notice what this launch writes.
inline void note_global_read(const void* p, size_t bytes, bool fresh) {
  const Warp& warp = machine.warps[machine.current->warp];
  each_global_cell(p, bytes, [&](GlobalCell& cell) {
    if (!fresh && cell.write.block >= 0) report("read through the read-only cache of what this launch wrote");
    if (!ordered(cell.write, warp)) report("race: a block reads what another wrote, unordered");
    cell.read = this_access();
  });
}

inline void note_global_write(const void* p, size_t bytes) {
  const Warp& warp = machine.warps[machine.current->warp];
  each_global_cell(p, bytes, [&](GlobalCell& cell) {
    if (!ordered(cell.write, warp)) report("race: two blocks write the same bytes, unordered");
    if (!ordered(cell.read, warp)) report("race: a block writes what another reads, unordered");
    cell.write = this_access();
  });
}

}  // namespace cu::emu

namespace cu {

// Lanes of a warp are one actor: the last lane's fence covers what all of them wrote.
inline void fence_global() {
  int number = emu::machine.current->warp;
  emu::Warp& warp = emu::machine.warps[number];
  emu::join(warp.seen, warp.acquired);
  warp.fenced = warp.clock;
  warp.passed = warp.seen;
  warp.clock.at[number]++;
}

}  // namespace cu
