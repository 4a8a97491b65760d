"""How right predictions are: the one definition of error that the command line has, on NumPy columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy

from moecast.columns import Columns
from moecast.correction import Correction


def kendall_tau(a: numpy.ndarray, b: numpy.ndarray) -> float:
    """Kendall's tau b."""
    upper = numpy.triu_indices(len(a), 1)
    x = numpy.sign(a[:, None] - a[None, :])[upper]
    y = numpy.sign(b[:, None] - b[None, :])[upper]
    return float((x * y).sum() / numpy.sqrt((x != 0).sum() * (y != 0).sum()))


def judged(
    columns: Columns, seconds: numpy.ndarray, noises: Sequence[float], closing: int
) -> tuple[dict[str, float], Columns]:
    """Errors of all rows but the first `closing`, which a Correction of the predictions is fitted to (0: none is).

    Returns (result, answer): n, mape, median, p90, within_10, tau, coverage (of the 90 % interval), noise,
    kernels_ratio (median of measured over the sum of kernels alone), false_feasible (see there); and the columns.
    """
    answer = {k: v[closing:] for k, v in columns.items()}
    if closing > 0:
        answer = Correction({k: v[:closing] for k, v in columns.items()}, seconds[:closing]).apply(answer)
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


def false_feasible(measured_s: numpy.ndarray, high_s: numpy.ndarray) -> float:
    """Share of configurations that are slower than the tightest constraint that they pass at a confidence of 95 %.

    That constraint is the upper end of the 90 % interval: the hardest one for each; looser ones are broken less.
    """
    return float(numpy.mean(numpy.asarray(measured_s) > numpy.asarray(high_s)))


def rank_correlation(a: numpy.ndarray, b: numpy.ndarray) -> float:
    """Spearman's: the correlation of ranks, ties broken by order."""
    ranks = [numpy.argsort(numpy.argsort(x, kind="stable"), kind="stable") for x in (a, b)]
    return float(numpy.corrcoef(*ranks)[0, 1])


def report(result: dict[str, Any], title: str) -> str:
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
