// Threads of an emulated block are fibers of one operating-system thread: each has a stack and runs until it waits.
#pragma once
#include <sys/mman.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

#include <cstddef>
#include <cstdint>

#if !defined(__x86_64__)
#error "the emulator switches stacks in x86-64 assembly; another CPU needs its own twelve lines"
#endif

extern "C" __attribute__((visibility("hidden"))) void kerf_fiber_switch(void** save, void* load);

// The registers that a call must preserve go onto the old stack and come from the new one. Weak, since every translation unit
// that includes this header brings it.
asm(R"(
.text
.weak kerf_fiber_switch
.hidden kerf_fiber_switch
.type kerf_fiber_switch,@function
kerf_fiber_switch:
  push %rbp
  push %rbx
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rsp,(%rdi)
  mov %rsi,%rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbx
  pop %rbp
  ret
)");

namespace cu::emu {

constexpr size_t kStackBytes = 64 << 10;

// Stacks for all threads of the largest block so far; pages that no thread touches cost nothing.
class Stacks {
 public:
  void reserve(size_t threads) {
    if (threads <= count_) return;
    if (base_) munmap(base_, count_ * kStackBytes);
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    base_ = static_cast<uint8_t*>(mmap(nullptr, threads * kStackBytes, PROT_READ | PROT_WRITE, flags, -1, 0));
    count_ = threads;
  }

  // A stack pointer from which the first switch "returns" into `entry`. Tops are staggered by a cache line, or the
  // frames of all threads would fall into the same few sets of the cache.
  void* start(size_t thread, void (*entry)()) const {
    uintptr_t top = reinterpret_cast<uintptr_t>(base_) + (thread + 1) * kStackBytes - thread % 64 * 64;
#ifdef __SANITIZE_ADDRESS__  // threads never return from their first frame: its marks would outlive it
    __asan_unpoison_memory_region(base_ + thread * kStackBytes, kStackBytes);
#endif
    void** at = reinterpret_cast<void**>(top & ~uintptr_t{63});
    *--at = nullptr;  // keeps the stack aligned as after a call
    *--at = reinterpret_cast<void*>(entry);
    for (int saved = 0; saved < 6; saved++) *--at = nullptr;
    return at;
  }

 private:
  uint8_t* base_ = nullptr;
  size_t count_ = 0;
};

}  // namespace cu::emu
