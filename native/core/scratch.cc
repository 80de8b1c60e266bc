#include <cstdlib>

#include "pool.h"
#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace kerf {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;

void* allocate(size_t bytes) {
  size_t alignment = bytes >= kHugePage / 2 ? kHugePage : 64;
  bytes = (bytes + alignment - 1) / alignment * alignment;
  void* memory = nullptr;
  if (posix_memalign(&memory, alignment, bytes) != 0) return nullptr;
#if defined(__linux__)
  if (alignment == kHugePage) madvise(memory, bytes, MADV_HUGEPAGE);  // a hint: failure changes nothing
#endif
  return memory;
}

struct Buffers {
  void* memory[static_cast<int>(Scratch::slots)] = {};
  size_t bytes[static_cast<int>(Scratch::slots)] = {};
  ~Buffers() {
    for (void* m : memory) free(m);
  }
};

thread_local Buffers t_buffers;

}  // namespace

void* scratch(Scratch slot, size_t bytes) {
  int i = static_cast<int>(slot);
  if (t_buffers.bytes[i] >= bytes && t_buffers.memory[i]) return t_buffers.memory[i];
  free(t_buffers.memory[i]);
  size_t grown = bytes + bytes / 4;  // so that a slowly growing demand does not reallocate every time
  t_buffers.memory[i] = allocate(grown < 4096 ? 4096 : grown);
  t_buffers.bytes[i] = t_buffers.memory[i] ? grown : 0;
  return t_buffers.memory[i];
}

}  // namespace kerf
