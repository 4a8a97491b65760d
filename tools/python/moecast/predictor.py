"""Predictions: one at a time with everything that is known of them, or many at a time as columns."""

import dataclasses
import json
import threading

import numpy

from moecast import _core


@dataclasses.dataclass(frozen=True)
class Workload:
    """One step. Sizes are numbers of sequences and tokens."""

    phase: str = "decode"  #: decode, prefill, mixed, encode, or train (all weights, Adam)
    batch: int = 1  #: sequences in the step
    context: int = 1024  #: tokens already in the KV cache of each sequence (decode, mixed)
    prompt: int = 512  #: new tokens of a sequence (prefill, encode)
    source: int = 0  #: encoder-decoder models: encoded tokens of a sequence; 0 = prompt, in decode context
    prefill_batch: int = 0  #: mixed: sequences in prefill beside `batch` in decode
    prefix: int = 0  #: prefill, mixed: tokens of each prompt that are in the KV cache already
    load: str = ""  #: uniform, zipf:1.0, power-law:1.2, dirichlet:0.5, log-normal:1.05, histogram:3,1,1
    seed: int = 1  #: of a random load

    def steps(self):
        """Pairs of a number of times and a step."""
        return [(1.0, self)]


@dataclasses.dataclass(frozen=True)
class Request:
    """A request from its arrival to its last token on an idle machine: one prefill, then `target` - 1 decode steps.

    Decode steps are answered at two contexts (the quartiles of the generation) and averaged: their time is close to a
    straight line in the context.
    """

    batch: int = 1  #: requests together
    prompt: int = 30  #: tokens of the prompt; of the source sentence where the model has an encoder
    target: int = 30  #: generated tokens
    beams: int = 1  #: hypotheses that each decode step advances
    encoder_decoder: bool = False  #: the prompt is encoded, generation starts with one token
    load: str = ""

    def steps(self):
        first = Workload(
            "prefill",
            batch=self.batch,
            prompt=1 if self.encoder_decoder else self.prompt,
            source=self.prompt if self.encoder_decoder else 0,
            load=self.load,
        )
        steps = [(1.0, first)]
        before = 1 if self.encoder_decoder else self.prompt
        for share in (0.25, 0.75) if self.target > 1 else ():
            steps.append(
                (
                    (self.target - 1) / 2,
                    Workload(
                        "decode",
                        batch=self.batch * self.beams,
                        context=before + round(share * (self.target - 1)),
                        source=self.prompt if self.encoder_decoder else 0,
                        load=self.load,
                    ),
                )
            )
        return steps


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
_LAYER_COLUMNS = ("hidden", "width", "experts", "top_k", "tokens")


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

    Raises UsageError on a wrong name, InputError when the profile cannot be read.
    """

    def __init__(self, hw, *, backend="", dtype="", threads=0, strategy="", engine="analytic"):
        self._setting = {"backend": backend, "dtype": dtype, "threads": threads, "strategy": strategy}
        self.hw = str(hw)
        self.engine = engine
        self._core = _core.Predictor(self.hw, engine=engine, **self._setting)
        self._batches = {}
        self._lock = threading.Lock()

    def __reduce__(self):
        return _rebuild, (self.hw, self._setting, self.engine)

    def __repr__(self):
        return f"<moecast.Predictor {self.hw}>"

    @property
    def folder(self):
        """Folder of the profile."""
        return self._core.folder

    @property
    def gpu(self):
        """Whether whole steps are those of a serving engine on a GPU."""
        return self._core.gpu

    @property
    def backends(self):
        """Pairs (backend, dtype) that the machine was profiled with; empty for a GPU."""
        return self._core.backends

    def predict(
        self,
        architecture,
        workload=None,
        *,
        tokens=None,
        rows=(),
        copies=1,
        tp=1,
        ep=1,
        dp=1,
        pp=1,
        moe_tp=None,
        cp=1,
        micro_batches=None,
        redundant_experts=0,
        eager=False,
        draft_tokens=0,
        acceptance=None,
        without=(),
        **fields,
    ):
        """One step of a model, or `tokens` tokens through a lone MoE layer.

        `workload` is a Workload, or give its fields by name. `rows`: exact rows of each expert of a lone layer.
        Degrees: tp, ep, dp, pp, cp (contexts shared, GPUs only), moe_tp ranks an expert, micro_batches a step (None:
        one a stage), redundant_experts copies of popular experts, eager: no graph is replayed
        (GPUs), draft_tokens that layers of multi-token prediction guess ahead of each step (GPUs), each right with
        probability `acceptance` where those before it were: `tpot_s` is then the step over the tokens that it yields.
        `without`: factors to remove (all-to-all, memory-bandwidth, routing-overhead, imbalance); removing one never
        slows. Returns a Prediction: its status says whether there is a latency.
        """
        if tokens is not None:
            if workload is not None or fields:
                raise _core.UsageError("tokens: are those of a lone layer and exclude a workload")
            if tokens < 1:
                raise _core.UsageError(f"tokens: {tokens} is out of range (expected at least 1)")
            fields = {"phase": "prefill", "batch": 1, "prompt": tokens}
        elif workload is not None:
            if fields:
                raise _core.UsageError(f"{sorted(fields)[0]}: give a workload or its fields, not both")
            fields = dataclasses.asdict(workload)
        unknown = set(fields) - {f.name for f in dataclasses.fields(Workload)}
        if unknown:
            raise _core.UsageError(f"{sorted(unknown)[0]}: is no field of a workload")
        return self._core.predict(
            architecture,
            rows=list(rows),
            copies=copies,
            tp=tp,
            ep=ep,
            dp=dp,
            pp=pp,
            moe_tp=moe_tp,
            cp=cp,
            micro_batches=micro_batches,
            redundant_experts=redundant_experts,
            eager=eager,
            draft_tokens=draft_tokens,
            acceptance=acceptance,
            without=",".join(without),
            **fields,
        )

    def explain(self, architecture, workload=None, **fields):
        """Where the time goes: the JSON of `moecast explain` as a dict, with the latency without each factor."""
        answer = json.loads(self.predict(architecture, workload, **fields).to_text())
        answer["latency_without_s"] = {
            name.replace("-", "_"): self.predict(architecture, workload, without=[name], **fields).latency_s
            for name in ("all-to-all", "memory-bandwidth", "routing-overhead", "imbalance")
        }
        return answer

    def adapt(self, measurements, workload=None, **fields):
        """A predictor of another machine from a few of its measurements: see moecast.adapt."""
        from moecast.adaptation import adapt

        return adapt(self, measurements, workload, **fields)

    def predict_batch(self, what, workload=None, **fields):
        """Many answers at once, as a dict of NumPy columns.

        `what`: a list of architectures (steps of `workload`), or a dict of columns of MoE layers: hidden, width,
        experts, top_k, tokens, and if wanted gated, capacity_factor (infinite = none), copies, load (index into
        `loads`). Columns that are C-contiguous int32 (gated: uint8, capacity_factor: float32) are not copied.
        Columns of the answer: latency_s, latency_low_s, latency_high_s, ..., NaN where the status is not 0.
        Raises InputError that names the row and the column at fault.
        """
        if isinstance(what, dict):
            return self._predict_layers(what, fields.pop("loads", ("uniform",)), **fields)
        workload = workload if workload is not None else Workload(**fields)
        architectures = list(what)
        if self.gpu:
            return self._predict_one_by_one(architectures, workload)
        columns = None
        for times, step in workload.steps():
            batch = self.batch(step)
            parts = [batch.parts_of(a) for a in architectures]
            width = max(map(len, parts), default=1)
            table = numpy.full((len(parts), width), -1, numpy.int32)
            for row, numbers in zip(table, parts):
                row[: len(numbers)] = numbers
            columns = add_columns(columns, batch.predict(table), times)
        return columns

    def _predict_one_by_one(self, architectures, workload):
        columns = None
        for times, step in workload.steps():
            answers = [self.predict(a, step) for a in architectures]
            columns = add_columns(columns, _columns_of(answers), times)
        return columns

    def _predict_layers(self, layers, loads, seed=1):
        unknown = set(layers) - {*_LAYER_COLUMNS, "gated", "capacity_factor", "copies", "load"}
        if unknown:
            raise _core.InputError(f"{sorted(unknown)[0]}: is no column of MoE layers")
        columns = [_column(layers, name, numpy.int32) for name in _LAYER_COLUMNS]
        columns.append(_column(layers, "gated", numpy.uint8, optional=True))
        columns.append(_column(layers, "capacity_factor", numpy.float32, optional=True))
        columns += [_column(layers, name, numpy.int32, optional=True) for name in ("copies", "load")]
        return self.layers(tuple(loads), seed).predict(*columns)

    def layers(self, loads=("uniform",), seed=1):
        """The batch of MoE layers of this machine: `.predict(columns...)`, `.one(hidden, width, ...)`."""
        return self._cached(
            ("layers", tuple(loads), seed),
            lambda: _core.LayerBatch(self.hw, loads=list(loads), seed=seed, **self._setting),
        )

    def batch(self, step):
        """The batch of whole models of this machine for one Workload: `.parts_of`, `.predict`, `.one`."""
        fields = dataclasses.asdict(step)
        fields["load"] = fields["load"] or "uniform"
        return self._cached(step, lambda: _core.ModelBatch(self.hw, **self._setting, **fields))

    def _cached(self, key, make):
        with self._lock:
            if key not in self._batches:
                self._batches[key] = make()
            return self._batches[key]


def _rebuild(hw, setting, engine):
    return Predictor(hw, engine=engine, **setting)


def architecture_of(text, name):
    """What pickle calls."""
    return _core.Architecture.from_text(text, name)


def _column(layers, name, dtype, optional=False):
    if name not in layers:
        if optional:
            return numpy.empty(0, dtype)
        raise _core.InputError(f"{name}: is missing among the columns")
    given = numpy.asarray(layers[name])
    if given.ndim != 1:
        raise _core.InputError(f"{name}: has {given.ndim} dimensions, expected one")
    if given.dtype == dtype and given.flags.c_contiguous:
        return given
    if given.dtype.kind not in "iub" and not (dtype == numpy.float32 and given.dtype.kind == "f"):
        raise _core.InputError(f"{name}: has dtype {given.dtype}, expected {numpy.dtype(dtype).name}")
    with numpy.errstate(over="ignore"):
        converted = numpy.ascontiguousarray(given, dtype)
    if dtype != numpy.float32 and not numpy.array_equal(converted, given):
        row = int(numpy.flatnonzero(converted != given)[0])
        raise _core.InputError(f"row {row}: {name} {given[row]} is out of range")
    return converted


def add_columns(columns, more, times):
    """Adds `times` of a step's columns to those of the steps before."""
    scaled = {name: values * times if name in SUMMED else values for name, values in more.items()}
    if columns is None:
        for name in FIRST:
            if name in scaled:
                scaled[f"first_{name}"] = scaled[name].copy()
        return scaled
    for name, values in scaled.items():
        columns[name] = columns[name] + values if name in SUMMED else numpy.maximum(columns[name], values)
    return columns


def _columns_of(answers):
    status = {"ok": 0, "does_not_fit": 1, "outside_range": 2}

    def column(value):
        return numpy.array([numpy.nan if value(a) is None else value(a) for a in answers], float)

    return {
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
        "status": numpy.array([status[a.status] for a in answers], numpy.uint8),
        "extrapolated": numpy.array([a.origin in ("extrapolated", "assumed") for a in answers], numpy.uint8),
    }
