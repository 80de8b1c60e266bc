#!/bin/sh
# Builds the kernel lab (never part of the product) to build/lab/matmul, with the flags of native/sources.json.
set -e
cd "$(dirname "$0")/../.."
out=build/lab
mkdir -p $out
cc="g++ -std=c++20 -O3 -g1 -fPIC -Wall -Wextra -Wno-maybe-uninitialized -Wno-uninitialized"
node -e '
  for (const t of require("./native/sources.json").targets) console.log(t.name, t.flags.join(" "))
' | while read -r target flags; do
  newest=$(ls -t native/cpu/*.h native/cpu/$target/* native/cpu/avx512/matmul_simd.h native/core/*.h $out/$target.o 2>/dev/null | head -1)
  [ "$newest" = "$out/$target.o" ] || $cc $flags -DKERF_TARGET=$target -c native/cpu/$target/matmul.cc -o $out/$target.o
done
for f in pool scratch status; do
  [ $out/$f.o -nt native/core/$f.cc ] || $cc -c native/core/$f.cc -o $out/$f.o
done
$cc -mavx512f -mavx512bf16 -mfma -c bench/lab/ceilings.cc -o $out/ceilings.o
$cc -c bench/lab/matmul.cc -o $out/matmul.o
g++ $out/*.o -o $out/matmul -lpthread -lm
