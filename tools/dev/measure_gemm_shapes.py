#!/usr/bin/env python3
"""Times bf16 linear layers on this GPU at widths off every table's grid, as rows that `moecast import table` reads.

usage: tools/dev/measure_gemm_shapes.py OUT.csv [--grid TABLE.csv] [--shapes 900] [--seconds 110] [--seed 11]
  --grid  lines m,n,k without a header: every fourth shape is taken from there, so that a table of another machine can
          be told from one of other shapes

Five layers with weights of their own are captured into one CUDA graph (no layer finds its weights in the cache unless
all five fit); a sample replays it twice; the latency is the median of nine samples, in milliseconds. Needs PyTorch.
"""

import argparse
import csv
import random
import statistics
import time
from pathlib import Path

import torch
import torch.nn.functional as F

LAYERS = 5
REPLAYS = 2
SAMPLES = 9


def off_grid(rng):
    """(m, n, k): log-uniform, n and k multiples of 8 to 128."""
    step = rng.choice([8, 16, 32, 64, 96, 128])
    n, k = (max(step, round(2 ** rng.uniform(7, 14.2) / step) * step) for _ in range(2))
    return max(1, round(2 ** rng.uniform(0, 13.2))), n, k


def latency_ms(m, n, k):
    """Median milliseconds of one layer."""
    x = torch.randn(m, k, dtype=torch.bfloat16, device="cuda")
    weights = [torch.randn(n, k, dtype=torch.bfloat16, device="cuda") for _ in range(LAYERS)]
    for weight in weights:  # libraries choose their kernel outside of the capture
        F.linear(x, weight)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for weight in weights:
            F.linear(x, weight)
    for _ in range(3):
        graph.replay()
    samples = []
    for _ in range(SAMPLES):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(REPLAYS):
            graph.replay()
        end.record()
        end.synchronize()
        samples.append(start.elapsed_time(end) / (LAYERS * REPLAYS))
    return statistics.median(samples)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--grid", type=Path)
    parser.add_argument("--shapes", type=int, default=900)
    parser.add_argument("--seconds", type=float, default=110)
    parser.add_argument("--seed", type=int, default=11)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    grid = []
    if options.grid:
        grid = [tuple(map(int, line.split(","))) for line in options.grid.read_text().split()]
    start = time.monotonic()
    with options.out.open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["kernel_source", "gemm_dtype", "m", "n", "k", "latency"])
        for index in range(options.shapes):
            if time.monotonic() - start > options.seconds:
                break
            m, n, k = grid.pop() if grid and index % 4 == 0 else off_grid(rng)
            rows.writerow(["torch.nn.functional.linear", "bfloat16", m, n, k, f"{latency_ms(m, n, k):.6f}"])


if __name__ == "__main__":
    main()
