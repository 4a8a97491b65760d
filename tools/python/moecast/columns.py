"""Columns of answers: how steps add up, what single answers say, and the columns of layers that are asked about."""

from __future__ import annotations

from typing import Any

import numpy

from moecast._core import InputError

#: Columns that add up over the steps of a workload; of the others the first step's, or the greatest, is taken.
SUMMED = (
    "latency_s",
    "latency_low_s",
    "latency_high_s",
    "memory_bandwidth_s",
    "compute_s",
    "routing_overhead_s",
    "flops",
    "calls",
)
#: Of the first step alone, which is the one before the first token.
FIRST = ("latency_s", "compute_s", "calls")
_STATUS = {"ok": 0, "does_not_fit": 1, "outside_range": 2}
_LAYER = ("hidden", "width", "experts", "top_k", "tokens")
_LAYER_DEFAULTS = {
    "gated": numpy.uint8,
    "capacity_factor": numpy.float32,
    "copies": numpy.int32,
    "load": numpy.int32,
}

Columns = dict[str, numpy.ndarray]


def add_columns(columns: Columns, more: Columns, times: float) -> Columns:
    """Adds `times` of a step's columns to those of the steps before (none: {})."""
    scaled = {name: values * times if name in SUMMED else values for name, values in more.items()}
    if not columns:
        for name in FIRST:
            if name in scaled:
                scaled[f"first_{name}"] = scaled[name].copy()
        return scaled
    for name, values in scaled.items():
        columns[name] = columns[name] + values if name in SUMMED else numpy.maximum(columns[name], values)
    return columns


def columns_of(answers: list[Any], *, calls: bool) -> Columns:
    """The columns of single Predictions, with or without kernel calls. Unknown is NaN."""

    def column(value):
        return numpy.array([numpy.nan if value(a) is None else value(a) for a in answers], float)

    columns = {
        "latency_s": column(lambda a: a.latency_s),
        "latency_low_s": column(lambda a: a.latency_low_s),
        "latency_high_s": column(lambda a: a.latency_high_s),
        "memory_bandwidth_s": column(lambda a: a.factors.get("memory_bandwidth_s")),
        "compute_s": column(lambda a: a.factors.get("compute_s")),
        "routing_overhead_s": column(lambda a: a.factors.get("routing_overhead_s")),
        "memory_bytes": column(lambda a: a.memory["total_bytes"]),
        "total_parameters": column(lambda a: a.total_parameters),
        "active_parameters": column(lambda a: a.active_parameters),
        "flops": column(lambda a: a.flops),
    }
    if calls:
        columns["calls"] = column(lambda a: a.calls())
    columns["status"] = numpy.array([_STATUS[a.status] for a in answers], numpy.uint8)
    columns["extrapolated"] = numpy.array([a.origin in ("extrapolated", "assumed") for a in answers], numpy.uint8)
    return columns


def layer_columns(layers: dict[str, Any]) -> list[numpy.ndarray]:
    """The columns of MoE layers in the order of LayerBatch.predict. Raises InputError naming row and column."""
    unknown = set(layers) - {*_LAYER, *_LAYER_DEFAULTS}
    if unknown:
        raise InputError(f"{min(map(str, unknown))}: is no column of MoE layers")
    columns = [_column(layers, name, numpy.int32) for name in _LAYER]
    return columns + [_column(layers, name, dtype, optional=True) for name, dtype in _LAYER_DEFAULTS.items()]


def _column(layers, name, dtype, optional=False):
    if name not in layers:
        if optional:
            return numpy.empty(0, dtype)
        raise InputError(f"{name}: is missing among the columns")
    given = numpy.asarray(layers[name])
    if given.ndim != 1:
        raise InputError(f"{name}: has {given.ndim} dimensions, expected one")
    if given.dtype == dtype and given.flags.c_contiguous:
        return given
    if given.dtype.kind not in "iub" and not (dtype == numpy.float32 and given.dtype.kind == "f"):
        raise InputError(f"{name}: has dtype {given.dtype}, expected {numpy.dtype(dtype).name}")
    with numpy.errstate(over="ignore"):
        converted = numpy.ascontiguousarray(given, dtype)
    if dtype != numpy.float32 and not numpy.array_equal(converted, given):
        row = int(numpy.flatnonzero(converted != given)[0])
        raise InputError(f"row {row}: {name} {given[row]} is out of range")
    return converted


def layer_rows(columns: list[numpy.ndarray]) -> list[dict[str, Any]]:
    """The rows of what `layer_columns` returned, as dicts; optional columns that are empty have their defaults."""
    names = (*_LAYER, *_LAYER_DEFAULTS)
    defaults = {"gated": 1, "capacity_factor": numpy.inf, "copies": 1, "load": 0}
    lists = {name: column.tolist() for name, column in zip(names, columns)}
    count = len(lists["hidden"])
    for name, values in lists.items():
        if name in defaults and not values:
            lists[name] = [defaults[name]] * count
        elif len(values) != count:
            raise InputError(f"column {name} has {len(values)} rows, hidden {count}")
    return [dict(zip(names, row)) for row in zip(*lists.values())]
