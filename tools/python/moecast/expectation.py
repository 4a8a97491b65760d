"""Differentiable expectation of latency over choices, as ProxylessNAS and DARTS need it."""

import numpy

from moecast import _core


class ExpectedLatency:
    """sum over layers of sum over choices of p[layer, choice] * latency[layer, choice], plus a fixed part.

    `table`: seconds of shape [layers, choices] (NaN where a layer has fewer choices); `fixed_s`: what every choice
    shares. Built once, then asked with any probabilities.
    """

    def __init__(self, table, fixed_s=0.0):
        table = numpy.atleast_2d(numpy.asarray(table, float))
        if table.ndim != 2 or table.size == 0:
            raise _core.InputError(f"table: has shape {table.shape}, expected [layers, choices]")
        self.known = ~numpy.isnan(table)
        if not self.known.any(axis=1).all():
            raise _core.InputError("table: a layer has no choice with a latency")
        if not (numpy.where(self.known, table, 0) >= 0).all() or numpy.isinf(table).any():
            raise _core.InputError("table: a latency is negative or infinite")
        self.table = numpy.where(self.known, table, 0.0)
        self.fixed_s = float(fixed_s)

    @classmethod
    def of_layers(cls, predictor, choices, workload=None, **fields):
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

    def __call__(self, probabilities):
        """Expected seconds. One-hot probabilities give the discrete latency exactly."""
        return float((self._checked(probabilities) * self.table).sum() + self.fixed_s)

    def gradient(self, probabilities):
        """d seconds / d probabilities: the latency of each choice (0 where there is none)."""
        self._checked(probabilities)
        return self.table.copy()

    def _checked(self, probabilities):
        p = (
            numpy.asarray(probabilities, float).reshape(-1)
            if self.table.shape[0] == 1
            else numpy.asarray(probabilities, float)
        )
        p = p.reshape(self.table.shape) if p.size == self.table.size else p
        if p.shape != self.table.shape:
            raise _core.InputError(f"probabilities: have shape {p.shape}, expected {self.table.shape}")
        if not numpy.isfinite(p).all():
            raise _core.InputError("probabilities: hold NaN or infinity")
        if (p < 0).any():
            raise _core.InputError("probabilities: hold a negative number")
        if (p[~self.known] != 0).any():
            raise _core.InputError("probabilities: a choice that does not exist is given weight")
        return p


def expected_latency(probabilities, latencies_s):
    """(expected seconds, gradient) of choices with the given latencies.

    Both of shape [choices] or [layers, choices]; the gradient has the shape of the probabilities.
    """
    shape = numpy.shape(probabilities)
    expectation = ExpectedLatency(latencies_s)
    return expectation(probabilities), expectation.gradient(probabilities).reshape(shape)
