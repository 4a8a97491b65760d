"""Limits on what an architecture may cost: `latency<50ms`, `flops<100G`, `memory<2GiB`, `accuracy>0.8`."""

import dataclasses
import math
import re
import statistics

import numpy

from moecast._core import UsageError
from moecast.search.arguments import is_number

_MULTIPLES = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_TIMES = {"": 1.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_BYTES = {f"{k}B": v for k, v in _MULTIPLES.items()} | {f"{k}iB": 1024.0**n for n, k in enumerate("KMGT", 1)}
_OPERATIONS = {f"{k}{word}": v for k, v in _MULTIPLES.items() for word in ("FLOP", "FLOPs")}
_UNITS = {
    "latency": _TIMES,
    "flops": _MULTIPLES | _OPERATIONS,
    "memory": _MULTIPLES | _BYTES,
    "size": _MULTIPLES,
    "active_parameters": _MULTIPLES,
}
#: What a metric of the user is counted in is not known here.
_ANY_UNIT = _MULTIPLES | _TIMES | _BYTES | _OPERATIONS
_TEXT = re.compile(r"\s*([^<>]*?)\s*(<=?|>=?)\s*([-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?)\s*([A-Za-z]*)\s*")
_NINETY = 1.6448536269514722
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
        """The metric; of latency the end of its interval that has to keep the bound."""
        if self.metric != "latency" or self.confidence == 0.5:
            return columns[self.metric]
        # The 90 % interval of ln latency is +-1.645 standard deviations.
        latency, quantile = columns["latency"], statistics.NormalDist().inv_cdf(self.confidence)
        if self.at_least:
            return latency * numpy.exp(quantile / _NINETY * numpy.log(columns["latency_low"] / latency))
        return latency * numpy.exp(quantile / _NINETY * numpy.log(columns["latency_high"] / latency))

    def __str__(self):
        return f"{self.metric}{'>=' if self.at_least else '<='}{self.bound:g}"


def read_constraints(given, confidence, known):
    """From a dict (metric: upper bound, or a text such as "<50ms"), or a list of texts. Raises UsageError."""
    if not is_number(confidence) or not 0 < confidence < 1:
        raise UsageError(f"confidence: {confidence!r} is not between 0 and 1")
    if isinstance(given, dict):
        return [_of_pair(*pair, confidence, known) for pair in given.items()]
    if not isinstance(given, (str, list, tuple, type(None))):
        raise UsageError(f'constraints: {given!r} is no list (write e.g. ["latency<50ms"], or a dict)')
    return [_of_text(text, confidence, known) for text in ([given] if isinstance(given, str) else given or ())]


def _of_pair(metric, bound, confidence, known):
    if isinstance(bound, str):
        sign = "" if bound.lstrip()[:1] in ("<", ">") else "<"
        return _of_text(f"{metric}{sign}{bound}", confidence, known)
    if not isinstance(metric, str) or not is_number(bound):
        raise UsageError(f"constraints: {metric!r}: {bound!r} is no bound (write a number, or a text such as '<50ms')")
    if metric not in known and metric.removesuffix("_s") in known:
        metric = metric.removesuffix("_s")
    return _constraint(metric, float(bound), False, confidence, known, f"{metric}<{bound}")


def _of_text(text, confidence, known):
    match = _TEXT.fullmatch(text) if isinstance(text, str) else None
    if not match:
        raise UsageError(f'constraints: {text!r} is no constraint (write e.g. "latency<50ms", "flops<100G")')
    metric, sign, number, unit = match.groups()
    units = _UNITS.get(metric, _ANY_UNIT)
    if metric in known and unit not in units:
        words = ", ".join(u for u in units if u)
        raise UsageError(f"constraints: {text!r}: {unit!r} is no unit of {metric} (known: {words})")
    try:
        bound = float(number) * units.get(unit, 1.0)
    except ValueError:
        raise UsageError(f"constraints: {text!r}: {number!r} is no number") from None
    return _constraint(metric, bound, sign.startswith(">"), confidence, known, text)


def _constraint(metric, bound, at_least, confidence, known, text):
    if metric not in known:
        raise UsageError(f"constraints: {metric!r} is no metric (known: {', '.join(known)})")
    if not math.isfinite(bound):
        raise UsageError(f"constraints: {text!r}: the bound is not finite")
    return Constraint(metric, bound, at_least, float(confidence) if metric == "latency" else 0.5)


def column_of(metric):
    """Column of Predictor.predict_batch that holds a built-in metric."""
    return _COLUMNS[metric]
