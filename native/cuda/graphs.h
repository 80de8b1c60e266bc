// Calls that recur with the same arguments, as CUDA graphs: one launch in place of many (docs/adr/0018).
//
// A driver's launches depend on its arguments alone, so that what it enqueued for them once is what it would enqueue again. The
// rule: a call that launches kLeast kernels or more, none of which reports indices, is counted by its op, its views' places and
// its numbers; the third one like it is captured, later ones launch the graph. kKept calls are remembered, those used last. A
// capture that fails leaves nothing behind: the call runs as ever, and is not tried again.
#pragma once
#include <list>

#include "runtime.h"

namespace kerf {
namespace cuda {

class Graphs {
 public:
  static constexpr int kLeast = 4, kOrdinary = 2;
  static constexpr size_t kKept = 32;

  // Runs `body`, the driver of `call` with its `views` and `numbers` in use, or a graph of what it would enqueue.
  template <class Body>
  Status run(Gpu& gpu, const CudaCall& call, int views, int numbers, Body body) {
    Recent* known = many_[static_cast<int>(call.op)] ? find(call, views, numbers) : nullptr;
    if (known && known->graph) {
      Status status = gpu.launch(known->graph);
      if (status.code != Code::out_of_memory) return status;
      forget(gpu, *known);  // the graph's own scratch memory did not fit
    }
    if (known && known->times == kOrdinary) {
      known->times++;  // whatever comes of it
      if (gpu.begin_capture()) {
        const size_t fallible = gpu.fallible();
        const Status status = body();
        known->graph = gpu.end_capture(status.ok() && gpu.fallible() == fallible);
        if (known->graph) return gpu.launch(known->graph);
      }
    }
    const uint64_t launches = gpu.launches();
    const size_t fallible = gpu.fallible();
    const Status status = body();
    if (!status.ok() || gpu.launches() - launches < kLeast || gpu.fallible() != fallible) return status;
    many_[static_cast<int>(call.op)] = true;
    if (!known) known = &add(gpu, call, views, numbers);
    if (known->times < kOrdinary) known->times++;
    return status;
  }

 private:
  struct Recent {
    CudaCall call;
    int times;  // it ran as ever; beyond kOrdinary it has been captured, or could not be
    cudaGraphExec_t graph;
  };
  static bool same(const View& a, const View& b);
  Recent* find(const CudaCall& call, int views, int numbers);
  Recent& add(Gpu& gpu, const CudaCall& call, int views, int numbers);
  static void forget(Gpu& gpu, Recent& recent);

  bool many_[static_cast<int>(OpCode::size)] = {};  // some call of the op launched kLeast kernels
  std::list<Recent> recent_;                        // the one used last comes first
};

}  // namespace cuda
}  // namespace kerf
