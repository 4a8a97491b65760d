"""Differentiable expectation of latency over choices, as ProxylessNAS and DARTS need it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy

from moecast import _core


class ExpectedLatency:
    """sum over layers of sum over choices of p[layer, choice] * latency[layer, choice], plus a fixed part.

    `table`: seconds of shape [layers, choices] (NaN where a layer has fewer choices), or [choices] of one layer;
    `fixed_s`: what every choice shares. Built once, then asked with any probabilities of the table's shape (one layer:
    [choices] too). Raises InputError for other shapes, negative numbers, and what is no number.
    """

    def __init__(self, table: Any, fixed_s: float = 0.0) -> None:
        table = numpy.atleast_2d(_reals(table, "table"))
        if table.ndim != 2 or table.size == 0:
            raise _core.InputError(f"table: has shape {table.shape}, expected [layers, choices]")
        self.known = ~numpy.isnan(table)
        if not self.known.any(axis=1).all():
            raise _core.InputError("table: a layer has no choice with a latency")
        if not (numpy.where(self.known, table, 0) >= 0).all() or numpy.isinf(table).any():
            raise _core.InputError("table: a latency is negative or infinite")
        self.table = numpy.where(self.known, table, 0.0)
        fixed = _reals(fixed_s, "fixed_s")
        if fixed.ndim != 0 or not 0 <= fixed < numpy.inf:
            raise _core.InputError(f"fixed_s: {fixed_s!r} is no number of seconds from 0 on")
        self.fixed_s = float(fixed)

    @classmethod
    def of_layers(
        cls, predictor: Any, choices: Sequence[Sequence[_core.Architecture]], workload: Any = None, **fields: Any
    ) -> ExpectedLatency:
        """Choices are architectures (lone layers or models), a list for each layer; latencies those of `predict`."""
        width = max(map(len, choices), default=0)
        table = numpy.full((len(choices), width), numpy.nan)
        for row, options in zip(table, choices):
            for i, architecture in enumerate(options):
                answer = predictor.predict(architecture, workload, **fields)
                if answer.latency_s is None:
                    raise _core.InputError(f"{architecture.name}: {answer.status}: {answer.reason}")
                row[i] = answer.latency_s
        return cls(table)

    def __call__(self, probabilities: Any) -> float:
        """Expected seconds. One-hot probabilities give exactly the sum of the chosen latencies, layer after layer."""
        of_layers = (self.checked(probabilities) * self.table).sum(axis=1)
        return float(numpy.cumsum(of_layers)[-1] + self.fixed_s)

    def gradient(self, probabilities: Any) -> numpy.ndarray:
        """d seconds / d probabilities: the latency of each choice (0 where there is none), [layers, choices]."""
        self.checked(probabilities)
        return self.table.copy()

    def check_shape(self, shape: Any) -> None:
        """Raises InputError unless it is that of the table, or [choices] of one layer."""
        layers, choices = self.table.shape
        if tuple(shape) != (layers, choices) and not (layers == 1 and tuple(shape) == (choices,)):
            raise _core.InputError(f"probabilities: have shape {tuple(shape)}, expected {self.table.shape}")

    def checked(self, probabilities: Any) -> numpy.ndarray:
        """The probabilities as an array of the table's shape. Raises InputError."""
        p = _reals(probabilities, "probabilities")
        self.check_shape(p.shape)
        p = p.reshape(self.table.shape)
        if not numpy.isfinite(p).all():
            raise _core.InputError("probabilities: hold NaN or infinity")
        if (p < 0).any():
            raise _core.InputError("probabilities: hold a negative number")
        if (p[~self.known] != 0).any():
            raise _core.InputError("probabilities: a choice that does not exist is given weight")
        return p


def _reals(values, name):
    """An array of floats. Raises InputError for ragged lists, words and complex numbers."""
    try:
        array = numpy.asarray(values)
        if array.dtype.kind in "biuf":
            return array.astype(float)
    except ValueError:
        pass
    raise _core.InputError(f"{name}: is no array of real numbers")


def expected_latency(probabilities: Any, latencies_s: Any) -> tuple[float, numpy.ndarray]:
    """(expected seconds, gradient) of choices with the given latencies.

    Both of shape [choices] or [layers, choices], the same; the gradient has that shape too. Raises InputError.
    """
    expectation = ExpectedLatency(latencies_s)
    shape = numpy.shape(_reals(probabilities, "probabilities"))
    return expectation(probabilities), expectation.gradient(probabilities).reshape(shape)
