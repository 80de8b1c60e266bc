"""The training steps of train.bench.ts on PyTorch: milliseconds a step, best and median of short bursts.

    OMP_NUM_THREADS=1 python3 bench/peers/torch_step.py

Debian: apt-get install python3-torch libopenblas0-pthread.
"""
import statistics
import time

import torch
from torch import nn

torch.manual_seed(1)
# name: shape of an example, batches, the network
nets = {
    "LeNet-300-100": ((784,), [64], lambda: nn.Sequential(
        nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10))),
    "LeNet-5": ((1, 28, 28), [64], lambda: nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10))),
    "MLP 1024-2048-2048-10": ((1024,), [64, 512], lambda: nn.Sequential(
        nn.Linear(1024, 2048), nn.ReLU(), nn.Linear(2048, 2048), nn.ReLU(), nn.Linear(2048, 10))),
}
loss_of = nn.CrossEntropyLoss()


def batches():
    return [(name, (batch, *shape), make) for name, (shape, sizes, make) in nets.items() for batch in sizes]


def training(shape, make):
    """A network, its optimizer and a step of them."""
    model = make()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    x, labels = torch.rand(*shape), torch.arange(shape[0]) % 10

    def step():
        loss = loss_of(model(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return model, optimizer, step


def measure(name, shape, make):
    _, _, step = training(shape, make)
    for _ in range(20):
        step()
    bursts = []
    for _ in range(40):
        start = time.perf_counter()
        for _ in range(5):
            step()
        bursts.append((time.perf_counter() - start) * 200)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {name}, batch {shape[0]}: "
          f"best {min(bursts):.3f} ms, median {statistics.median(bursts):.3f} ms a step")


if __name__ == "__main__":
    for name, shape, make in batches():
        measure(name, shape, make)
