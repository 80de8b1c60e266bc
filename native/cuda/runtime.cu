#include "runtime.h"

#include <cstdio>
#include <cstring>

namespace kerf {
namespace cuda {

Gpu::~Gpu() {
  if (!opened_) return;
  {
    std::lock_guard<std::mutex> lock(jobs_mutex_);
    stopping_ = true;
  }
  jobs_changed_.notify_all();
  if (waiter_.joinable()) waiter_.join();
}

Status Gpu::lost() const { return Status::error(Code::device, "cuda:%d failed earlier and is lost: %s", index_, failed_); }

// An error other than "no memory" may be of an earlier kernel and ends the context: CUDA answers it for ever.
Status Gpu::check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return Status{};
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // not sticky
    return Status::error(Code::out_of_memory, "cuda:%d: no memory (%s)", index_, what);
  }
  if (capturing_) {
    cudaGetLastError();
    return Status::error(Code::device, "cuda:%d: capturing, %s: %s", index_, what, cudaGetErrorString(error));
  }
  std::lock_guard<std::mutex> lock(jobs_mutex_);
  if (!failed_[0]) snprintf(failed_, sizeof failed_, "%s: %s", what, cudaGetErrorString(error));
  return Status::error(Code::device, "cuda:%d: %s: %s", index_, what, cudaGetErrorString(error));
}

#define CHECK(call, what)                                 \
  do {                                                    \
    Status checked = check(call, what);                   \
    if (!checked.ok()) return checked;                    \
  } while (0)

Status Gpu::open() {
  if (failed_[0]) return lost();
  CHECK(cudaSetDevice(index_), "choosing the device");
  if (opened_) return Status{};
  CHECK(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "making a stream");
  cudaMemPoolProps props = {};
  props.allocType = cudaMemAllocationTypePinned;
  props.location.type = cudaMemLocationTypeDevice;
  props.location.id = index_;
  CHECK(cudaMemPoolCreate(&pool_, &props), "making a memory pool");
  uint64_t keep = ~uint64_t{0};
  CHECK(cudaMemPoolSetAttribute(pool_, cudaMemPoolAttrReleaseThreshold, &keep), "keeping the pool's memory");
  void* fault = nullptr;
  CHECK(cudaMallocFromPoolAsync(&fault, 8, pool_, stream_), "allocating");
  fault_ = static_cast<unsigned long long*>(fault);
  CHECK(cudaMemsetAsync(fault_, 0xff, 8, stream_), "clearing");
  cudaDeviceProp properties;
  CHECK(cudaGetDeviceProperties(&properties, index_), "reading the device's properties");
  sm_ = properties.major * 10 + properties.minor;
  multiprocessors_ = properties.multiProcessorCount;
  const size_t counted = sizeof(unsigned) * static_cast<size_t>(kCountersOf * multiprocessors_);
  void* counters = nullptr;
  CHECK(cudaMallocFromPoolAsync(&counters, counted, pool_, stream_), "allocating");
  counters_ = static_cast<unsigned*>(counters);
  CHECK(cudaMemsetAsync(counters_, 0, counted, stream_), "clearing");
  CHECK(cudaHostAlloc(reinterpret_cast<void**>(&ring_), kRing, cudaHostAllocDefault), "allocating the staging ring");
  waiter_ = std::thread([this] { work(); });
  opened_ = true;
  return Status{};
}

Status Gpu::allocate(size_t bytes, void** memory) {
  CHECK(cudaMallocFromPoolAsync(memory, bytes ? bytes : 1, pool_, stream_), "allocating");
  return Status{};
}

void Gpu::release(void* memory) {
  if (!failed_[0]) check(cudaFreeAsync(memory, stream_), "freeing");
}

Status Gpu::scratch(size_t bytes, void** memory) {
  Status status = allocate(bytes, memory);
  if (status.ok()) scratch_.push_back(*memory);
  return status;
}

void Gpu::free_scratch() {
  for (void* memory : scratch_) release(memory);
  scratch_.clear();
}

Status Gpu::launched(const char* op) {
  launches_++;
  return check(cudaGetLastError(), op);
}

bool Gpu::begin_capture() {
  // Of this thread: the waiter's and other devices' calls go on.
  capturing_ = cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal) == cudaSuccess;
  if (!capturing_) cudaGetLastError();
  return capturing_;
}

cudaGraphExec_t Gpu::end_capture(bool wanted) {
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t made = nullptr;
  cudaError_t error = cudaStreamEndCapture(stream_, &graph);
  if (error == cudaSuccess && wanted) error = cudaGraphInstantiate(&made, graph, 0);
  if (error != cudaSuccess) made = nullptr, cudaGetLastError();
  if (graph) cudaGraphDestroy(graph);
  capturing_ = false;
  return made;
}

Status Gpu::launch(cudaGraphExec_t graph) {
  launches_++;
  return check(cudaGraphLaunch(graph, stream_), "launching a graph");
}

void Gpu::retire(cudaGraphExec_t graph) {
  Job job{};
  job.context = graph;
  job.done = [](void* context, const Status*) { cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(context)); };
  enqueue(job);
}

// Room in the ring, waiting for the waiter where it is full. Pieces lie in order; one that would cross the end begins anew.
Status Gpu::stage(size_t bytes, uint8_t** at, size_t* taken) {
  const size_t size = (bytes + 255) / 256 * 256;
  std::unique_lock<std::mutex> lock(jobs_mutex_);
  const size_t skip = ring_next_ + size > kRing ? kRing - ring_next_ : 0;
  jobs_changed_.wait(lock, [&] { return ring_used_ + skip + size <= kRing; });
  *at = ring_ + (skip ? 0 : ring_next_);
  ring_next_ = (skip ? 0 : ring_next_) + size;
  *taken = skip + size;
  ring_used_ += *taken;
  return Status{};
}

