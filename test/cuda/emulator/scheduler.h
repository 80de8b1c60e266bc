// Runs blocks: switches between threads, and what makes them meet (warp collectives, the barrier of the block).
#pragma once
#include "counters.h"
#include "global.h"
#include "races.h"

namespace cu::emu {

inline void yield() { kerf_fiber_switch(&machine.current->stack, machine.scheduler); }

// Ends the launch at a mistake after which nothing can be computed. What the stacks of its threads own is lost.
inline void stop(const char* what) {
  report(what);
  machine.stopped = true;
  yield();  // for good
}

inline void block_until(std::function<bool()> ready) {
  while (!ready()) {
    machine.current->ready = ready;
    machine.current->state = State::waiting;
    yield();
  }
}

// All 32 lanes bring a slot; the last to arrive executes for all of them.
template <class Execute>
void warp_collective(const char* name, void* slot, Execute execute) {
  Thread& thread = *machine.current;
  Warp& warp = machine.warps[thread.warp];
  thread.slot = slot;
  if (warp.arrived == 0)
    warp.collective = name;
  else if (strcmp(warp.collective, name) != 0)
    stop("divergent warp collective");
  if (++warp.arrived < 32) {
    thread.state = State::in_collective;
    yield();
    return;
  }
  warp.arrived = 0;
  void* slots[32];
  for (int lane = 0; lane < 32; lane++) {
    Thread& other = machine.threads[thread.warp * 32 + lane];
    slots[lane] = other.slot;
    other.state = State::running;
  }
  execute(slots);
}

inline void block_barrier() {
  machine.at_barrier++;
  if (machine.at_barrier < machine.live) {
    machine.current->state = State::at_barrier;
    yield();
    return;
  }
  machine.at_barrier = 0;
  Clock all;
  for (int w = 0; w < machine.warp_count; w++) all.join(machine.warps[w].clock);
  for (int w = 0; w < machine.warp_count; w++) {
    machine.warps[w].clock = all;
    machine.warps[w].clock.at[w]++;
  }
  std::vector<Warp*> met;
  for (int w = 0; w < machine.warp_count; w++) met.push_back(&machine.warps[w]);
  share_foreign(met);
  for (Thread& thread : machine.threads)
    if (thread.state == State::at_barrier) thread.state = State::running;
}

inline void begin_async_block();   // asynchronous.h, wgmma.h
inline bool land_oldest_copy();    // when nobody can run, the oldest asynchronous copy arrives
inline void end_async_block();

inline void thread_entry() {
  machine.body();
  Thread& thread = *machine.current;
  if (!thread.open.empty()) report("thread exited with cp.async copies that no group holds");
  thread.state = State::done;
  machine.live--;
  if (machine.live && machine.at_barrier == machine.live) report("thread exited while others wait at a barrier");
  yield();
  abort();  // a finished thread is never resumed
}

inline void make_threads(size_t count) {
  machine.threads.assign(count, Thread{});
  machine.warp_count = static_cast<int>(count / 32);
  machine.warps.assign(machine.warp_count + (machine.warp_count + 3) / 4, Warp{});
  for (size_t w = 0; w < machine.warps.size(); w++) machine.warps[w].clock.at[w] = 1;
  for (size_t i = 0; i < count; i++) {
    Thread& thread = machine.threads[i];
    thread.number = static_cast<int>(i);
    thread.lane = static_cast<int>(i % 32);
    thread.warp = static_cast<int>(i / 32);
    unsigned at = static_cast<unsigned>(i);
    thread.index = dim3(at % machine.block.x, at / machine.block.x % machine.block.y,
                        at / (machine.block.x * machine.block.y));
    thread.stack = machine.stacks.start(i, thread_entry);
  }
  machine.live = static_cast<int>(count);
  machine.at_barrier = 0;
}

inline void run_block() {
  size_t count = size_t{machine.block.x} * machine.block.y * machine.block.z;
  make_threads(count);
  memset(machine.shared, 0xff, machine.shared_bytes);  // NaN in every float format
  machine.granules.assign(machine.shared_bytes / 16 + 1, Granule{});
  begin_async_block();

  std::vector<Thread*> order(count);
  for (size_t i = 0; i < count; i++) order[i] = &machine.threads[i];
  if (machine.options.seed) {
    std::mt19937 random(machine.options.seed + machine.block_index.x * 7919 + machine.block_index.y * 104729);
    std::shuffle(order.begin(), order.end(), random);
  }
  while (machine.live && !machine.stopped) {
    bool progress = false;
    for (Thread* thread : order)
      if (thread->state == State::waiting && thread->ready()) thread->state = State::running;
    for (Thread* thread : order)
      if (thread->state == State::running && !machine.stopped) {
        progress = true;
        machine.current = thread;
        kerf_fiber_switch(&machine.scheduler, thread->stack);
      }
    if (progress || land_oldest_copy()) continue;
    machine.current = nullptr;
    report("deadlock");
    machine.stopped = true;
  }
  machine.current = nullptr;
  if (!machine.stopped) end_async_block();
  count_rest();
}

inline void launch(dim3 grid, dim3 block, size_t shared_bytes, std::function<void()> body) {
  size_t count = size_t{block.x} * block.y * block.z;
  if (count % 32 || count > 1024) return report("block size is not a multiple of 32 up to 1024");
  if (shared_bytes > 227 * 1024) return report("more than 227 KB of shared memory");
  machine.grid = grid;
  machine.block = block;
  machine.body = std::move(body);
  machine.stopped = false;
  machine.stacks.reserve(count);
  machine.shared_bytes = shared_bytes;
  machine.shared = static_cast<uint8_t*>(aligned_alloc(1024, (shared_bytes / 1024 + 1) * 1024));
  machine.global.clear();
  machine.last_line = 0;
  machine.atomics.clear();
  std::vector<int> blocks(size_t{grid.x} * grid.y * grid.z);
  for (size_t i = 0; i < blocks.size(); i++) blocks[i] = static_cast<int>(i);
  if (machine.options.seed) {  // nothing says in which order blocks end
    std::mt19937 random(machine.options.seed);
    std::shuffle(blocks.begin(), blocks.end(), random);
  }
  for (int number : blocks) {
    if (machine.stopped) break;
    unsigned at = static_cast<unsigned>(number);
    machine.block_number = number;
    machine.block_index = dim3(at % grid.x, at / grid.x % grid.y, at / (grid.x * grid.y));
    run_block();
  }
  free(machine.shared);
  machine.shared = nullptr;
  machine.shared_bytes = 0;
}

// Forgets what earlier launches found.
inline void prepare(const Options& options) {
  machine.options = options;
  machine.sites.clear();
  machine.reports.clear();
  machine.first_report.clear();
}

}  // namespace cu::emu
