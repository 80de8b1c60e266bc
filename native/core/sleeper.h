// A thread that sleeps on a bell until another one rings it, and then wakes on another CPU than the ringer's.
//
// Linux prefers an idle CPU for a woken thread, but a virtual CPU that has been idle for some milliseconds counts as
// taken by the host, so the thread would wake on the ringer's CPU and share it until the next load balance: measured
// with two threads on two CPUs, half the rate for 4 ms and more. Awake, it may run anywhere again.
#pragma once
#include <atomic>
#include <cstdint>
#include <thread>
#if defined(__linux__)
#include <pthread.h>
#include <sched.h>
#endif

namespace kerf {

class Sleeper {
 public:
  std::thread thread;

  // By the ringer, before it rings; one at a time. Costs two system calls when the thread is asleep.
  void keep_off_this_cpu() {
#if defined(__linux__)
    if (!asleep_.load(std::memory_order_seq_cst) || kept_off_.load(std::memory_order_acquire)) return;
    const pthread_t handle = thread.native_handle();
    const int here = sched_getcpu();
    if (here < 0 || here >= CPU_SETSIZE || pthread_getaffinity_np(handle, sizeof allowed_, &allowed_) != 0) return;
    cpu_set_t others = allowed_;
    CPU_CLR(static_cast<size_t>(here), &others);
    if (CPU_COUNT(&others) == 0 || pthread_setaffinity_np(handle, sizeof others, &others) != 0) return;
    kept_off_.store(true, std::memory_order_release);
#endif
  }

  // By the thread itself: sleeps unless the bell has rung since it was `heard`.
  void sleep(const std::atomic<uint32_t>& bell, uint32_t heard) {
    asleep_.store(true, std::memory_order_seq_cst);
    bell.wait(heard);
    asleep_.store(false, std::memory_order_relaxed);
#if defined(__linux__)
    if (!kept_off_.load(std::memory_order_acquire)) return;
    pthread_setaffinity_np(pthread_self(), sizeof allowed_, &allowed_);
    kept_off_.store(false, std::memory_order_release);
#endif
  }

 private:
  std::atomic<bool> asleep_ = false;
#if defined(__linux__)
  std::atomic<bool> kept_off_ = false;
  cpu_set_t allowed_;  // where it may run when it is not kept off
#endif
};

}  // namespace kerf
