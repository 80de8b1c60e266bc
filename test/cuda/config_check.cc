// With `occupancy`: reads sm, threads, shared bytes and registers, prints how many blocks a multiprocessor holds. Else
// prints the table of products, and for each line of stdin (features tokens k type out weights sm multiprocessors) what
// is chosen, as JSON; the tests judge.
#include "emulator/emulator.h"
#include "native/cuda/matmul_table.h"

#include <iostream>

using namespace kerf::cuda;

int main(int count, char**) {
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
