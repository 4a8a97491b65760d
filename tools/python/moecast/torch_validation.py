"""Predictions of PyTorch modules beside their execution. Needs torch."""

import numpy
import torch

from moecast._core import Architecture, UsageError
from moecast.adaptation import Correction
from moecast.predictor import Predictor
from moecast.runners import TorchTranslation
from moecast.spaces import SpaceTimes, load_space
from moecast.torch_reference import layer_of, measure


def draw_layers(count, seed, most_flops=2e10, most_bytes=4e8):
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


def execute(layer, least_s, dtype=torch.float32):
    """Rows of each expert, seconds and noise of one layer."""
    architecture = Architecture.moe_layer(layer["hidden"], layer["width"], layer["experts"], layer["top_k"])
    module = layer_of(architecture, dtype)
    x = torch.randn(layer["tokens"], layer["hidden"], dtype=dtype)
    with torch.no_grad():
        chosen = torch.topk(module.router(x), layer["top_k"], dim=-1).indices
    rows = torch.bincount(chosen.reshape(-1), minlength=layer["experts"]).tolist()
    seconds, noise = measure(lambda: module(x), least_s=least_s)
    return architecture, rows, seconds, noise


def predicted(predictor, cases):
    """Columns of the layers as they were routed."""
    columns = {
        "latency_s": [],
        "compute_s": [],
        "memory_bandwidth_s": [],
        "routing_overhead_s": [],
        "calls": [],
        "total_parameters": [],
    }
    for architecture, layer, rows in cases:
        answer = predictor.predict(architecture, tokens=layer["tokens"], rows=rows)
        if answer.latency_s is None:
            raise UsageError(f"{predictor.folder}: {answer.reason}")
        columns["latency_s"].append(answer.latency_s)
        for name in ("compute_s", "memory_bandwidth_s", "routing_overhead_s"):
            columns[name].append(answer.factors[name])
        # Each expert with rows is chosen, gathered, computed, weighed and added by calls of its own.
        columns["calls"].append(sum(r > 0 for r in rows))
        columns["total_parameters"].append(answer.total_parameters)
    return {name: numpy.array(values, float) for name, values in columns.items()}


def kendall_tau(a, b):
    """Kendall's tau b."""
    upper = numpy.triu_indices(len(a), 1)
    x = numpy.sign(a[:, None] - a[None, :])[upper]
    y = numpy.sign(b[:, None] - b[None, :])[upper]
    return float((x * y).sum() / numpy.sqrt((x != 0).sum() * (y != 0).sum()))


def judged(columns, seconds, noises, closing):
    """Errors of all rows but the first `closing`, which a Correction of the sums of kernels is fitted to.

    Returns (result, answer): n, mape, median, p90, within_10, tau, coverage (of the 90 % interval), noise,
    kernels_ratio (median of measured over the sum of kernels alone), false_feasible (see there); and the columns.
    """
    correction = Correction({k: v[:closing] for k, v in columns.items()}, seconds[:closing])
    answer = correction.apply({k: v[closing:] for k, v in columns.items()})
    truth, value = seconds[closing:], answer["latency_s"]
    error = numpy.abs(value / truth - 1)
    covered = (answer["latency_low_s"] <= truth) & (truth <= answer["latency_high_s"])
    return {
        "n": len(truth),
        "mape": float(error.mean()),
        "median": float(numpy.median(error)),
        "p90": float(numpy.quantile(error, 0.9)),
        "within_10": float((error <= 0.1).mean()),
        "tau": kendall_tau(value, truth),
        "coverage": float(covered.mean()),
        "noise": float(numpy.mean(noises[closing:])),
        "kernels_ratio": float(numpy.median(seconds / columns["latency_s"])),
        "false_feasible": false_feasible(truth, answer["latency_high_s"]),
    }, answer


def false_feasible(measured_s, high_s):
    """Share of what a constraint at 95 % (the upper end of a 90 % interval) lets through that breaks it when executed.

    Over constraints at each measured latency, so that every one of them has configurations close to it.
    """
    measured_s, high_s = numpy.asarray(measured_s), numpy.asarray(high_s)
    passed = high_s[:, None] <= measured_s[None, :]
    broken = passed & (measured_s[:, None] > measured_s[None, :])
    return float(broken.sum() / max(passed.sum(), 1))


