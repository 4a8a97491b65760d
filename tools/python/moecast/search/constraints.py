"""Limits on what an architecture may cost: `latency<50ms`, `flops<100G`, `memory<2GiB`, `accuracy>0.8`."""

import dataclasses
import math
import re
import statistics

import numpy

from moecast._core import UsageError

_UNITS = {
    "": 1.0,
    "s": 1.0,
    "ms": 1e-3,
    "us": 1e-6,
    "k": 1e3,
    "M": 1e6,
    "G": 1e9,
    "T": 1e12,
    "B": 1.0,
    "kB": 1e3,
    "MB": 1e6,
    "GB": 1e9,
    "KiB": 2.0**10,
    "MiB": 2.0**20,
    "GiB": 2.0**30,
}
_TEXT = re.compile(r"\s*([A-Za-z_]+)\s*(<=?|>=?)\s*([-+0-9.eE]+)\s*([A-Za-z]*)\s*")
#: Metrics that are computed here. Lower is better.
BUILT_IN = ("latency", "flops", "memory", "size", "active_parameters")
_COLUMNS = {
    "latency": "latency_s",
    "flops": "flops",
    "memory": "memory_bytes",
    "size": "total_parameters",
    "active_parameters": "active_parameters",
}


@dataclasses.dataclass(frozen=True)
class Constraint:
    """`metric` at most (or at least) `bound`; latency with `confidence` that a measurement keeps it."""

    metric: str
    bound: float
    at_least: bool = False
    confidence: float = 0.5

    def margins(self, columns):
        """At most 0 where the constraint holds, in shares of the bound."""
        values = self.values(columns)
        scale = abs(self.bound) or 1.0
        return (self.bound - values if self.at_least else values - self.bound) / scale

    def values(self, columns):
        if self.metric != "latency" or self.confidence == 0.5:
            return columns[self.metric]
        # The 90 % interval of ln latency is +-1.645 standard deviations.
        sigma = numpy.log(columns["latency_high"] / columns["latency"]) / 1.6448536269514722
        return columns["latency"] * numpy.exp(statistics.NormalDist().inv_cdf(self.confidence) * sigma)

    def __str__(self):
        return f"{self.metric}{'>=' if self.at_least else '<='}{self.bound:g}"


def read_constraints(given, confidence, known):
    """From a dict (metric: upper bound, or a string), or a list of strings. Raises UsageError."""
    if not 0 < confidence < 1:
        raise UsageError(f"confidence: {confidence} is not between 0 and 1")
    texts = []
    for entry in (given.items() if isinstance(given, dict) else given or ()):
        if isinstance(entry, str):
            texts.append(entry)
        elif isinstance(entry, tuple) and isinstance(entry[1], str):
            sign = "" if entry[1].lstrip()[:1] in "<>" else "<"
            texts.append(f"{entry[0]}{sign}{entry[1]}")
        elif isinstance(entry, tuple) and isinstance(entry[1], (int, float)):
            texts.append(f"{entry[0].removesuffix('_s')}<{entry[1]!r}")
        else:
            raise UsageError(f'constraints: {entry!r} is no constraint (write e.g. "latency<50ms")')
    return [_read(text, confidence, known) for text in texts]


def _read(text, confidence, known):
    match = _TEXT.fullmatch(text)
    if not match:
        raise UsageError(f'constraints: {text!r} is no constraint (write e.g. "latency<50ms", "flops<100G")')
    metric, sign, number, unit = match.groups()
    if metric not in known:
        raise UsageError(f"constraints: {metric!r} is no metric (known: {', '.join(known)})")
    if unit not in _UNITS:
        raise UsageError(f"constraints: {text!r}: {unit!r} is no unit (known: {', '.join(u for u in _UNITS if u)})")
    try:
        bound = float(number) * _UNITS[unit]
    except ValueError:
        raise UsageError(f"constraints: {text!r}: {number!r} is no number") from None
    if not math.isfinite(bound):
        raise UsageError(f"constraints: {text!r}: the bound is not finite")
    return Constraint(metric, bound, sign.startswith(">"), confidence if metric == "latency" else 0.5)


def column_of(metric):
    """Column of Predictor.predict_batch that holds a built-in metric."""
    return _COLUMNS[metric]
