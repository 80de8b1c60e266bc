// The vocabulary of all CUDA code here: kernels touch memory, barriers and tensor cores only through the functions of
// namespace cu. nvcc sees PTX (device.h, hopper.h); g++ sees the emulator of test/cuda/, which checks every one of
// them.
#pragma once
#include "types.h"

#ifdef __CUDACC__
#include "device.h"
#include "hopper.h"
#else
#include <emulator.h>  // test/cuda/emulator/, on the include path of the tests
#endif
