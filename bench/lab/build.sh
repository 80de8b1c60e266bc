#!/bin/sh
# Builds the kernel labs (never part of the product) to build/lab/, with the flags of native/sources.json.
set -e
cd "$(dirname "$0")/../.."
out=build/lab
mkdir -p $out
cc="g++ -std=c++20 -O3 -g1 -fPIC -Wall -Wextra -Wno-maybe-uninitialized -Wno-uninitialized"
node -e '
  for (const t of require("./native/sources.json").targets)
    for (const file of t.sources.filter((f) => /matmul/.test(f))) console.log(t.name, file, t.flags.join(" "))
' | while read -r target file flags; do
  object=$out/$(basename $file .cc)-$target.o
  newest=$(ls -t native/cpu/*.h native/cpu/*/*.h native/core/*.h $file $object 2>/dev/null | head -1)
  [ "$newest" = "$object" ] || $cc $flags -DKERF_TARGET=$target -c $file -o $object
done
for f in pool scratch status; do
  $cc -c native/core/$f.cc -o $out/$f.o
done
$cc -mavx512f -mavx512bf16 -mavx512vnni -mavxvnni -mfma -c bench/lab/ceilings.cc -o $out/ceilings.o
for lab in matmul qmatmul wmatmul; do
  $cc -c bench/lab/$lab.cc -o $out/lab-$lab.o
  g++ $out/lab-$lab.o $out/$(echo $lab | sed s/^w/q/)-*.o $out/pool.o $out/scratch.o $out/status.o $out/ceilings.o -o $out/$lab -lpthread -lm
done
$cc -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni -mfma bench/lab/sparse.cc $out/ceilings.o -o $out/sparse
