// What the driver code of native/cuda/ uses of the CUDA runtime, on the emulated device: everything runs at once, on the calling
// thread. A mistake that the emulator reports is what an illegal access is on a GPU: the context is lost, every later call
// answers the error.
//
// In the environment: KERF_EMULATOR_FAULT=<n> makes the n-th launch such a mistake; KERF_EMULATOR_SM=80 makes the device an sm_80
// (it is an sm_90); KERF_EMULATOR_LOG=<file> gets a line with the name of each kernel once it first runs, and one for each launch of a
// graph; KERF_EMULATOR_CAPTURE=fail makes every capture end as invalid.
#pragma once
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <set>

#include "emulator.h"

#define CUDART_VERSION 13000

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInsufficientDriver = 35,
  cudaErrorNoDevice = 100,
  cudaErrorLaunchFailure = 719,
  cudaErrorStreamCaptureUnsupported = 900,
  cudaErrorStreamCaptureInvalidated = 901
};
using cudaStream_t = int*;
using cudaEvent_t = int*;
using cudaMemPool_t = int*;
enum { cudaStreamNonBlocking = 1, cudaHostAllocDefault = 0, cudaEventBlockingSync = 1, cudaEventDisableTiming = 2 };
enum { cudaMemAllocationTypePinned = 1, cudaMemLocationTypeDevice = 1, cudaMemPoolAttrReleaseThreshold = 4 };
enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2 };
struct cudaMemPoolProps {
  int allocType;
  struct { int type, id; } location;
};
struct cudaDeviceProp {
  char name[256];
  size_t totalGlobalMem;
  int major, minor, multiProcessorCount;
};

namespace cu::emu {

// Two devices, so that tensors on different ones can meet.
constexpr int kDevices = 2;
constexpr int kMultiprocessors = 1;  // so that small products fill it, and kernels for large ones run
constexpr size_t kDeviceBytes = size_t{4} << 30;
inline std::mutex device_mutex;  // the machine is one; each device's calls come one at a time, but there are several
inline size_t device_bytes = 0;

// As on a GPU, what a kernel did wrong shows when the host next waits, and for ever after.
inline bool fault_seen = false;
inline bool faulty() { return !machine.reports.empty(); }
inline cudaError_t state() { return fault_seen ? cudaErrorLaunchFailure : cudaSuccess; }

inline void fail_on_purpose() {
  static const char* text = getenv("KERF_EMULATOR_FAULT");
  static int left = text ? atoi(text) : 0;
  if (left > 0 && --left == 0) report("a fault that was asked for");
}

inline int device_sm() {
  static const char* text = getenv("KERF_EMULATOR_SM");
  return text ? atoi(text) : 90;
}

// `where`: the function that launches, with its template arguments, for it may be one of several kernels' templates.
inline void log(const std::string& line) {
  static const char* path = getenv("KERF_EMULATOR_LOG");
  FILE* file = path ? fopen(path, "a") : nullptr;
  if (!file) return;
  fprintf(file, "%s\n", line.c_str());
  fclose(file);
}

inline void log_once(const char* kernel, const char* where) {
  static std::set<std::pair<std::string, std::string>> seen;
  if (seen.insert({kernel, where}).second) log(std::string(kernel) + " in " + where);
}

// What was enqueued while a stream captured, to be run in order. Memory that it allocates has one address as long as the graph lives,
// and may be used from its allocation to its release in each launch.
struct Graph {
  std::vector<std::function<void()>> nodes;
  std::map<void*, size_t> memory;
  ~Graph() {
    for (auto [memory, bytes] : memory) free(memory);
  }
};
inline thread_local std::shared_ptr<Graph> capturing;

// The launch of a program that looks for speed and for mistakes, not for what accesses cost.
template <class Kernel>
void launch_on_device(const char* name, const char* where, dim3 grid, dim3 block, size_t shared_bytes, Kernel kernel) {
  if (capturing)
    return capturing->nodes.push_back([=] { launch_on_device(name, where, grid, block, shared_bytes, kernel); });
  std::lock_guard<std::mutex> lock(device_mutex);
  log_once(name, where);
  if (faulty()) return;
  machine.options = {0, true, false};
  fail_on_purpose();
  launch(grid, block, shared_bytes, kernel);
}

inline void begin_buffer(void* memory, size_t bytes) {
  memset(memory, 0xff, bytes);  // NaN in every float format
  machine.buffers[static_cast<uint8_t*>(memory)] = bytes;
}

inline cudaError_t copy_checked(void* to, const void* from, size_t bytes, const void* device) {
  if (capturing) return cudaErrorStreamCaptureUnsupported;  // no driver copies to or from the host
  std::lock_guard<std::mutex> lock(device_mutex);
  if (bytes) check_global(device, bytes, "copy");
  if (!faulty()) memcpy(to, from, bytes);
  return state();
}

}  // namespace cu::emu

