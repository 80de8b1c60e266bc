// What every target's files contribute to its row of the table. install.cc of the target calls those it has.
#pragma once
#include "../core/kernels.h"
#include "../core/target.h"

namespace kerf::KERF_TARGET {

void install(Kernels& row);  // called by ops/targets.cc
void install_map(Kernels& row);
void install_copy(Kernels& row);
void install_rows(Kernels& row);
void install_planes(Kernels& row);
void install_matmul(Kernels& row);
void install_qmatmul(Kernels& row);
void install_spmatmul(Kernels& row);
void install_probe(Kernels& row);

}  // namespace kerf::KERF_TARGET
