// What an access costs: wavefronts of shared memory (a bank serves one 4-byte word a cycle) and 32-byte sectors of
// global memory, for every source line, against the least that the bytes asked for would need.
#pragma once
#include "machine.h"

namespace cu::emu {

// 32 lanes of 4 bytes are one phase; 8 and 16 bytes a lane take two and four, each 128 bytes wide.
inline void count_wavefronts(Site& site, const Access& x) {
  int phase = x.bytes <= 4 ? 32 : x.bytes == 8 ? 16 : 8;
  for (int first = 0; first < 32; first += phase) {
    std::vector<uint64_t> words;
    for (int lane = first; lane < first + phase; lane++)
      if (x.lanes >> lane & 1)
        for (int b = 0; b < std::max(x.bytes, 4); b += 4) words.push_back((x.address[lane] + b) / 4);
    if (words.empty()) continue;
    std::sort(words.begin(), words.end());
    words.erase(std::unique(words.begin(), words.end()), words.end());
    int in_bank[32] = {}, most = 0;
    for (uint64_t word : words) most = std::max(most, ++in_bank[word % 32]);
    site.actual += most;
    site.ideal++;
  }
}

inline void count_sectors(Site& site, const Access& x) {
  std::vector<uint64_t> sectors, words;
  for (int lane = 0; lane < 32; lane++)
    if (x.lanes >> lane & 1)
      for (int b = 0; b < std::max(x.bytes, 4); b += 4) words.push_back((x.address[lane] + b) / 4);
  std::sort(words.begin(), words.end());
  words.erase(std::unique(words.begin(), words.end()), words.end());
  for (uint64_t word : words)
    if (sectors.empty() || sectors.back() != word / 8) sectors.push_back(word / 8);
  site.actual += sectors.size();
  site.ideal += (words.size() + 7) / 8;
}

inline void count_access(const SiteKey& key, const Access& x) {
  Site& site = machine.sites[key];
  site.accesses++;
  if (std::get<3>(key))
    count_wavefronts(site, x);
  else
    count_sectors(site, x);
}

// One lane's access. It belongs together with the other lanes' accesses of the same rank at the same line.
inline void count_lane(const Where& where, const void* p, int bytes) {
  if (!machine.options.count) return;
  Thread& thread = *machine.current;
  bool shared = is_shared(p);
  SiteKey site{where.file_name(), where.line(), where.column(), shared};
  unsigned visit = thread.visits[site]++;
  auto at = machine.half_done.try_emplace({site, thread.warp, visit}).first;
  Access& x = at->second;
  x.bytes = bytes;
  x.address[thread.lane] =
      shared ? static_cast<uint64_t>(static_cast<const uint8_t*>(p) - machine.shared) : reinterpret_cast<uint64_t>(p);
  x.lanes |= 1u << thread.lane;
  if (x.lanes != 0xffffffffu) return;
  count_access(site, x);
  machine.half_done.erase(at);
}

// Accesses that fewer than 32 lanes made.
inline void count_rest() {
  for (auto& [key, x] : machine.half_done) count_access(std::get<0>(key), x);
  machine.half_done.clear();
}

}  // namespace cu::emu
