#include "graphs.h"

namespace kerf {
namespace cuda {

bool Graphs::same(const View& a, const View& b) {
  if (a.rank != b.rank) return false;
  if (a.rank < 0) return true;  // both absent
  if (a.data != b.data || a.dtype != b.dtype) return false;
  for (int i = 0; i < a.rank; i++)
    if (a.shape[i] != b.shape[i] || a.stride[i] != b.stride[i]) return false;
  return true;
}

Graphs::Recent* Graphs::find(const CudaCall& call, int views, int numbers) {
  for (auto it = recent_.begin(); it != recent_.end(); ++it) {
    bool equal = it->call.op == call.op;
    for (int i = 0; equal && i < numbers; i++) equal = it->call.numbers[i] == call.numbers[i];  // a NaN is like none
    for (int i = 0; equal && i < views; i++) equal = same(it->call.views[i], call.views[i]);
    if (!equal) continue;
    recent_.splice(recent_.begin(), recent_, it);
    return &recent_.front();
  }
  return nullptr;
}

Graphs::Recent& Graphs::add(Gpu& gpu, const CudaCall& call, int views, int numbers) {
  if (recent_.size() == kKept) {
    forget(gpu, recent_.back());
    recent_.pop_back();
  }
  Recent& recent = recent_.emplace_front();
  recent.call.op = call.op;
  for (int i = 0; i < views; i++) recent.call.views[i] = call.views[i];
  for (int i = 0; i < numbers; i++) recent.call.numbers[i] = call.numbers[i];
  return recent;
}

void Graphs::forget(Gpu& gpu, Recent& recent) {
  if (recent.graph) gpu.retire(recent.graph);
  recent.graph = nullptr;
}

}  // namespace cuda
}  // namespace kerf
