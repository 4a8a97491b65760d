"""Limits on what an architecture may cost: `latency<50ms`, `flops<100G`, `memory<2GiB`, `accuracy>0.8`."""

import dataclasses
import math
import re
import statistics

import numpy

from moecast._core import UsageError, parse_bytes, parse_flops, parse_seconds
from moecast.correction import TAIL
from moecast.search.arguments import is_number

_MULTIPLES = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_TEXT = re.compile(r"\s*([^<>]*?)\s*(<=?|>=?)\s*([^<>]*?)\s*")
_NUMBER = re.compile(r"([-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?)\s*(.*)")
#: Metrics that are computed here. Lower is better.
BUILT_IN = ("latency", "flops", "memory", "size", "active_parameters")
_COLUMNS = {
    "latency": "latency_s",
    "flops": "flops",
    "memory": "memory_bytes",
    "size": "total_parameters",
    "active_parameters": "active_parameters",
}
_WRITTEN_IN = {"latency": "s", "flops": "FLOP", "memory": "B"}


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
        # The 90 % interval of ln latency is as many standard deviations to both sides.
        latency, quantile = columns["latency"], statistics.NormalDist().inv_cdf(self.confidence)
        if self.at_least:
            return latency * numpy.exp(quantile / TAIL * numpy.log(columns["latency_low"] / latency))
        return latency * numpy.exp(quantile / TAIL * numpy.log(columns["latency_high"] / latency))

    def __str__(self):
        return f"{self.metric}{'>=' if self.at_least else '<='}{self.bound:g}{_WRITTEN_IN.get(self.metric, '')}"


def read_constraints(given, confidence, known):
    """From a dict (metric: upper bound, or a text such as "<50ms"), or a list of texts. Raises UsageError.

    A number is in SI units; a text of a latency or a memory says its unit, as on the command line.
    """
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
    metric, sign, bound = match.groups()
    return _constraint(metric, _bound(metric, bound, text, known), sign.startswith(">"), confidence, known, text)


def _bound(metric, bound, text, known):
    """The number that a bound says, in SI units."""
    where = f"constraints: {text!r}"
    if metric not in known:
        return 0.0  # is refused by its name
    if metric == "latency":
        return parse_seconds(bound, where)
    if metric == "memory":
        return parse_bytes(bound, where)
    match = _NUMBER.fullmatch(bound)
    if not match:
        raise UsageError(f"{where}: {bound!r} is no number")
    number, unit = match.groups()
    if not unit:
        return float(number)
    if metric == "flops":
        return parse_flops(bound, where)
    if unit in _MULTIPLES:
        return float(number) * _MULTIPLES[unit]
    if metric not in BUILT_IN:  # what a metric of the user is counted in is not known here
        for parse in (parse_seconds, parse_bytes, parse_flops):
            try:
                return parse(bound, where)
            except UsageError:
                continue
    raise UsageError(f"{where}: {unit!r} is no unit of {metric} (known: {', '.join(_MULTIPLES)})")


def _constraint(metric, bound, at_least, confidence, known, text):
    if metric not in known:
        raise UsageError(f"constraints: {metric!r} is no metric (known: {', '.join(known)})")
    if not math.isfinite(bound):
        raise UsageError(f"constraints: {text!r}: the bound is not finite")
    return Constraint(metric, bound, at_least, float(confidence) if metric == "latency" else 0.5)


def column_of(metric):
    """Column of Predictor.predict_batch that holds a built-in metric."""
    return _COLUMNS[metric]
