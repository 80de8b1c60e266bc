// The products that drivers may launch: matmul.def's, by their number in one table.
#pragma once
#include "../matmul_table.h"
#include "../tensor_map.h"
#include "launch.h"

namespace kerf {
namespace cuda {

// Where matmul_table.h's products are launched: a Gpu. What fails stays in `status`, and nothing is launched after it.
struct Launcher {
  Gpu& gpu;
  const char* op;
  Status status;

  template <auto kernel, class... Arguments>
  void enqueue(dim3 grid, int threads, int shared_bytes, const Arguments&... arguments) {
    if (status.ok()) status = allow_shared<kernel>(op, shared_bytes);
    if (!status.ok()) return;
    CU_LAUNCH(kernel, grid, dim3(static_cast<unsigned>(threads)), static_cast<size_t>(shared_bytes), gpu.stream(), arguments...);
    status = gpu.launched(op);
  }
  cu::TensorMap tensor_map(const uint8_t* base, int rows, int row_bytes, int box_rows, int element_bytes) {
    cu::TensorMap map{};
    if (const char* failed = encode_tensor_map(&map, base, rows, row_bytes, box_rows, element_bytes))
      status = Status::error(Code::device, "%s: %s", op, failed);
    return map;
  }
};

struct MatmulKernels {
  std::vector<MatmulConfig> configs;
  std::vector<void (*)(Launcher&, const MatmulOperands&)> launches;

  template <class Product>
  void add(Product) {
    configs.push_back(Product::config());
    launches.push_back(Product::template launch<Launcher>);
  }
};

// In files of their own: nvcc takes its time, and the second is compiled for sm_90a alone.
void add_packed(MatmulKernels& kernels);
void add_wgmma(MatmulKernels& kernels);

}  // namespace cuda
}  // namespace kerf
