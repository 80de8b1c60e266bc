"""Bytes that a training step of step-memory.ts holds at most on PyTorch: what stays between steps (parameters, gradients,
AdamW's two moments) and the largest sum of what the step's ops allocate and have not yet freed. Room that an op takes and
gives back itself is not seen.

    python3 bench/peers/torch_memory.py

Debian: apt-get install python3-torch libopenblas0-pthread.
"""
import json

import torch
from torch.autograd.profiler import profile
from torch_step import batches, training


def measure(name, shape, make):
    model, optimizer, step = training(shape, make)
    for _ in range(3):
        step()
    with profile(profile_memory=True) as seen:
        step()
    held = most = 0
    for event in sorted(seen.function_events, key=lambda event: event.time_range.start):
        held += event.self_cpu_memory_usage
        most = max(most, held)
    of_state = sum(t.numel() * t.element_size() for s in optimizer.state.values() for t in s.values() if torch.is_tensor(t))
    lasting = sum(2 * p.numel() * p.element_size() for p in model.parameters()) + of_state
    return {"net": name, "batch": shape[0], "lasting": lasting, "step": most, "bytes": lasting + most}


print(json.dumps([measure(name, shape, make) for name, shape, make in batches()]))
