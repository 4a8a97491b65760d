"""Few-shot calibration: predictions of one machine, corrected by a few measured configurations of another."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy

from moecast._core import Architecture, InputError, Prediction, UsageError
from moecast.columns import Columns
from moecast.correction import Correction, components, features
from moecast.predictor import Predictor, explained
from moecast.workload import Request, Workload

__all__ = ["AdaptedPredictor", "Correction", "adapt", "components", "features"]

#: What kernel calls of a layer depend on.
_ROUTING = ("experts", "top_k", "tokens", "load", "capacity_factor", "copies")


class AdaptedPredictor:
    """A predictor whose answers a Correction moves: it is asked like a Predictor, by searches too."""

    def __init__(self, base: Predictor, correction: Correction) -> None:
        self.base = base
        self.correction = correction
        self.hw = f"{base.hw} adapted"

    def __repr__(self) -> str:
        return f"<moecast.AdaptedPredictor {self.base.hw}, {self.correction.count} measurements>"

    gpu = property(lambda self: self.base.gpu)
    one_by_one = property(lambda self: self.base.one_by_one)
    folder = property(lambda self: self.base.folder)
    backends = property(lambda self: self.base.backends)
    engine = property(lambda self: self.base.engine)

    def batch(self, step: Workload):
        """The base's batch of whole models: `corrected` moves its columns."""
        return self.base.batch(step)

    def corrected(self, columns: Columns) -> Columns:
        """The columns that the base answered, as the other machine's."""
        return self.correction.apply(columns)

    def predict(
        self,
        architecture: Architecture,
        workload: Workload | Request | None = None,
        *,
        without: str | Iterable[str] = (),
        **fields: Any,
    ) -> Prediction:
        """As Predictor.predict; latency and interval are corrected, factors and operators move in proportion."""
        answer = self.base.predict(architecture, workload, without=without, **fields)
        if answer.latency_s is None:
            return answer
        columns = self.base.predict_batch([architecture], workload, **fields)
        moved = self.corrected(columns)
        names = ("latency_s", "latency_low_s", "latency_high_s")
        return answer.moved(*(answer.latency_s * float(moved[name][0] / columns["latency_s"][0]) for name in names))

    def explain(
        self,
        architecture: Architecture,
        workload: Workload | Request | None = None,
        *,
        without: str | Iterable[str] = (),
        **fields: Any,
    ) -> dict[str, Any]:
        """As Predictor.explain, corrected."""
        return explained(self, architecture, workload, without, fields)

    def predict_batch(self, what: Any, workload: Workload | Request | None = None, **fields: Any) -> Columns:
        """As Predictor.predict_batch, corrected."""
        columns = self.base.predict_batch(what, workload, **fields)
        if isinstance(what, dict) and "calls" not in columns and not self.base.gpu:
            columns["calls"] = self._calls(what, fields)
        return self.corrected(columns)

    def _calls(self, layers, fields):
        """Kernel calls of each row, asked once for all rows that are routed alike."""
        rows = numpy.stack([layers[name] for name in _ROUTING if name in layers], axis=1)
        _, first, inverse = numpy.unique(rows, axis=0, return_index=True, return_inverse=True)
        examples = {name: numpy.asarray(values)[first] for name, values in layers.items()}
        return self.base.predict_batch(examples, one_by_one=True, **fields)["calls"][inverse.reshape(-1)]

    def adapt(
        self, measurements: Iterable, workload: Workload | Request | None = None, *, times: Any = None, **fields: Any
    ) -> AdaptedPredictor:
        """The same with more measurements beside those that it knows."""
        columns, measured = _read(self.base, measurements, workload, times, fields)
        known = self.correction
        if known.count > 0 and len(measured) > 0:
            columns = _joined([known.columns, columns])
            measured = [*known.measured_s, *measured]
        elif known.count > 0:
            return self
        return AdaptedPredictor(self.base, Correction(columns, measured))


def adapt(
    base: Predictor,
    measurements: Iterable,
    workload: Workload | Request | None = None,
    *,
    times: Any = None,
    **fields: Any,
) -> AdaptedPredictor:
    """A predictor of a machine that was never profiled, from a few measured configurations.

    `base`: the Predictor of the most similar machine that was. `measurements`: pairs of an Architecture and the
    measured seconds of `workload`, or of these `fields` of `predict` (for lone layers: tokens=64); a third item, a
    dict, holds fields of its own. Or pairs of a genome and seconds, where `times` is the SpaceTimes of the space on
    `base`. None at all is allowed: then intervals span orders of magnitude.

    Raises UsageError, or InputError that names the row at fault.
    """
    if isinstance(base, AdaptedPredictor):
        return base.adapt(measurements, workload, times=times, **fields)
    return AdaptedPredictor(base, Correction(*_read(base, measurements, workload, times, fields)))


def _read(base, measurements, workload, times, fields):
    """(columns, seconds) of measurements: what the base predicts of them, and what was measured."""
    try:
        rows = [tuple(row) for row in (measurements.items() if isinstance(measurements, dict) else measurements)]
    except TypeError:
        raise UsageError("measurements: expected pairs of an architecture and seconds") from None
    for number, row in enumerate(rows):
        whole = len(row) == 2 or len(row) == 3 and isinstance(row[2], dict)
        if not whole or isinstance(row[1], (bool, str)) or not numpy.isrealobj(row[1]) or numpy.ndim(row[1]) > 0:
            raise InputError(f"measurements: row {number}: expected an architecture, seconds and, if wanted, fields")
    seconds = [row[1] for row in rows]
    if not rows:
        return {"latency_s": numpy.empty(0)}, seconds
    if times is not None:
        return times.predict(numpy.array([row[0] for row in rows], numpy.int64)), seconds
    if all(len(row) == 2 for row in rows):
        return base.predict_batch([row[0] for row in rows], workload, **fields), seconds
    own = [{**fields, **(row[2] if len(row) > 2 else {})} for row in rows]
    return _joined([base.predict_batch([row[0]], workload, **more) for row, more in zip(rows, own)]), seconds


def _joined(parts):
    """The rows of several tables, one after another; columns that not all have are left out."""
    names = set(parts[0]).intersection(*parts[1:])
    return {name: numpy.concatenate([part[name] for part in parts]) for name in parts[0] if name in names}
