// An in-order stream of commands: one native thread that drains a bounded queue. A driver validates, then calls
// run(); tiny commands on an idle stream run at once on the calling thread, everything else is queued, so the event
// loop is never blocked by arithmetic.
#pragma once
#include <cstdint>
#include <cstring>
#include <new>
#include <type_traits>
#include "status.h"

namespace kerf {

class Stream {
 public:
  // What one queued command may capture: six views and a few numbers.
  static constexpr size_t kPayload = 1472;

  Stream();
  ~Stream();
  // Lets the running command finish, drops the queued ones and joins the thread.
  void stop();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  // `ns` is the expected time on one core; it decides between inline and queued. `body` must be trivially copyable
  // (capture views and numbers by value) and must not throw. It may call fail().
  template <class Body>
  Status run(double ns, Body body) {
    static_assert(std::is_trivially_copyable_v<Body>, "commands capture views and numbers by value");
    static_assert(sizeof(Body) <= kPayload, "command too large for a queue slot");
    if (ns <= kInlineNs && idle()) {
      Inline here(*this);
      body();
      return Status{};
    }
    void* slot = reserve();
    memcpy(slot, &body, sizeof body);
    commit([](void* payload) { (*static_cast<Body*>(payload))(); });
    return Status{};
  }

  // Sequence number of the last queued command, and of the last finished one.
  uint64_t queued() const;
  uint64_t finished() const;
  bool idle() const { return queued() == finished(); }
  void wait(uint64_t sequence);  // blocks the calling thread

  // From inside a command (on the thread that runs it, not on a pool worker): the first error is kept and reported by the next barrier (data, dataSync, sync).
  static void fail(Code code, const char* format, ...) __attribute__((format(printf, 2, 3)));
  Status take_error();

  // watch(n): calls the callback, on the stream's thread, once the command n has finished (later watches replace
  // earlier, lower ones that have fired). Set the callback before the first watch; it must not block.
  void set_on_finished(void (*callback)(void* context), void* context);
  void watch(uint64_t sequence);

  // Where the stream publishes {queued, finished, failed} as three doubles, so that JavaScript reads them without a call.
  void publish_to(double* page);

  // KERF_DEBUG=kernels: what the next command is called in its line (debug.h), kLabel bytes to write to.
  char* label();

  // Below this, a thread hop (about 8 us both ways) costs more than the work; the event loop does not notice it.
  static constexpr double kInlineNs = 20'000;

  struct Impl;

 private:
  // Marks this thread as the stream's while a command runs inline, so that fail() finds it.
  struct Inline {
    explicit Inline(Stream& stream);
    ~Inline();
  };
  void* reserve();  // waits while the queue is full
  void commit(void (*call)(void* payload));
  Impl* impl_;
};

}  // namespace kerf
