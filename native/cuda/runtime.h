// One GPU: its stream, its memory, and how work and answers travel. Drivers (native/cuda/drivers/) see of it the stream, scratch
// memory and the record of what a kernel found wrong.
//
// Everything is enqueued on one non-blocking stream, so memory is freed and reused in the order of the program. A thread for each
// GPU waits on events and hands over what has arrived; nothing here blocks its caller but wait() and a full staging ring.
#pragma once
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "../core/cuda_abi.h"
#include "fault.h"
#ifdef __CUDACC__
#include <cuda_runtime.h>
#else
#include <cuda_emulated.h>  // test/cuda/emulator/: the same functions on the emulated device
#endif

namespace kerf {
namespace cuda {

class Gpu {
 public:
  explicit Gpu(int index) : index_(index) {}
  ~Gpu();

  Status open();
  Status allocate(size_t bytes, void** memory);
  void release(void* memory);
  Status upload(void* to, const void* from, size_t bytes);
  Status download(void* to, const void* from, size_t bytes);
  Status wait();
  Status watch(void (*done)(void* context, const Status* status), void* context);

  cudaStream_t stream() const { return stream_; }
  int index() const { return index_; }
  int sm() const { return sm_; }  // 80, 90, ...
  int multiprocessors() const { return multiprocessors_; }
  // Words that are 0 between launches: each kernel leaves them so. kCountersOf a multiprocessor.
  static constexpr int kCountersOf = 4;
  unsigned* counters() const { return counters_; }
  // What the launches since the last call ran into; for drivers.
  Status launched(const char* op);
  // Memory until the end of the driver, freed in stream order.
  Status scratch(size_t bytes, void** memory);
  void free_scratch();
  // A launch that may find an index out of range: `what` names it ("crossEntropy: the label at row %lld is outside [0, 10)").
  template <class... Values>
  Fault may_fail(const char* format, Values... values) {
    snprintf(fallible_.emplace_back().text, sizeof(Fallible::text), format, values...);
    return {fault_, static_cast<unsigned long long>(fallible_.size() - 1)};
  }

  // How often something was launched, and how many launches since the last watch() may find an index out of range.
  uint64_t launches() const { return launches_; }
  size_t fallible() const { return fallible_.size(); }
  // Between these two what is enqueued becomes a graph and does not run; an error there ends nothing but the capture. Null where
  // it failed, or is not `wanted` any more.
  bool begin_capture();
  cudaGraphExec_t end_capture(bool wanted);
  Status launch(cudaGraphExec_t graph);
  void retire(cudaGraphExec_t graph);  // destroyed once what is enqueued has run

  std::mutex mutex;  // held during every call of the library

 private:
  struct Fallible { char text[160]; };
  using Texts = std::vector<Fallible>;
  // What the waiter does once an event has passed.
  struct Job {
    cudaEvent_t event;
    void* to;  // copies bytes out of the ring, or null
    const void* from;
    size_t bytes;
    size_t ring;  // bytes of the ring that are free afterwards
    void (*done)(void*, const Status*);
    void* context;
    const unsigned long long* fault;  // the word as it was, in the ring
    std::shared_ptr<Texts> texts;
  };
  Status check(cudaError_t error, const char* what);
  Status lost() const;
  Status stage(size_t bytes, uint8_t** at, size_t* taken);
  Status enqueue(Job job);
  static Status judge(const Job& job);
  void work();

  static constexpr size_t kRing = 32 << 20, kPiece = 8 << 20;
  const int index_;
  bool opened_ = false;
  int sm_ = 0, multiprocessors_ = 0;
  cudaStream_t stream_ = nullptr;
  cudaMemPool_t pool_ = nullptr;
  unsigned long long* fault_ = nullptr;
  unsigned* counters_ = nullptr;
  Texts fallible_;
  uint64_t launches_ = 0;
  bool capturing_ = false;
  std::vector<void*> scratch_;

  std::thread waiter_;
  std::mutex jobs_mutex_;
  std::condition_variable jobs_changed_;
  std::deque<Job> jobs_;
  std::vector<cudaEvent_t> events_;  // to be used again
  uint8_t* ring_ = nullptr;
  size_t ring_next_ = 0, ring_used_ = 0;
  bool stopping_ = false;
  char failed_[200] = {};  // why the context is lost
};

}  // namespace cuda
}  // namespace kerf
