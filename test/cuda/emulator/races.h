// Happens-before on shared memory: an access is a race if it conflicts with one of another actor that no barrier orders
// before it, whether or not this schedule got the right numbers. Granules are 16 bytes; two warps that write different
// bytes of one granule are reported, since nothing here distinguishes them. Lanes of one warp are one actor.
#pragma once
#include "machine.h"

namespace cu::emu {

inline size_t granule_of(const void* p) {
  return static_cast<size_t>(static_cast<const uint8_t*>(p) - machine.shared) / 16;
}

inline bool check_shared(const void* p, size_t bytes, const char* what) {
  if (is_shared(p) && is_shared(static_cast<const uint8_t*>(p) + bytes - 1)) return true;
  report(std::string(what) + " outside of shared memory", p);
  return false;
}

// A read by `actor` at `time` of its own clock, having seen `seen`.
inline void note_read_by(int actor, const Clock& seen, uint32_t time, const void* p, size_t bytes) {
  if (!check_shared(p, bytes, "read")) return;
  for (size_t i = granule_of(p); i <= granule_of(static_cast<const uint8_t*>(p) + bytes - 1); i++) {
    Granule& g = machine.granules[i];
    if (g.pending)
      report("read of the target of an asynchronous copy before it was waited for", p);
    else if (g.writer < 0)
      report("read of uninitialised shared memory", p);
    else if (g.writer != actor && g.write_time > seen.at[g.writer])
      report("race: read not ordered after another warp's write", p);
    g.read_time[actor] = time;
  }
}

inline void note_read(const void* p, size_t bytes) {
  int warp = machine.current->warp;
  const Clock& clock = machine.warps[warp].clock;
  note_read_by(warp, clock, clock.at[warp], p, bytes);
}

inline void note_write(const void* p, size_t bytes, bool pending = false) {
  if (!check_shared(p, bytes, "write")) return;
  int warp = machine.current->warp;
  const Clock& seen = machine.warps[warp].clock;
  for (size_t i = granule_of(p); i <= granule_of(static_cast<const uint8_t*>(p) + bytes - 1); i++) {
    Granule& g = machine.granules[i];
    for (int other = 0; other < static_cast<int>(machine.warps.size()); other++)
      if (other != warp && g.read_time[other] > seen.at[other])
        report("race: write not ordered after another warp's read", p);
    if (g.writer >= 0 && g.writer != warp && g.write_time > seen.at[g.writer])
      report("race: two unordered writes", p);
    g.pending = pending;
    g.writer = static_cast<int16_t>(warp);
    g.write_time = seen.at[warp];
  }
}

}  // namespace cu::emu
