#pragma once

namespace kerf {
namespace cuda {

// Where kernels report the first index that is out of range: the launch's number above, the position below.
struct Fault {
  unsigned long long* word;
  unsigned long long launch;
};

}  // namespace cuda
}  // namespace kerf
