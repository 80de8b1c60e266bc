"""Times PyTorch's products (cuBLAS, _int_mm, _cslt_sparse_mm) of shapes "FEATURES TOKENS K"; a JSON object a line."""
import json
import statistics
import sys

import torch


def microseconds(call, operands):
    times = []
    for i in range(24):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        call(*operands[i % len(operands)])
        end.record()
        end.synchronize()
        if i >= 4:
            times.append(1000 * start.elapsed_time(end))
    return statistics.median(times)


def report(what, m, n, k, make, call):
    try:
        one = make()
        size = sum(t.numel() * t.element_size() for t in one)
        copies = min(32, 200_000_000 // size + 2)
        us = microseconds(call, [one] + [make() for _ in range(copies - 1)])
        print(json.dumps({"torch": what, "m": m, "n": n, "k": k, "us": round(us, 2)}), flush=True)
    except Exception as error:  # an op that this build, card or shape does not have
        print(f"{what}: {error}", file=sys.stderr)


def half_zeros(w):
    four = w.view(-1, 4)
    four[:, 2:] = 0
    return w


for shape in sys.argv[1:]:
    m, n, k = map(int, shape.split())
    for dtype in (torch.bfloat16, torch.float16):

        def floats():
            return torch.randn(n, k, device="cuda", dtype=dtype), torch.randn(m, k, device="cuda", dtype=dtype)

        report(f"matmul {dtype}", m, n, k, floats, lambda x, w: x @ w.t())

    def integers():
        x = torch.randint(-127, 128, (max(n, 32), k), device="cuda", dtype=torch.int8)
        return x, torch.randint(-127, 128, (m, k), device="cuda", dtype=torch.int8)

    report("_int_mm", m, n, k, integers, lambda x, w: torch._int_mm(x, w.t()))
    for dtype, make in ((torch.float16, floats), (torch.int8, integers)):

        def kept():
            x, w = make()
            return torch._cslt_compress(half_zeros(w)), x

        report(f"_cslt_sparse_mm {dtype}", m, n, k, kept, lambda w, x: torch._cslt_sparse_mm(w, x.t()))
