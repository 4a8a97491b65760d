"""Predictions of PyTorch modules beside their execution. Needs torch."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy
import torch

from moecast._core import Architecture, UsageError
from moecast.accuracy import judged, report
from moecast.execution import draw_layers, in_rounds
from moecast.predictor import Predictor
from moecast.runners import TorchTranslation
from moecast.spaces import SpaceTimes, load_space
from moecast.torch_reference import DTYPES, layer_of, measure


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


def _validate_blocks(hw, execute_one, blocks, closing, *, strategy, threads, dtype, seed, rounds, progress):
    """Executes `blocks` (dicts with `tokens`) by execute_one(block, dtype), judges all but the first `closing`."""
    torch.set_num_threads(threads)
    predictor = Predictor(hw, backend="torch", threads=threads, strategy=strategy, dtype=dtype)

    def execute_number(number):
        torch.manual_seed(seed * 1_000_003 + number)  # the same routing in every round
        return execute_one(blocks[number], DTYPES[dtype])

    answers, seconds, noises = in_rounds(len(blocks), execute_number, rounds=rounds, seed=seed, progress=progress)
    runs = [(architecture, block, rows) for (architecture, rows), block in zip(answers, blocks)]
    result, answer = judged(predicted(predictor, runs), seconds, noises, closing)
    result["cases"] = [
        {**block, "rows": rows, **case}
        for (_, block, rows), case in zip(runs[closing:], _cases(seconds, answer, noises, closing))
    ]
    return result


def validate_layers(
    hw: Any,
    *,
    cases: int = 150,
    closing: int = 40,
    seed: int = 1,
    least_s: float = 0.1,
    threads: int = 1,
    dtype: str = "fp32",
    rounds: int = 4,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Executes `closing` layers to learn what lies between kernels, and `cases` others that nothing is fitted to.

    Returns what `judged` does, and `cases` with the rows of each.
    """
    return _validate_blocks(
        hw,
        lambda layer, torch_dtype: execute(layer, least_s, torch_dtype),
        draw_layers(closing + cases, seed),
        closing,
        strategy="per-expert-loop",
        threads=threads,
        dtype=dtype,
        seed=seed,
        rounds=rounds,
        progress=progress,
    )


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


def validate_hugging_face(
    hw: Any,
    *,
    cases: int = 150,
    closing: int = 40,
    seed: int = 1,
    least_s: float = 0.1,
    threads: int = 1,
    dtype: str = "fp32",
    experts: str = "eager",
    rounds: int = 4,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """The same for blocks that transformers makes: Mixtral, Qwen3-MoE, OLMoE, DeepSeek-V3 in turn.

    `experts`: eager (one after another) or grouped_mm; each is a strategy of the backend of its own.
    """
    from moecast import torch_hugging_face as hugging_face

    layers = draw_layers(closing + cases, seed)
    kinds = hugging_face.KINDS
    return _validate_blocks(
        hw,
        lambda block, torch_dtype: hugging_face.execute(block["kind"], block, experts, torch_dtype, least_s),
        [{"kind": kinds[i % len(kinds)], **layer} for i, layer in enumerate(layers)],
        closing,
        strategy=hugging_face.EXPERTS[experts],
        threads=threads,
        dtype=dtype,
        seed=seed,
        rounds=rounds,
        progress=progress,
    )


def validate_translation(
    hw: Any,
    *,
    cases: int = 60,
    closing: int = 20,
    seed: int = 1,
    threads: int = 1,
    dtype: str = "fp32",
    space: Any = "automoe-wmt14-en-de",
    rounds: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """AutoMoE's encoder-decoders end to end: one sentence encoded, every token of five beams generated.

    Returns what `judged` does, and `cases` with the genome of each.
    """
    space = load_space(space)
    base = Predictor(hw, backend="torch", threads=threads, strategy="per-expert-loop", dtype=dtype)
    times = SpaceTimes(space, base)
    genomes = space.random(closing + cases, seed)
    runtime = TorchTranslation(times.workload, threads=threads, dtype=dtype)

    def execute_number(number):
        torch.manual_seed(seed * 1_000_003 + number)  # the same weights and routing in every round
        (execution,) = runtime.run([space.architecture(genomes[number])])
        return execution.latency_s, execution.noise_ratio

    _, seconds, noises = in_rounds(len(genomes), execute_number, rounds=rounds, seed=seed, progress=progress)
    result, answer = judged(times.predict(genomes), seconds, noises, closing)
    result["cases"] = [
        {"genome": genome.tolist(), **case}
        for genome, case in zip(genomes[closing:], _cases(seconds, answer, noises, closing))
    ]
    return result


_VALIDATIONS = {
    "blocks": validate_layers,
    "eager": functools.partial(validate_hugging_face, experts="eager"),
    "grouped": functools.partial(validate_hugging_face, experts="grouped_mm"),
    "translation": validate_translation,
}


def main() -> int:
    """Profiles torch into a temporary folder (or reads --hw), validates, prints the table."""
    import argparse
    import json
    import sys
    import tempfile

    from moecast.torch_profile import profile

    parser = argparse.ArgumentParser(prog="python -m moecast.torch_validation", description=__doc__)
    parser.add_argument(
        "--what",
        default="blocks",
        choices=sorted(_VALIDATIONS),
        help="lone MoE blocks, those of transformers (eager or grouped), or AutoMoE models",
    )
    parser.add_argument("--hw", help="a profile of moecast profile --backend torch; default: measured now")
    parser.add_argument("--cases", type=int, help="that are judged (default 150; translation 60)")
    parser.add_argument(
        "--closing",
        type=int,
        help="executed cases that the sums of kernels are fitted to (default 40; translation 20)",
    )
    parser.add_argument("--gemms", type=int, default=400)
    parser.add_argument("--rounds", type=int, help="in which cases are executed (default 4; translation 2)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", metavar="FILE", help="every case, as JSON")
    options = parser.parse_args()
    if options.rounds is not None and options.rounds < 1:
        parser.error("--rounds: at least 1")

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
        result = _VALIDATIONS[options.what](
            hw,
            seed=options.seed,
            threads=options.threads,
            dtype=options.dtype,
            progress=show("execute"),
            **{k: v for k in ("cases", "closing", "rounds") if (v := getattr(options, k)) is not None},
        )
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(result, file, indent=1)
    print(report(result, f"PyTorch {torch.__version__} {options.what}, {options.dtype}, {options.threads} threads"))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
