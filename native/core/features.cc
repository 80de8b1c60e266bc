#include "features.h"

#include <cstdint>
#include <cstring>
#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace kerf {

#if defined(__x86_64__)
namespace {

struct Bit {
  const char* name;
  uint32_t leaf, subleaf;
  char reg;  // 'b', 'c', 'd' or 'a'
  int bit;
  uint32_t state;  // xcr0 bits that must be set: 6 = xmm, ymm; 0xe6 adds the zmm and mask registers, 0x600e6 the tiles
};

constexpr Bit kBits[] = {
    {"fma", 1, 0, 'c', 12, 6},           {"f16c", 1, 0, 'c', 29, 6},
    {"avx2", 7, 0, 'b', 5, 6},           {"bmi2", 7, 0, 'b', 8, 0},
    {"avx512f", 7, 0, 'b', 16, 0xe6},    {"avx512dq", 7, 0, 'b', 17, 0xe6},
    {"avx512bw", 7, 0, 'b', 30, 0xe6},   {"avx512vl", 7, 0, 'b', 31, 0xe6},
    {"avx512_vnni", 7, 0, 'c', 11, 0xe6}, {"avx_vnni", 7, 1, 'a', 4, 6},
    {"avx512_bf16", 7, 1, 'a', 5, 0xe6}, {"avx512_fp16", 7, 0, 'd', 23, 0xe6},
    {"amx_tile", 7, 0, 'd', 24, 0x600e6}, {"amx_bf16", 7, 0, 'd', 22, 0x600e6}, {"amx_int8", 7, 0, 'd', 25, 0x600e6},
};

uint32_t enabled_state() {
  uint32_t a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & (1u << 27))) return 0;  // OSXSAVE
  uint32_t low, high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

// Linux keeps the tile registers' 8 KB for a process only once it has asked for them.
constexpr uint32_t kTileState = 0x60000;
bool may_use_tiles() {
#if defined(__linux__)
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  static const bool granted = syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  return granted;
#else
  return false;
#endif
}

bool has_one(const char* name, size_t length) {
  for (const Bit& bit : kBits) {
    if (strlen(bit.name) != length || strncmp(bit.name, name, length) != 0) continue;
    uint32_t r[4];  // a b c d
    if (!__get_cpuid_count(bit.leaf, bit.subleaf, &r[0], &r[1], &r[2], &r[3])) return false;
    return (r[bit.reg - 'a'] >> bit.bit & 1) && (enabled_state() & bit.state) == bit.state &&
           (!(bit.state & kTileState) || may_use_tiles());
  }
  return false;
}

}  // namespace

bool cpu_has(const char* features) {
  while (*features) {
    const char* end = strchr(features, ' ');
    size_t length = end ? static_cast<size_t>(end - features) : strlen(features);
    if (length > 0 && !has_one(features, length)) return false;
    features += length + (end ? 1 : 0);
  }
  return true;
}

const char* cpu_model() {
  static char brand[49];
  if (brand[0]) return brand;
  for (uint32_t i = 0; i < 3; i++) {
    uint32_t r[4];
    if (!__get_cpuid(0x80000002u + i, &r[0], &r[1], &r[2], &r[3])) return "unknown";
    memcpy(brand + 16 * i, r, 16);
  }
  return brand;
}
#else
bool cpu_has(const char* features) { return features[0] == '\0'; }
const char* cpu_model() { return "unknown"; }
#endif

}  // namespace kerf
