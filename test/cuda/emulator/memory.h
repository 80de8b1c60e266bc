// cu:: loads, stores and cp.async: bounds, alignment, races, counters.
#pragma once
#include "scheduler.h"

namespace cu {

inline uint8_t* shared_memory() { return emu::machine.shared; }
inline void sync_threads() { emu::block_barrier(); }

template <class T>
T load_global(const T* p, emu::Where where = emu::Where::current()) {
  emu::check_global(p, sizeof(T), "global read");
  emu::check_aligned(p, sizeof(T), "global read");
  emu::count_lane(where, p, sizeof(T));
  emu::note_global_read(p, sizeof(T), false);
  return *p;
}

// What a block of this launch may have written.
template <class T>
T load_written(const T* p, emu::Where where = emu::Where::current()) {
  emu::check_global(p, sizeof(T), "global read");
  emu::check_aligned(p, sizeof(T), "global read");
  emu::count_lane(where, p, sizeof(T));
  emu::note_global_read(p, sizeof(T), true);
  return *p;
}

// Carries what the warp's last fence covers, and brings what others' did; answers the old value.
inline unsigned atomic_add(unsigned* p, unsigned value) {
  emu::check_global(p, 4, "atomic");
  emu::check_aligned(p, 4, "atomic");
  emu::Warp& warp = emu::machine.warps[emu::machine.current->warp];
  emu::Foreign& carried = emu::machine.atomics[p];
  emu::join(warp.acquired, carried);
  carried[emu::machine.block_number].join(warp.fenced);
  emu::join(carried, warp.passed);
  unsigned old = *p;
  *p += value;
  return old;
}

template <class T>
void store_global(T* p, T value, emu::Where where = emu::Where::current()) {
  emu::check_global(p, sizeof(T), "global write");
  emu::check_aligned(p, sizeof(T), "global write");
  emu::count_lane(where, p, sizeof(T));
  emu::note_global_write(p, sizeof(T));
  *p = value;
}

template <class T>
T load_own(const T* p, emu::Where where = emu::Where::current()) {
  return load_written(p, where);
}

inline void atomic_min(unsigned long long* p, unsigned long long value) {
  emu::check_global(p, 8, "atomic");
  emu::check_aligned(p, 8, "atomic");
  *p = std::min(*p, value);
}

template <class T>
T load_shared(const T* p, emu::Where where = emu::Where::current()) {
  emu::check_aligned(p, sizeof(T), "shared read");
  emu::count_lane(where, p, sizeof(T));
  emu::note_read(p, sizeof(T));
  return emu::is_shared(p) ? *p : T{};
}

template <class T>
void store_shared(T* p, T value, emu::Where where = emu::Where::current()) {
  emu::check_aligned(p, sizeof(T), "shared write");
  emu::count_lane(where, p, sizeof(T));
  emu::note_write(p, sizeof(T));
  if (emu::is_shared(p)) *p = value;
}

namespace emu {
inline void finish(const Copy& copy) {
  if (!is_shared(copy.to)) return;
  if (copy.valid)
    memcpy(copy.to, copy.from, 16);
  else
    memset(copy.to, 0, 16);
}
}  // namespace emu

// 16 bytes from global to shared memory, or 16 zeros where not `valid`: then `from` is not read.
inline void copy_async16(void* to, const void* from, bool valid, emu::Where where = emu::Where::current()) {
  emu::check_aligned(to, 16, "cp.async");
  emu::check_aligned(from, 16, "cp.async");
  emu::count_lane(where, to, 16);
  if (valid) {
    emu::check_global(from, 16, "cp.async");
    emu::note_global_read(from, 16, false);
    emu::count_lane(where, from, 16);
  }
  emu::note_write(to, 16, true);
  emu::Copy copy{static_cast<uint8_t*>(to), from, valid};
  emu::machine.current->open.push_back(copy);
  if (!emu::machine.options.late) emu::finish(copy);
}

inline void copy_commit() {
  emu::Thread& thread = *emu::machine.current;
  thread.groups.push_back(std::move(thread.open));
  thread.open.clear();
}

// Waits until at most `pending` of this thread's groups are under way.
template <int pending>
void copy_wait() {
  auto& groups = emu::machine.current->groups;
  while (static_cast<int>(groups.size()) > pending) {
    for (const emu::Copy& copy : groups.front()) {
      if (emu::machine.options.late) emu::finish(copy);
      emu::note_write(copy.to, 16);
    }
    groups.pop_front();
  }
}

}  // namespace cu
