#include "stream.h"

#include <atomic>
#include <cstdio>
#include <memory>
#include <mutex>

#include "debug.h"
#include "sleeper.h"
#include "spin.h"

namespace kerf {
namespace {

constexpr uint64_t kSlots = 256;         // bounds the commands in flight; a training step queues about 60
constexpr int kSpinMicroseconds = 50;    // how long the stream's thread looks for work before it sleeps
constexpr int kWaitMicroseconds = 20;    // how long wait() spins before it sleeps: longer takes a CPU from the pool
constexpr int kWakeMicroseconds = 15;    // by then the stream's thread has begun, unless it waits for this very CPU
constexpr uint64_t kNever = ~uint64_t{0};

struct Slot {
  alignas(64) unsigned char payload[Stream::kPayload];
  void (*call)(void*);
  char label[kLabel];
};

}  // namespace

struct Stream::Impl {
  std::unique_ptr<Slot[]> ring{new Slot[kSlots]};
  Sleeper sleeper;
  std::atomic<bool> stopping{false};
  alignas(64) std::atomic<uint64_t> queued{0};
  std::atomic<uint32_t> bell{0};
  alignas(64) std::atomic<uint64_t> started{0};  // commands that the thread has begun
  std::atomic<uint64_t> finished{0};
  std::atomic<uint32_t> finished_bell{0};
  std::atomic<uint64_t> awaited{kNever};  // the command that wait() sleeps for: waking it earlier would cost 10 us each
  std::atomic<uint64_t> watched{kNever};
  void (*on_finished)(void*) = nullptr;
  void* on_finished_context = nullptr;
  std::atomic<double>* page = nullptr;
  std::mutex error_mutex;
  std::atomic<bool> failed{false};
  Status error;
  char label[kLabel] = {};  // of the next command

  void publish(int index, uint64_t value) {
    if (page) page[index].store(static_cast<double>(value), std::memory_order_release);
  }

  void record(const Status& status) {
    std::lock_guard lock(error_mutex);
    if (!failed) error = status;
    failed = true;
    publish(2, 1);
  }

  void work();
};

namespace {
thread_local Stream::Impl* t_current = nullptr;  // the stream whose command this thread runs
}

void Stream::Impl::work() {
  t_current = this;
  uint64_t done = 0;
  while (true) {
    uint32_t heard = bell.load(std::memory_order_seq_cst);
    if (queued.load(std::memory_order_acquire) == done) {
      if (stopping) return;
      if (!spin_until([&] { return bell.load(std::memory_order_relaxed) != heard; }, kSpinMicroseconds)) sleeper.sleep(bell, heard);
      continue;
    }
    Slot& slot = ring[done % kSlots];
    started.store(done + 1, std::memory_order_relaxed);
    const bool debug = debug_kernels();
    if (debug) debug_begin();
    if (!stopping) slot.call(slot.payload);  // what is still queued when the environment goes away is dropped
    if (debug) debug_end(slot.label);
    done++;
    publish(1, done);
    finished.store(done, std::memory_order_seq_cst);
    if (done >= awaited.load(std::memory_order_seq_cst)) {
      finished_bell.fetch_add(1, std::memory_order_seq_cst);
      finished_bell.notify_all();
    }
    if (done >= watched.load(std::memory_order_seq_cst)) {
      watched.store(kNever);
      on_finished(on_finished_context);
    }
  }
}

Stream::Stream() : impl_(new Impl) {}

Stream::~Stream() {
  stop();
  delete impl_;
}

void Stream::stop() {
  impl_->watched = kNever;
  if (!impl_->sleeper.thread.joinable()) return;
  impl_->stopping = true;
  impl_->bell.fetch_add(1);
  impl_->bell.notify_all();
  impl_->sleeper.thread.join();
}

Stream::Inline::Inline(Stream& stream) {
  t_current = stream.impl_;
  if (debug_kernels()) debug_begin();
}

Stream::Inline::~Inline() {
  if (debug_kernels()) debug_end(t_current->label);
  t_current = nullptr;
}

char* Stream::label() { return impl_->label; }

void* Stream::reserve() {
  uint64_t next = impl_->queued.load(std::memory_order_relaxed);
  // Full: waits for room for several, or every command from here on would cost a wake-up.
  if (next >= finished() + kSlots) wait(next - kSlots + kSlots / 4);
  return impl_->ring[next % kSlots].payload;
}

void Stream::commit(void (*call)(void*)) {
  uint64_t next = impl_->queued.load(std::memory_order_relaxed);
  impl_->ring[next % kSlots].call = call;
  if (debug_kernels()) memcpy(impl_->ring[next % kSlots].label, impl_->label, kLabel);
  impl_->publish(0, next + 1);
  impl_->queued.store(next + 1, std::memory_order_release);
  if (!impl_->sleeper.thread.joinable()) impl_->sleeper.thread = std::thread([impl = impl_] { impl->work(); });
  impl_->sleeper.keep_off_this_cpu();
  impl_->bell.fetch_add(1, std::memory_order_seq_cst);
  impl_->bell.notify_one();
}

uint64_t Stream::queued() const { return impl_->queued.load(std::memory_order_relaxed); }
uint64_t Stream::finished() const { return impl_->finished.load(std::memory_order_seq_cst); }

void Stream::wait(uint64_t sequence) {
  auto ready = [&] { return finished() >= sequence; };
  // Spinning is for short commands that run on another CPU: a thread that has not begun by now may be waiting for ours.
  auto begun = [&] { return impl_->started.load(std::memory_order_relaxed) > finished() || ready(); };
  if (spin_until(begun, kWakeMicroseconds) && spin_until(ready, kWaitMicroseconds)) return;
  impl_->awaited.store(sequence, std::memory_order_seq_cst);
  while (true) {
    uint32_t heard = impl_->finished_bell.load(std::memory_order_seq_cst);
    if (ready()) break;
    impl_->finished_bell.wait(heard);
  }
  impl_->awaited.store(kNever, std::memory_order_relaxed);
}

void Stream::fail(Code code, const char* format, ...) {
  if (!t_current) return;
  Status status;
  status.code = code;
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(status.what, sizeof status.what, format, arguments);
  va_end(arguments);
  t_current->record(status);
}

Status Stream::take_error() {
  if (!impl_->failed) return Status{};
  std::lock_guard lock(impl_->error_mutex);
  Status status = impl_->error;
  impl_->error = Status{};
  impl_->failed = false;
  impl_->publish(2, 0);
  return status;
}

void Stream::set_on_finished(void (*callback)(void*), void* context) {
  impl_->on_finished = callback;
  impl_->on_finished_context = context;
}

void Stream::watch(uint64_t sequence) {
  impl_->watched.store(sequence, std::memory_order_seq_cst);
  if (finished() >= sequence && impl_->watched.exchange(kNever) != kNever) impl_->on_finished(impl_->on_finished_context);
}

void Stream::publish_to(double* page) {
  static_assert(sizeof(std::atomic<double>) == sizeof(double));
  impl_->page = reinterpret_cast<std::atomic<double>*>(page);
}

}  // namespace kerf
