// With `occupancy`: reads sm, threads, shared bytes and registers, prints how many blocks a multiprocessor holds. With `convolutions`:
// prints what those of drivers/conv.cu and qconv.cu are launched with. With `fold`: the shared memory of reductions. Else prints the table of products, and for each line of stdin (features tokens k type out weights sm multiprocessors) what
// is chosen, as JSON; the tests judge.
#include "emulator/emulator.h"
#include "native/cuda/matmul_table.h"

#include <cstring>
#include <iostream>

#include "native/cuda/block.cuh"
#include "native/cuda/conv.cuh"
#include "native/cuda/conv_weight_grad.cuh"

using namespace kerf::cuda;

static void print(const char* kind, const char* type, const char* out, int features, int tokens, int threads, int shared) {
  printf("{\"config\":\"%s_%s_%s_%dx%d\",\"threads\":%d,\"shared\":%d}\n", kind, type, out, features, tokens, threads, shared);
}

template <class T>
static void print_forward(const char* out) {
  using Wide = MmaConfig<T, 128, 64, 64, 32, 3>;
  using Narrow = MmaConfig<T, 128, 16, 32, 16, 4>;
  print("conv", ShortName<T>::value, out, Wide::BM, Wide::BN, Wide::kThreads, Wide::kSharedBytes);
  print("conv", ShortName<T>::value, out, Narrow::BM, Narrow::BN, Narrow::kThreads, Narrow::kSharedBytes);
}

template <class T>
static void print_convolutions() {
  using Wide = MmaConfig<T, 128, 64, 64, 32, 3>;
  const char* const type = ShortName<T>::value;
  for (const char* out : {type, "f32"}) print_forward<T>(out);
  print("conv_grad", type, "f32", Wide::BM, Wide::BN, Wide::kThreads, Wide::kSharedBytes);
}

int main(int count, char** arguments) {
  if (count > 1 && strcmp(arguments[1], "convolutions") == 0) {
    print_convolutions<cu::f16>();
    print_convolutions<cu::bf16>();
    print_forward<cu::s8>("any");
    print("conv", "f32", "f32", kSimtTile, kSimtTile, kSimtThreads, kConvSimtBytes);
    print("conv_grad", "f32", "f32", kSimtTile, kSimtTile, kSimtThreads, kSimtSplitBytes);
    return 0;
  }
  if (count > 1 && strcmp(arguments[1], "fold") == 0) {
    printf("%d\n", static_cast<int>(kFoldBytes));
    return 0;
  }
  if (count > 1) {
    int sm, threads, shared, registers;
    while (std::cin >> sm >> threads >> shared >> registers)
      printf("%d\n", resident_blocks(sm, threads, shared, registers));
    return 0;
  }
  for (const MatmulConfig& c : matmul_table())
    printf("{\"config\":\"%s\",\"kind\":\"%s\",\"tokens\":%d,\"stages\":%d,\"threads\":%d,\"shared\":%d}\n",
           show(c).c_str(), name_of(c.kind), c.tokens, c.stages, c.threads, c.shared_bytes);
  long long features, tokens, k;
  std::string type, out, weights;
  int sm, multiprocessors;
  while (std::cin >> features >> tokens >> k >> type >> out >> weights >> sm >> multiprocessors) {
    const MatmulWeights kind = weights == "codes8"   ? MatmulWeights::codes8
                               : weights == "codes4" ? MatmulWeights::codes4
                               : weights == "kept"   ? MatmulWeights::kept
                                                     : MatmulWeights::dense;
    const MatmulDesc desc{features, tokens, k, type.c_str(), out.c_str(), kind, sm, multiprocessors};
    const MatmulChoice choice = choose(matmul_table(), desc);
    printf("{\"choice\":\"%s\",\"parts\":%d,\"candidates\":%zu,\"explain\":\"%s\"}\n",
           choice.config ? show(*choice.config).c_str() : "", choice.parts, candidates(matmul_table(), desc).size(),
           explain(desc, choice).c_str());
  }
}