def validate_layers(hw, *, cases=150, closing=40, seed=1, least_s=0.3, threads=1, dtype="fp32", progress=None):
    """Executes `closing` layers to learn what lies between kernels, and `cases` others that nothing is fitted to.

    Returns what `judged` does, and `cases` with the rows of each.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    predictor = Predictor(hw, backend="torch", threads=threads, strategy="per-expert-loop", dtype=dtype)
    layers = draw_layers(closing + cases, seed)
    runs, seconds, noises = [], [], []
    for number, layer in enumerate(layers):
        architecture, rows, time, noise = execute(
            layer, least_s, {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]
        )
        runs.append((architecture, layer, rows))
        seconds.append(time)
        noises.append(noise)
        if progress:
            progress(number + 1, len(layers))
    seconds = numpy.array(seconds)
    result, answer = judged(predicted(predictor, runs), seconds, noises, closing)
    result["cases"] = [
        {**layer, "rows": rows, **case}
        for (_, layer, rows), case in zip(runs[closing:], _cases(seconds, answer, noises, closing))
    ]
    return result


def _cases(seconds, answer, noises, closing):
    return [
        {
            "measured_s": float(s),
            "predicted_s": float(p),
            "low_s": float(low),
            "high_s": float(high),
            "noise_ratio": float(noise),
        }
        for s, p, low, high, noise in zip(
            seconds[closing:],
            answer["latency_s"],
            answer["latency_low_s"],
            answer["latency_high_s"],
            noises[closing:],
        )
    ]


def validate_translation(
    hw, *, cases=60, closing=20, seed=1, threads=1, dtype="fp32", space="automoe-wmt14-en-de", progress=None
):
    """AutoMoE's encoder-decoders end to end: one sentence encoded, every token of five beams generated.

    Returns what `judged` does, and `cases` with the genome of each.
    """
    space = load_space(space)
    base = Predictor(hw, backend="torch", threads=threads, strategy="per-expert-loop", dtype=dtype)
    times = SpaceTimes(space, base)
    genomes = space.random(closing + cases, seed)
    runtime = TorchTranslation(times.workload, threads=threads, dtype=dtype)
    executions = []
    for number, genome in enumerate(genomes):
        executions += runtime.run([space.architecture(genome)])
        if progress:
            progress(number + 1, len(genomes))
    seconds = numpy.array([e.latency_s for e in executions])
    noises = [e.noise_ratio for e in executions]
    result, answer = judged(times.predict(genomes), seconds, noises, closing)
    result["cases"] = [
        {"genome": genome.tolist(), **case}
        for genome, case in zip(genomes[closing:], _cases(seconds, answer, noises, closing))
    ]
    return result


def report(result, title):
    """The table of docs/nas.md as Markdown."""
    noise = result["noise"]
    columns = ["what", "n", "MAPE", "median", "p90", "within 10 %", "Kendall tau", "covers", "false-feasible", "noise"]
    header = f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}"
    line = (
        f"| {title} | {result['n']} | {100 * result['mape']:.1f} % | {100 * result['median']:.1f} % "
        f"| {100 * result['p90']:.1f} % | {result['within_10']:.2f} | {result['tau']:.3f} "
        f"| {100 * result['coverage']:.0f} % | {100 * result['false_feasible']:.1f} % | {100 * noise:.1f} % |"
    )
    return f"{header}\n{line}\n"


def main():
    """Profiles torch into a temporary folder (or reads --hw), validates, prints the table."""
    import argparse
    import json
    import sys
    import tempfile

    from moecast.torch_profile import profile

    parser = argparse.ArgumentParser(prog="python -m moecast.torch_validation", description=__doc__)
    parser.add_argument(
        "--what", default="blocks", choices=["blocks", "translation"], help="lone MoE blocks, or whole AutoMoE models"
    )
    parser.add_argument("--hw", help="a profile of moecast profile --backend torch; default: measured now")
    parser.add_argument("--cases", type=int, default=150)
    parser.add_argument(
        "--closing", type=int, default=40, help="executed layers that the sums of kernels are fitted to"
    )
    parser.add_argument("--gemms", type=int, default=400)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", metavar="FILE", help="every case, as JSON")
    options = parser.parse_args()

    def show(what):
        tty = sys.stderr.isatty()
        return (lambda done, of: print(f"\r{what} {done}/{of} ", end="", file=sys.stderr, flush=True)) if tty else None

    with tempfile.TemporaryDirectory(prefix="moecast-torch-") as folder:
        hw = options.hw or profile(
            f"{folder}/torch",
            name="torch-cpu",
            gemms=options.gemms,
            threads=options.threads,
            dtype=options.dtype,
            seed=options.seed,
            progress=show("profile"),
        )
        validate = validate_layers if options.what == "blocks" else validate_translation
        result = validate(
            hw,
            cases=options.cases,
            closing=options.closing,
            seed=options.seed,
            threads=options.threads,
            dtype=options.dtype,
            progress=show("execute"),
        )
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(result, file, indent=1)
    kind = "MoE blocks" if options.what == "blocks" else "AutoMoE, one sentence"
    print(report(result, f"PyTorch {torch.__version__} {kind}, {options.dtype}, {options.threads} threads"))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
