"""Predictions beside executed architectures.

usage: build/venv/bin/python tools/dev/judge_dataset.py --dataset FILE --hw PROFILE [--torch PROFILE] [--closing 20]

--hw: a profile of the machine that executed them, --torch: one of `moecast profile --backend torch` there. Models that
PyTorch executed are judged after `--closing` of them taught what lies between kernels; the runtime's as they are.
"""

import argparse

import moecast
import numpy
from moecast.accuracy import judged, rank_correlation, report
from moecast.adaptation import Correction
from moecast.dataset import load_dataset
from moecast.spaces import SpaceTimes


def times_of(dataset, setup, hw, threads):
    what = dataset.header["setups"][setup]
    strategy = "per-expert-loop" if what["runtime"] == "torch" else ""
    predictor = moecast.Predictor(hw, backend=what["runtime"], dtype=what["dtype"], threads=threads, strategy=strategy)
    return SpaceTimes(dataset.space(setup), predictor, dataset.workload(setup))


def few_shot(columns, seconds, count=10, draws=10):
    """Rank correlation of what is left, from so many rows, over draws: mean and least."""
    found = []
    for draw in range(draws):
        order = numpy.random.default_rng(draw).permutation(len(seconds))
        known, rest = order[:count], order[count:]
        correction = Correction({k: v[known] for k, v in columns.items()}, seconds[known])
        answer = correction.apply({k: v[rest] for k, v in columns.items()})
        found.append(rank_correlation(answer["latency_s"], seconds[rest]))
    return float(numpy.mean(found)), min(found)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--hw", required=True)
    parser.add_argument("--torch")
    parser.add_argument("--closing", type=int, default=20)
    options = parser.parse_args()
    dataset = load_dataset(options.dataset)
    for setup, what in dataset.header["setups"].items():
        torch = what["runtime"] == "torch"
        hw = options.torch if torch else options.hw
        if hw is None:
            continue
        genomes, columns = dataset.of(setup)
        if what["threads"] == 1:
            answer = times_of(dataset, setup, hw, 1).predict(genomes)
            result, _ = judged(answer, columns["latency_s"], columns["noise_ratio"], options.closing if torch else 0)
            print(report(result, setup))
        else:
            answer = times_of(dataset, setup, hw, 1).predict(genomes)
            mean, least = few_shot(answer, columns["latency_s"])
            print(f"{setup}: from 10 of {len(genomes)}, rank correlation {mean:.3f} (least {least:.3f})\n")


if __name__ == "__main__":
    main()
