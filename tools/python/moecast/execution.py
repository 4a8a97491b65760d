"""What all references that execute on this machine share: which layers are drawn, and how they are timed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy


def draw_layers(count: int, seed: int, most_flops: float = 2e10, most_bytes: float = 4e8) -> list[dict[str, int]]:
    """Random MoE layers, none of them on the profiler's grid: dicts of hidden, width, experts, top_k, tokens."""
    g = numpy.random.default_rng(seed)
    layers = []
    while len(layers) < count:
        layer = {
            "hidden": 32 * int(g.integers(8, 65)),
            "width": 32 * int(g.integers(4, 81)),
            "experts": int(g.integers(4, 33)),
            "top_k": int(g.integers(1, 5)),
            "tokens": int(round(2 ** g.uniform(0, 9))),
        }
        matrix = layer["hidden"] * layer["width"]
        if 12 * matrix * layer["experts"] < most_bytes and 6 * matrix * layer["top_k"] * layer["tokens"] < most_flops:
            layers.append(layer)
    return layers


def measure(
    run: Callable[[], Any], *, least_s: float = 0.15, least_runs: int = 5, most_runs: int = 200, settle: int = 2
) -> tuple[float, float]:
    """Median seconds of `run()`, and the noise: the ratio of the medians of its odd and even runs minus one."""
    for _ in range(settle):
        run()
    times = []
    start = time.perf_counter()
    while len(times) < least_runs or (time.perf_counter() - start < least_s and len(times) < most_runs):
        before = time.perf_counter()
        run()
        times.append(time.perf_counter() - before)
    odd, even = (sorted(times[i::2])[len(times[i::2]) // 2] for i in (0, 1))
    return sorted(times)[len(times) // 2], abs(odd / even - 1)


def in_rounds(
    count: int,
    execute: Callable[[int], tuple],
    *,
    rounds: int = 4,
    seed: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list, numpy.ndarray, list[float]]:
    """Executes cases 0 .. count - 1 in rounds that lie minutes apart, each in an order of its own.

    `execute(number)` returns a tuple whose last two are seconds and noise. Returns what it returned in the first round
    without these, the median seconds of each case, and its noise: the median of its odd rounds over that of its even
    ones, minus one. With one round the noise is that of the execution itself. `progress`: see `profile`.
    """
    order = numpy.random.default_rng(seed)
    answers, noises = [None] * count, [0.0] * count
    times = numpy.zeros((rounds, count))
    for turn in range(rounds):
        for done, number in enumerate(order.permutation(count)):
            *answer, times[turn, number], noises[number] = execute(int(number))
            if turn == 0:
                answers[number] = tuple(answer)
            if progress:
                progress(turn * count + done + 1, rounds * count)
    if rounds > 1:
        noises = list(abs(numpy.median(times[::2], axis=0) / numpy.median(times[1::2], axis=0) - 1))
    return answers, numpy.median(times, axis=0), [float(noise) for noise in noises]