#undef CU_LAUNCH
#define CU_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  ((void)(stream),                                                \
   ::cu::emu::launch_on_device(#kernel, __PRETTY_FUNCTION__, grid, block, shared_bytes, [=] { kernel(__VA_ARGS__); }))

inline cudaError_t cudaGetDeviceCount(int* count) { return *count = cu::emu::kDevices, cudaSuccess; }
inline cudaError_t cudaDriverGetVersion(int* version) { return *version = CUDART_VERSION, cudaSuccess; }
inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (device < 0 || device >= cu::emu::kDevices) return cudaErrorNoDevice;
  const int sm = cu::emu::device_sm();
  *properties = {"emulated", cu::emu::kDeviceBytes, sm / 10, sm % 10, cu::emu::kMultiprocessors};
  return cudaSuccess;
}
inline cudaError_t cudaSetDevice(int device) {
  return device >= 0 && device < cu::emu::kDevices ? cudaSuccess : cudaErrorNoDevice;
}
inline cudaError_t cudaGetLastError() {
  std::lock_guard<std::mutex> lock(cu::emu::device_mutex);
  return cu::emu::state();
}
inline const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorLaunchFailure      ? cu::emu::machine.first_report.c_str()
         : error == cudaErrorMemoryAllocation ? "out of memory"
                                              : "no such device";
}
inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t*, int) { return cudaSuccess; }
inline cudaError_t cudaMemPoolCreate(cudaMemPool_t*, const cudaMemPoolProps*) { return cudaSuccess; }
inline cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, int, void*) { return cudaSuccess; }
inline cudaError_t cudaHostAlloc(void** memory, size_t bytes, int) {
  return *memory = malloc(bytes), *memory ? cudaSuccess : cudaErrorMemoryAllocation;
}
inline cudaError_t cudaMallocFromPoolAsync(void** memory, size_t bytes, cudaMemPool_t, cudaStream_t) {
  std::lock_guard<std::mutex> lock(cu::emu::device_mutex);
  if (cu::emu::state() != cudaSuccess) return cu::emu::state();
  bytes = (std::max<size_t>(bytes, 1) + 255) / 256 * 256;
  if (cu::emu::device_bytes + bytes > cu::emu::kDeviceBytes) return cudaErrorMemoryAllocation;
  *memory = aligned_alloc(256, bytes);
  if (!*memory) return cudaErrorMemoryAllocation;
  if (cu::emu::capturing) {
    cu::emu::capturing->memory[*memory] = bytes;
    cu::emu::capturing->nodes.push_back([at = *memory, bytes] {
      std::lock_guard<std::mutex> lock(cu::emu::device_mutex);
      cu::emu::begin_buffer(at, bytes);
    });
    return cudaSuccess;
  }
  cu::emu::begin_buffer(*memory, bytes);
  cu::emu::device_bytes += bytes;
  return cudaSuccess;
}
inline cudaError_t cudaFreeAsync(void* memory, cudaStream_t) {
  if (cu::emu::capturing && cu::emu::capturing->memory.count(memory)) {
    cu::emu::capturing->nodes.push_back([=] {
      std::lock_guard<std::mutex> lock(cu::emu::device_mutex);
      cu::emu::machine.buffers.erase(static_cast<uint8_t*>(memory));
    });
    return cudaSuccess;
  }
  std::lock_guard<std::mutex> lock(cu::emu::device_mutex);
  auto found = cu::emu::machine.buffers.find(static_cast<uint8_t*>(memory));
  if (found == cu::emu::machine.buffers.end()) {
    cu::emu::report("memory freed that was not allocated");
    return cu::emu::state();
  }
  cu::emu::device_bytes -= found->second;
  cu::emu::machine.buffers.erase(found);
  free(memory);
  return cudaSuccess;
}
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t) {
  return cu::emu::copy_checked(to, from, bytes, kind == cudaMemcpyHostToDevice ? to : from);
}
inline cudaError_t cudaMemsetAsync(void* memory, int value, size_t bytes, cudaStream_t stream) {
  if (cu::emu::capturing) {
    cu::emu::capturing->nodes.push_back([=] { cudaMemsetAsync(memory, value, bytes, stream); });
    return cudaSuccess;
  }
  std::lock_guard<std::mutex> lock(cu::emu::device_mutex);
  if (bytes) cu::emu::check_global(memory, bytes, "memset");
  if (!cu::emu::faulty()) memset(memory, value, bytes);
  return cu::emu::state();
}
inline cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, int) { return *event = new int, cudaSuccess; }
inline cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaEventSynchronize(cudaEvent_t) {
  std::lock_guard<std::mutex> lock(cu::emu::device_mutex);
  cu::emu::fault_seen = cu::emu::faulty();
  return cu::emu::state();
}

enum { cudaStreamCaptureModeThreadLocal = 1 };
using cudaGraph_t = std::shared_ptr<cu::emu::Graph>*;
using cudaGraphExec_t = std::shared_ptr<cu::emu::Graph>*;
inline cudaError_t cudaStreamBeginCapture(cudaStream_t, int) {
  if (cu::emu::capturing) return cudaErrorStreamCaptureUnsupported;
  cu::emu::capturing = std::make_shared<cu::emu::Graph>();
  return cudaSuccess;
}
inline cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t* graph) {
  if (!cu::emu::capturing) return cudaErrorStreamCaptureInvalidated;
  const auto captured = std::move(cu::emu::capturing);
  static const bool fails = getenv("KERF_EMULATOR_CAPTURE") != nullptr;
  if (fails) return cudaErrorStreamCaptureInvalidated;
  *graph = new std::shared_ptr<cu::emu::Graph>(captured);
  return cudaSuccess;
}
inline cudaError_t cudaGraphInstantiate(cudaGraphExec_t* made, cudaGraph_t graph, int) {
  return *made = new std::shared_ptr<cu::emu::Graph>(*graph), cudaSuccess;
}
inline cudaError_t cudaGraphDestroy(cudaGraph_t graph) { return delete graph, cudaSuccess; }
inline cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) { return delete graph, cudaSuccess; }
inline cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t) {
  if (cu::emu::capturing) return cudaErrorStreamCaptureUnsupported;
  cu::emu::log("graph of " + std::to_string((*graph)->nodes.size()) + " nodes");
  for (const auto& node : (*graph)->nodes) node();
  std::lock_guard<std::mutex> lock(cu::emu::device_mutex);
  for (auto [memory, bytes] : (*graph)->memory)
    if (cu::emu::machine.buffers.erase(static_cast<uint8_t*>(memory))) cu::emu::report("memory of a graph that it did not free");
  return cu::emu::state();
}
