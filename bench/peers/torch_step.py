"""The training step of train.bench.ts on PyTorch: milliseconds a step, best and median of short bursts.

    OMP_NUM_THREADS=1 python3 bench/peers/torch_step.py

Debian: apt-get install python3-torch libopenblas0-pthread.
"""
import statistics
import time

import torch
from torch import nn

torch.manual_seed(1)
model = nn.Sequential(nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
loss_of = nn.CrossEntropyLoss()
x = torch.rand(64, 784)
labels = torch.arange(64) % 10


def step():
    loss = loss_of(model(x), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


for _ in range(50):
    step()
bursts = []
for _ in range(40):
    start = time.perf_counter()
    for _ in range(10):
        step()
    bursts.append((time.perf_counter() - start) * 100)
print(f"torch {torch.__version__}, {torch.get_num_threads()} threads: "
      f"best {min(bursts):.3f} ms, median {statistics.median(bursts):.3f} ms a step")
