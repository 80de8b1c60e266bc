#!/usr/bin/env bash
# One command for a machine with an NVIDIA GPU and node, g++ and nvcc; python3 with torch and compute-sanitizer are used
# where they are. Builds, compares every cu:: function with the emulator, checks every product, times them beside
# PyTorch's, and writes bench/results/<card>.json. With --dry (or where there is no GPU): all that can be done without
# one.
set -euo pipefail
cd "$(dirname "$0")/.."
out=build/gpu
mkdir -p "$out"
export PATH="$PATH:/usr/local/cuda/bin"
say() { printf '\n== %s\n' "$*"; }

dry=${1:-}
if [ "$dry" != --dry ] && ! nvidia-smi -L >/dev/null 2>&1; then
  echo 'no GPU here (nvidia-smi -L fails): a dry run'
  dry=--dry
fi

say 'the program on the emulator'
includes=(-I . -I test/cuda)
g++ -std=c++20 -O1 -DKERF_HOPPER -Wno-unknown-pragmas -x c++ "${includes[@]}" -I test/cuda/emulator \
  bench/gpu/gpu.cu -o "$out/emulated"
"$out/emulated" conformance >"$out/conformance-emulated.jsonl"

if ! command -v nvcc >/dev/null; then
  echo 'skipped: no nvcc'
  [ "$dry" = --dry ] || exit 1
else
  if [ "$dry" = --dry ]; then
    sm=90
  else
    sm=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader -i 0 | tr -d .)
  fi
  say "the program for sm_$sm"
  hopper=()
  architecture=$sm
  if [ "$sm" = 90 ]; then
    hopper=(-DKERF_HOPPER)
    architecture=90a
  fi
  nvcc -std=c++20 -O2 "${hopper[@]}" -gencode="arch=compute_$architecture,code=sm_$architecture" "${includes[@]}" \
    bench/gpu/gpu.cu -o "$out/gpu"
fi

if [ "$dry" = --dry ]; then
  say 'every product, on the emulator'
  "$out/emulated" check >"$out/check.jsonl"
  node bench/gpu/report.mjs --dry "$out"
  exit
fi

say 'conformance'
"$out/gpu" conformance >"$out/conformance.jsonl"
say 'every product against float64'
"$out/gpu" check >"$out/check.jsonl" || true

say 'times'
: >"$out/time.jsonl"
# features tokens k: large ones, a layer for one, eight and 32 tokens (bench/shapes.ts and issue of the backend's goals)
shapes=('8192 8192 8192' '4096 4096 4096' '2048 2048 2048' '8192 1 8192'
  '4096 1 4096' '4096 8 4096' '4096 32 4096' '4096 512 4096')
for shape in "${shapes[@]}"; do
  # shellcheck disable=SC2086
  "$out/gpu" time $shape >>"$out/time.jsonl"
done
: >"$out/torch.jsonl"
if python3 -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null; then
  say 'the same by PyTorch'
  python3 bench/gpu/torch_times.py "${shapes[@]}" >"$out/torch.jsonl" || true
else
  echo 'skipped: no python3 with torch'
fi

: >"$out/sanitizer.txt"
if command -v compute-sanitizer >/dev/null; then
  say 'compute-sanitizer'
  for tool in memcheck racecheck; do
    timeout 150 compute-sanitizer --tool "$tool" "$out/gpu" conformance 2>&1 |
      grep '=====' >>"$out/sanitizer.txt" || true
  done
  timeout 150 compute-sanitizer --tool memcheck "$out/gpu" check 2>&1 | grep '=====' >>"$out/sanitizer.txt" || true
else
  echo 'skipped: no compute-sanitizer'
fi

node bench/gpu/report.mjs "$out"
