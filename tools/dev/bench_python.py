"""How fast the Python package answers: the table of docs/nas.md.

usage: build/venv/bin/python tools/dev/bench_python.py [--hw NAME]     medians of five runs
"""

import argparse
import statistics
import sys
import time

import moecast
import numpy
from moecast.spaces import SpaceTimes


def seconds(run, repeat=5):
    """Median seconds of a call, after one that is not counted."""
    run()
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def layers(count):
    g = numpy.random.default_rng(1)
    return {
        "hidden": g.integers(4, 32, count, dtype=numpy.int32) * 64,
        "width": g.integers(4, 64, count, dtype=numpy.int32) * 64,
        "experts": g.choice(numpy.array([4, 8, 16, 32], numpy.int32), count),
        "top_k": g.choice(numpy.array([1, 2, 4], numpy.int32), count),
        "tokens": g.choice(numpy.array([1, 8, 64, 512], numpy.int32), count),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hw", default="amd-epyc-2cpu")
    predictor = moecast.Predictor(parser.parse_args().hw, threads=1)
    rows = []
    columns = layers(100_000)
    rate = len(columns["hidden"]) / seconds(lambda: predictor.predict_batch(columns))
    rows.append(("MoE layers in a batch", "1 M/s", f"{rate / 1e3:.0f} k/s"))
    one = predictor.layers().one
    rows.append(
        (
            "one MoE layer",
            "5 us",
            f"{1e6 * seconds(lambda: [one(512, 1024, 8, 2, 64) for _ in range(5000)]) / 5000:.1f} us",
        )
    )
    space = moecast.load_space("llm-moe")
    genomes = space.random(50_000, 1)
    genomes[:, space.genes.index("decoder.layers")] = 3
    times = SpaceTimes(space, predictor)
    rows.append(
        (
            "12-layer models as genomes",
            "100 k/s",
            f"{len(genomes) / seconds(lambda: times.predict(genomes)) / 1e3:.0f} k/s",
        )
    )
    step = times.workload.steps()[0][1]
    batch = predictor.batch(step)
    parts = [batch.parts_of(space.architecture(g)) for g in genomes[:50]]
    table = numpy.array(parts * 400, numpy.int32)
    rows.append(
        (
            "12-layer models as part numbers",
            "100 k/s",
            f"{len(table) / seconds(lambda: batch.predict(table)) / 1e3:.0f} k/s",
        )
    )
    rows.append(
        ("one 12-layer model", "20 us", f"{1e6 * seconds(lambda: [batch.one(p) for p in parts]) / len(parts):.1f} us")
    )
    architecture = space.architecture(genomes[0])
    whole = seconds(lambda: predictor.predict(architecture, step))
    rows.append(("the same with operators, factors and memory", "", f"{1e6 * whole:.0f} us"))

    def search():
        moecast.search(
            "automoe-wmt14-en-de",
            predictor,
            objectives=["flops:max"],
            constraints={"latency": "1000ms"},
            generations=30,
            population=125,
            method="evolution",
        )

    rows.append(("AutoMoE's search, 30 generations of 125", "1 s", f"{seconds(search, 3):.2f} s"))
    print("| what | asked | seen |\n|---|---|---|")
    for row in rows:
        print("| " + " | ".join(row) + " |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
