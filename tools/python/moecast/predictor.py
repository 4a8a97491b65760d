"""Predictions: one at a time with everything that is known of them, or many at a time as columns."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy

from moecast import _core
from moecast.columns import Columns, add_columns, columns_of, layer_columns, layer_rows
from moecast.workload import MOST_SEED, Request, Workload, asked, of_layer, whole

if TYPE_CHECKING:
    from moecast.adaptation import AdaptedPredictor

__all__ = ["Predictor", "Request", "Workload", "architecture_of"]

#: Degrees of a deployment, with their least.
_DEGREES = {
    "copies": 1,
    "tp": 1,
    "ep": 1,
    "dp": 1,
    "pp": 1,
    "moe_tp": 1,
    "cp": 1,
    "micro_batches": 1,
    "redundant_experts": 0,
    "draft_tokens": 0,
    "max_context": 1,
}
_DEPLOYMENT = {*_DEGREES, "rows", "eager", "acceptance", "kv_dtype", "all_reduce"}
#: What changes nothing.
_ALONE = {"copies": 1, "tp": 1, "ep": 1, "dp": 1, "pp": 1, "cp": 1, "redundant_experts": 0, "draft_tokens": 0}


class Predictor:
    """Latency on one machine. Threads may share it; it can be pickled.

    Parameters
    ----------
    hw: name of `list_hw()`, "this-machine", or the folder of a profile.
    backend: e.g. "onednn", "vllm-0.24.0"; "" = the profile's first.
    dtype: format of weights and activations; "" = the model's, or what the machine was profiled in.
    threads: CPU threads; 0 = all that were profiled.
    strategy: sorted-grouped (default), per-expert-loop, capacity-padded, dense-mask.
    engine: "analytic", or "event" (CPU only): operators as tasks that share the memory bus.
    deployment: what `predict` assumes where nothing else is said, e.g. tp=2, ep=8, dp=8. A search asks it so.

    Raises UsageError on a wrong name, InputError when the profile cannot be read.
    """

    def __init__(
        self,
        hw: Any,
        *,
        backend: str = "",
        dtype: str = "",
        threads: int = 0,
        strategy: str = "",
        engine: str = "analytic",
        **deployment: Any,
    ) -> None:
        for name, word in {"backend": backend, "dtype": dtype, "strategy": strategy, "engine": engine}.items():
            if not isinstance(word, str):
                raise _core.UsageError(f"{name}: is a {type(word).__name__}, expected a str")
        threads = whole("threads", threads)
        self._setting: dict[str, Any] = {"backend": backend, "dtype": dtype, "threads": threads, "strategy": strategy}
        self.hw = str(hw)
        self.engine = engine
        self.deployment = _deployment(deployment)
        self._core = _core.Predictor(self.hw, engine=engine, **self._setting)
        self._batches: dict[Any, Any] = {}
        self._lock = threading.Lock()

    def __reduce__(self):
        return _rebuild, (self.hw, {**self._setting, "engine": self.engine, **self.deployment})

    def __repr__(self) -> str:
        return f"<moecast.Predictor {self.hw}>"

    @property
    def folder(self) -> str:
        """Folder of the profile."""
        return self._core.folder

    @property
    def gpu(self) -> bool:
        """Whether whole steps are those of a serving engine on a GPU."""
        return self._core.gpu

    @property
    def one_by_one(self) -> bool:
        """Whether each model of a batch is predicted by itself: GPUs, events, several ranks."""
        return self.gpu or self.engine != "analytic" or _is_spread(self.deployment)

    @property
    def backends(self) -> list[tuple[str, str]]:
        """Pairs (backend, dtype) that the machine was profiled with; empty for a GPU."""
        return self._core.backends

    def predict(
        self,
        architecture: _core.Architecture,
        workload: Workload | Request | None = None,
        *,
        tokens: int | None = None,
        without: str | Iterable[str] = (),
        **fields: Any,
    ) -> _core.Prediction:
        """One step of a model, a Request to it, or `tokens` tokens through a lone MoE layer.

        `workload` is a Workload or a Request, or give the fields of a Workload by name (with `tokens`: load and seed).
        `rows`: exact rows of each expert of a lone layer; `copies`: layers between two uses of a weight.
        Degrees: tp, ep, dp, pp, cp (contexts shared, GPUs only), moe_tp ranks an expert, micro_batches a step (None:
        one a stage), redundant_experts copies of popular experts, eager: no graph is replayed
        (GPUs), draft_tokens that layers of multi-token prediction guess ahead of each step (GPUs), each right with
        probability `acceptance` where those before it were: `tpot_s` is then the step over the tokens that it yields.
        kv_dtype: format of the KV cache (GPUs; default: the model's, else that of activations). all_reduce: framework
        whose all-reduce, which adds the residual and norms, runs inside a node (GPUs; trtllm is FlashInfer's, which
        vLLM and SGLang can fuse). max_context: tokens of a sequence that the model serves, where that is not what its
        configuration says.
        `without`: factors to remove (all-to-all, memory-bandwidth, routing-overhead, imbalance); removing one never
        slows. Returns a Prediction: its status says whether there is a latency; of a Request, times of all its steps.
        Raises UsageError, InputError.
        """
        if not isinstance(architecture, _core.Architecture):
            hint = "Architecture.load reads one" if isinstance(architecture, str) else "see Architecture"
            raise _core.UsageError(f"architecture: is a {type(architecture).__name__}, no Architecture ({hint})")
        how = {**self.deployment, **_deployment({name: fields.pop(name) for name in _DEPLOYMENT & set(fields)})}
        how["without"] = without if isinstance(without, str) else ",".join(without)
        question = _question(workload, tokens, fields)
        _refuse_cache_of_layers(how, tokens)
        if isinstance(question, Workload):
            return self._core.predict(architecture, **how, **vars(question))
        if how.get("draft_tokens"):
            raise _core.UsageError("draft_tokens: the steps of a Request yield a token each (ask about a Workload)")
        steps = [(n, self._core.predict(architecture, **how, **vars(step))) for n, step in question.steps()]
        sizes = {"batch": question.batch, "prompt_tokens": question.prompt}
        return _core.Prediction.summed(steps, {**sizes, "target_tokens": question.target, "beams": question.beams})

    def explain(
        self,
        architecture: _core.Architecture,
        workload: Workload | Request | None = None,
        *,
        without: str | Iterable[str] = (),
        **fields: Any,
    ) -> dict[str, Any]:
        """Where the time goes: the JSON of `moecast explain` as a dict, with the latency without each factor.

        Arguments are those of `predict`; what `without` names is removed from all of them.
        """
        return explained(self, architecture, workload, without, fields)

    def adapt(
        self, measurements: Iterable, workload: Workload | Request | None = None, **fields: Any
    ) -> AdaptedPredictor:
        """An AdaptedPredictor of another machine from a few of its measurements: see moecast.adapt."""
        from moecast.adaptation import adapt

        return adapt(self, measurements, workload, **fields)

    def predict_batch(
        self,
        what: Sequence[_core.Architecture] | dict[str, numpy.ndarray],
        workload: Workload | Request | None = None,
        *,
        one_by_one: bool = False,
        **fields: Any,
    ) -> Columns:
        """Many answers at once, as a dict of NumPy columns.

        `what`: a list of architectures, asked as `predict` asks one (GPUs, lone layers and several ranks: one after
        another), or a dict of columns of MoE layers: hidden, width, experts, top_k, tokens, and if wanted gated,
        capacity_factor (infinite = none), copies, load (index into `loads`; drawn by `seed`). Columns that are
        C-contiguous int32 (gated: uint8, capacity_factor: float32) are not copied.
        Columns of the answer: latency_s, latency_low_s, latency_high_s, ..., status (0 ok, 1 does_not_fit,
        2 outside_range); times are NaN where the status is not 0. `one_by_one`: ask `predict` in any case (slow).
        Raises UsageError, or InputError that names the row and the column at fault.
        """
        if isinstance(what, dict):
            if workload is not None:
                raise _core.UsageError("workload: columns of layers have none (write tokens a row, and loads=[...])")
            return self._predict_layers(what, one_by_one, **fields)
        architectures = _architectures(what)
        how = _deployment({name: fields.pop(name) for name in _DEPLOYMENT & set(fields)})
        tokens = fields.pop("tokens", None)
        _refuse_cache_of_layers({**self.deployment, **how}, tokens)
        question = _question(workload, tokens, fields)
        if one_by_one or self.one_by_one or _is_spread(how) or any(a.is_lone_block for a in architectures):
            return self._predict_one_by_one(architectures, question, how)
        columns: Columns = {}
        for times, step in question.steps():
            batch = self.batch(step)
            parts = [batch.parts_of(a) for a in architectures]
            width = max(map(len, parts), default=1)
            table = numpy.full((len(parts), width), -1, numpy.int32)
            for row, numbers in zip(table, parts):
                row[: len(numbers)] = numbers
            columns = add_columns(columns, batch.predict(table), times)
        return columns

    def _predict_one_by_one(self, architectures, question, how):
        columns: Columns = {}
        for times, step in question.steps():
            asked = {**self.deployment, **how, "rated": False, **vars(step)}
            answers = [self._core.predict(a, **asked) for a in architectures]
            columns = add_columns(columns, columns_of(answers, calls=not self.gpu), times)
        return columns

    def _predict_layers(self, layers, one_by_one, *, loads=None, seed=1, **fields):
        columns = layer_columns(layers)
        seed = whole("seed", seed, 0, MOST_SEED)
        loads = (("",) if self.gpu else ("uniform",)) if loads is None else loads
        if isinstance(loads, str) or not all(isinstance(load, str) for load in loads):
            raise _core.UsageError('loads: expected a list of texts (write e.g. ["uniform", "zipf:1.2"])')
        unknown = sorted(set(fields) - _DEPLOYMENT)
        if unknown:
            hint = "write loads=[...]" if unknown[0] == "load" else "the columns say it row by row"
            raise _core.UsageError(f"{unknown[0]}: means nothing to columns of layers ({hint})")
        fields = _deployment(fields)
        if not (one_by_one or self.one_by_one or _is_spread(fields)):
            return self.layers(tuple(loads), seed).predict(*columns)
        rows = enumerate(layer_rows(columns))
        answers = [self._predict_row(number, row, loads, seed, fields) for number, row in rows]
        return columns_of(answers, calls=not self.gpu)

    def _predict_row(self, number, row, loads, seed, fields):
        capacity = None if row["capacity_factor"] == numpy.inf else row["capacity_factor"]
        if not 0 <= row["load"] < len(loads):
            raise _core.InputError(f"row {number}: load is {row['load']}, there are {len(loads)}")
        sizes = [row[name] for name in ("hidden", "width", "experts", "top_k")]
        try:
            layer = _core.Architecture.moe_layer(*sizes, gated=bool(row["gated"]), capacity_factor=capacity)
            how = {"load": loads[row["load"]], "seed": seed, "copies": row["copies"], **fields}
            return self.predict(layer, tokens=row["tokens"], **how)
        except (_core.UsageError, _core.InputError) as error:
            raise _core.InputError(f"row {number}: {error}") from None

    def layers(self, loads: Sequence[str] = ("uniform",), seed: int = 1) -> _core.LayerBatch:
        """The batch of MoE layers of this machine: `.predict(columns...)`, `.one(hidden, width, ...)`."""
        return self._cached(
            ("layers", tuple(loads), seed),
            lambda: _core.LayerBatch(self.hw, loads=list(loads), seed=seed, **self._setting),
        )

    def batch(self, step: Workload) -> _core.ModelBatch:
        """The batch of whole models of this machine for one Workload: `.parts_of`, `.predict`, `.one`."""
        fields = {**vars(step), "load": step.load or "uniform"}
        return self._cached(step, lambda: _core.ModelBatch(self.hw, **self._setting, **fields))

    def _cached(self, key, make):
        with self._lock:
            if key not in self._batches:
                self._batches[key] = make()
            return self._batches[key]


def explained(predictor: Any, architecture: Any, workload: Any, without: Any, fields: dict[str, Any]) -> dict[str, Any]:
    """What `explain` says of anything that has a `predict`."""
    removed = [without] if isinstance(without, str) else list(without)
    answer = json.loads(predictor.predict(architecture, workload, without=removed, **fields).to_text())
    answer["latency_without_s"] = {
        name.replace("-", "_"): predictor.predict(architecture, workload, without=[*removed, name], **fields).latency_s
        for name in ("all-to-all", "memory-bandwidth", "routing-overhead", "imbalance")
    }
    return answer


def _rebuild(hw, setting):
    return Predictor(hw, **setting)


def architecture_of(text: str, name: str) -> _core.Architecture:
    """What pickle calls."""
    return _core.Architecture.from_text(text, name)


def _question(workload, tokens, fields):
    """The Workload or Request that is asked about. Raises UsageError."""
    if tokens is None:
        return asked(workload, fields)
    if workload is not None:
        raise _core.UsageError("tokens: are those of a lone layer and exclude a workload")
    return of_layer(tokens, fields)


def _deployment(fields):
    """What the core takes of a deployment. Raises UsageError for what is none."""
    unknown = set(fields) - _DEPLOYMENT
    if unknown:
        raise _core.UsageError(
            f"{min(unknown)}: is no field of a deployment (write one of {', '.join(sorted(_DEPLOYMENT))})"
        )
    out = {
        name: whole(name, value, _DEGREES[name])
        for name, value in fields.items()
        if name in _DEGREES and value is not None
    }
    if fields.get("eager"):
        out["eager"] = True
    for name in ("kv_dtype", "all_reduce"):
        if fields.get(name):
            out[name] = fields[name]
            if not isinstance(out[name], str):
                raise _core.UsageError(f"{name}: is a {type(out[name]).__name__}, expected a str")
    if fields.get("rows") is not None and len(fields["rows"]) > 0:
        out["rows"] = [whole("rows", rows) for rows in fields["rows"]]
    if fields.get("acceptance") is not None:
        try:
            out["acceptance"] = float(fields["acceptance"])
        except (TypeError, ValueError):
            raise _core.UsageError(f"acceptance: {fields['acceptance']!r} is no number from 0 to 1") from None
    return out


def _refuse_cache_of_layers(deployment, tokens):
    """Raises UsageError where a single layer is asked with what only a model's cache has."""
    if tokens is not None and {"kv_dtype", "all_reduce", "max_context"} & set(deployment):
        raise _core.UsageError("kv_dtype, all_reduce, max_context: mean nothing for a single layer (leave them out)")


def _is_spread(deployment):
    """Whether a deployment asks for more than one rank that does nothing unusual."""
    return any(value is not None and value != _ALONE.get(name) for name, value in deployment.items())


def _architectures(what):
    """A list of architectures. Raises UsageError naming the row that is none."""
    try:
        architectures = None if isinstance(what, (str, _core.Architecture)) else list(what)
    except TypeError:
        architectures = None
    if architectures is None:
        raise _core.UsageError(
            f"what: is a {type(what).__name__}, expected a list of architectures or a dict of columns"
        )
    for row, architecture in enumerate(architectures):
        if not isinstance(architecture, _core.Architecture):
            raise _core.UsageError(f"row {row}: is a {type(architecture).__name__}, expected an Architecture")
    return architectures
