#include "pool.h"

#include <atomic>
#include <deque>
#include <mutex>

#include "sleeper.h"
#include "spin.h"

namespace kerf {
namespace {

// How long an idle worker looks for the next parallel region before it sleeps: longer than the gap between two ops of
// a training step, short enough that an idle process burns nothing.
constexpr int kSpinMicroseconds = 40;

thread_local bool t_inside = false;  // this thread is inside a parallel region

// One region at a time. `state_` holds, for the current region: its number, whether workers may still join, and how
// many have joined. A worker joins by compare-and-swap while the region is open; the caller closes it when no task is
// left and then waits only for those that joined, so a worker that wakes late costs nothing.
class Pool {
 public:
  int threads() {
    std::lock_guard lock(setup_);
    return threads_;
  }

  void set_threads(int threads) {
    std::lock_guard region(region_);
    std::lock_guard lock(setup_);
    if (threads < 1) threads = 1;
    if (threads > 256) threads = 256;
    if (threads != threads_) stop();
    threads_ = threads;
    parallel_ = threads > 1;
  }

  void shutdown() {
    std::lock_guard region(region_);
    std::lock_guard lock(setup_);
    stop();
  }

  void run(int64_t tasks, void (*body)(void*, int64_t), void* context) {
    if (tasks <= 1 || t_inside || !parallel_.load(std::memory_order_relaxed) || !region_.try_lock()) {
      for (int64_t i = 0; i < tasks; i++) body(context, i);
      return;
    }
    std::lock_guard region(region_, std::adopt_lock);
    if (workers_.empty()) start();
    t_inside = true;
    body_ = body;
    context_ = context;
    tasks_ = tasks;
    next_.store(0, std::memory_order_relaxed);
    finished_.store(0, std::memory_order_relaxed);
    uint64_t number = (state_.load(std::memory_order_relaxed) >> kNumberShift) + 1;
    state_.store(number << kNumberShift | kOpen, std::memory_order_seq_cst);
    for (Sleeper& worker : workers_) worker.keep_off_this_cpu();
    bell_.fetch_add(1, std::memory_order_seq_cst);
    bell_.notify_all();
    drain();
    uint64_t joined = state_.fetch_and(~kOpen, std::memory_order_acq_rel) & kJoinedMask;
    auto done = [&] { return finished_.load(std::memory_order_acquire) == joined; };
    while (!spin_until(done, 200)) std::this_thread::yield();
    t_inside = false;
  }

 private:
  static constexpr uint64_t kJoinedMask = 0xffff, kOpen = 1u << 16;
  static constexpr int kNumberShift = 17;

  void drain() {
    for (int64_t i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < tasks_;) body_(context_, i);
  }

  void start() {
    std::lock_guard lock(setup_);
    stopping_ = false;
    for (int i = 1; i < threads_; i++) {
      Sleeper& worker = workers_.emplace_back();
      worker.thread = std::thread([this, &worker] { work(worker); });
    }
  }

  void stop() {
    stopping_ = true;
    bell_.fetch_add(1);
    bell_.notify_all();
    for (Sleeper& worker : workers_) worker.thread.join();
    workers_.clear();
  }

  void work(Sleeper& self) {
    t_inside = true;
    uint64_t last = 0;
    while (true) {
      uint32_t heard = bell_.load(std::memory_order_seq_cst);
      if (stopping_) return;
      uint64_t state = state_.load(std::memory_order_seq_cst);
      if ((state & kOpen) && state >> kNumberShift != last) {
        if (!state_.compare_exchange_weak(state, state + 1, std::memory_order_acq_rel)) continue;
        last = state >> kNumberShift;
        drain();
        finished_.fetch_add(1, std::memory_order_release);
        continue;
      }
      if (!spin_until([&] { return bell_.load(std::memory_order_relaxed) != heard; }, kSpinMicroseconds)) self.sleep(bell_, heard);
    }
  }

  std::mutex region_;  // held while a region runs
  std::mutex setup_;   // guards threads_ and workers_
  int threads_ = default_threads();
  std::deque<Sleeper> workers_;
  std::atomic<bool> parallel_ = threads_ > 1;
  std::atomic<bool> stopping_ = false;

  void (*body_)(void*, int64_t) = nullptr;
  void* context_ = nullptr;
  int64_t tasks_ = 0;
  alignas(64) std::atomic<int64_t> next_ = 0;
  alignas(64) std::atomic<uint64_t> finished_ = 0;
  alignas(64) std::atomic<uint64_t> state_ = 0;
  alignas(64) std::atomic<uint32_t> bell_ = 0;

  static int default_threads() {
    int n = static_cast<int>(std::thread::hardware_concurrency());  // the CPUs of this process's affinity mask
    return n < 1 ? 1 : n > 256 ? 256 : n;
  }
};

// Never destroyed: workers may still be asleep in it when the process exits.
Pool& pool() {
  static Pool* instance = new Pool;
  return *instance;
}

}  // namespace

void pool_run(int64_t tasks, void (*body)(void*, int64_t), void* context) { pool().run(tasks, body, context); }
int pool_threads() { return pool().threads(); }
void pool_set_threads(int threads) { pool().set_threads(threads); }
void pool_shutdown() { pool().shutdown(); }

}  // namespace kerf