Status Gpu::enqueue(Job job) {
  Status status;
  {
    std::lock_guard<std::mutex> lock(jobs_mutex_);
    if (!events_.empty()) job.event = events_.back(), events_.pop_back();
  }
  if (!job.event)
    status = check(cudaEventCreateWithFlags(&job.event, cudaEventBlockingSync | cudaEventDisableTiming), "making an event");
  if (status.ok()) status = check(cudaEventRecord(job.event, stream_), "recording an event");
  // Queued even then: the waiter gives the ring back and answers with what failed.
  {
    std::lock_guard<std::mutex> lock(jobs_mutex_);
    jobs_.push_back(job);
  }
  jobs_changed_.notify_all();
  return status;
}

Status Gpu::upload(void* to, const void* from, size_t bytes) {
  for (size_t done = 0; done < bytes; done += kPiece) {
    const size_t size = bytes - done < kPiece ? bytes - done : kPiece;
    uint8_t* at;
    Job job{};
    Status status = stage(size, &at, &job.ring);
    if (!status.ok()) return status;
    memcpy(at, static_cast<const uint8_t*>(from) + done, size);
    status = check(cudaMemcpyAsync(static_cast<uint8_t*>(to) + done, at, size, cudaMemcpyHostToDevice, stream_), "copying to the device");
    Status queued = enqueue(job);
    if (!status.ok() || !queued.ok()) return status.ok() ? queued : status;
  }
  return Status{};
}

Status Gpu::download(void* to, const void* from, size_t bytes) {
  for (size_t done = 0; done < bytes; done += kPiece) {
    Job job{};
    job.bytes = bytes - done < kPiece ? bytes - done : kPiece;
    uint8_t* at;
    Status status = stage(job.bytes, &at, &job.ring);
    if (!status.ok()) return status;
    job.to = static_cast<uint8_t*>(to) + done;
    job.from = at;
    status = check(cudaMemcpyAsync(at, static_cast<const uint8_t*>(from) + done, job.bytes, cudaMemcpyDeviceToHost, stream_), "copying from the device");
    if (!status.ok()) job.to = nullptr;
    Status queued = enqueue(job);
    if (!status.ok() || !queued.ok()) return status.ok() ? queued : status;
  }
  return Status{};
}

Status Gpu::watch(void (*done)(void*, const Status*), void* context) {
  Job job{};
  job.done = done;
  job.context = context;
  if (!fallible_.empty()) {
    uint8_t* at;
    Status status = stage(8, &at, &job.ring);
    if (!status.ok()) return status;
    job.fault = reinterpret_cast<unsigned long long*>(at);
    job.texts = std::make_shared<Texts>(std::move(fallible_));
    fallible_.clear();
    status = check(cudaMemcpyAsync(at, fault_, 8, cudaMemcpyDeviceToHost, stream_), "reading what kernels found");
    if (status.ok()) status = check(cudaMemsetAsync(fault_, 0xff, 8, stream_), "clearing");
    if (!status.ok()) job.fault = nullptr;
  }
  enqueue(job);  // what fails here is told to `done`
  return Status{};
}

Status Gpu::wait() {
  struct Answer {
    std::mutex mutex;
    std::condition_variable changed;
    bool here = false;
    Status status;
  } answer;
  Status status = watch(
      [](void* context, const Status* result) {
        Answer& own = *static_cast<Answer*>(context);
        std::lock_guard<std::mutex> lock(own.mutex);
        own.status = *result;
        own.here = true;
        own.changed.notify_all();
      },
      &answer);
  if (!status.ok()) return status;
  std::unique_lock<std::mutex> lock(answer.mutex);
  answer.changed.wait(lock, [&] { return answer.here; });
  return answer.status;
}

// The first launch that found an index out of range.
Status Gpu::judge(const Job& job) {
  if (!job.fault || *job.fault == ~0ull) return Status{};
  const unsigned long long launch = *job.fault >> 32, position = *job.fault & 0xffffffffu;
  if (launch >= job.texts->size()) return Status::error(Code::bug, "a kernel reports launch %llu", launch);
  Status status;
  status.code = Code::range;
  // the text is ours and has one %llu
  snprintf(status.what, sizeof status.what, (*job.texts)[launch].text, position);
  return status;
}

void Gpu::work() {
  cudaSetDevice(index_);
  std::unique_lock<std::mutex> lock(jobs_mutex_);
  while (true) {
    jobs_changed_.wait(lock, [&] { return stopping_ || !jobs_.empty(); });
    if (jobs_.empty()) return;
    Job job = jobs_.front();
    jobs_.pop_front();
    lock.unlock();
    Status status = failed_[0] ? lost() : check(cudaEventSynchronize(job.event), "running kernels");
    if (status.ok()) status = judge(job);
    if (job.to && (status.ok() || status.code == Code::range)) memcpy(job.to, job.from, job.bytes);
    lock.lock();
    if (job.event) events_.push_back(job.event);
    ring_used_ -= job.ring;
    lock.unlock();
    jobs_changed_.notify_all();
    if (job.done) job.done(job.context, &status);
    lock.lock();
  }
}

}  // namespace cuda
}  // namespace kerf
