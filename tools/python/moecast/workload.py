"""What is asked of a machine: a step, or a whole request."""

from __future__ import annotations

import dataclasses
from typing import Any

from moecast._core import MOST, UsageError, whole

#: Seeds have 64 bits.
MOST_SEED = 2**64 - 1


def checked(asked: Any, least: dict[str, int]) -> None:
    """Makes the sizes of a frozen dataclass ints, in range, and its words str. Raises UsageError."""
    for field in dataclasses.fields(asked):
        value = getattr(asked, field.name)
        if field.type == "int":
            most = MOST_SEED if field.name == "seed" else MOST
            object.__setattr__(asked, field.name, whole(field.name, value, least.get(field.name, 0), most))
        elif field.type == "str" and not isinstance(value, str):
            raise UsageError(f"{field.name}: is a {type(value).__name__}, expected a str")


@dataclasses.dataclass(frozen=True)
class Workload:
    """One step. Sizes are numbers of sequences and tokens. Raises UsageError for what is no size."""

    phase: str = "decode"  #: decode, prefill, mixed, encode, or train (all weights, Adam)
    batch: int = 1  #: sequences in the step
    context: int = 1024  #: tokens already in the KV cache of each sequence (decode, mixed)
    prompt: int = 512  #: new tokens of a sequence (prefill, encode)
    source: int = 0  #: encoder-decoder models: encoded tokens of a sequence; 0 = prompt, in decode context
    prefill_batch: int = 0  #: mixed: sequences in prefill beside `batch` in decode
    prefix: int = 0  #: prefill, mixed: tokens of each prompt that are in the KV cache already
    load: str = ""  #: uniform, zipf:1.0, power-law:1.2, dirichlet:0.5, log-normal:1.05, histogram:3,1,1
    seed: int = 1  #: of a random load

    def __post_init__(self) -> None:
        checked(self, {"batch": 1, "prompt": 1})

    def steps(self) -> list[tuple[float, Workload]]:
        """Pairs of a number of times and a step."""
        return [(1.0, self)]


@dataclasses.dataclass(frozen=True)
class Request:
    """A request from its arrival to its last token on an idle machine: one prefill, then `target` - 1 decode steps.

    Decode steps are answered at two contexts (the quartiles of the generation) and averaged: their time is close to a
    straight line in the context. Raises UsageError for what is no size.
    """

    batch: int = 1  #: requests together
    prompt: int = 30  #: tokens of the prompt; of the source sentence where the model has an encoder
    target: int = 30  #: generated tokens
    beams: int = 1  #: hypotheses that each decode step advances
    encoder_decoder: bool = False  #: the prompt is encoded, generation starts with one token
    load: str = ""

    def __post_init__(self) -> None:
        checked(self, {"batch": 1, "prompt": 1, "target": 1, "beams": 1})

    def steps(self) -> list[tuple[float, Workload]]:
        """Pairs of a number of times and a step; the first is the one before the first token."""
        source = self.prompt if self.encoder_decoder else 0
        before = 1 if self.encoder_decoder else self.prompt
        steps = [(1.0, Workload("prefill", batch=self.batch, prompt=before, source=source, load=self.load))]
        for share in (0.25, 0.75) if self.target > 1 else ():
            decode = Workload(
                "decode",
                batch=self.batch * self.beams,
                context=before + round(share * (self.target - 1)),
                source=source,
                load=self.load,
            )
            steps.append(((self.target - 1) / 2, decode))
        return steps


def asked(workload: Workload | Request | None, fields: dict[str, Any]) -> Workload | Request:
    """The workload, or one of these fields. Raises UsageError where both are given or a field is none."""
    if workload is not None:
        if not isinstance(workload, (Workload, Request)):
            raise UsageError(f"workload: is a {type(workload).__name__}, expected a Workload or a Request")
        if fields:
            raise UsageError(f"{min(fields)}: give a workload or its fields, not both")
        return workload
    unknown = set(fields) - {f.name for f in dataclasses.fields(Workload)}
    if unknown:
        raise UsageError(f"{min(unknown)}: is no field of a workload")
    return Workload(**fields)


def of_layer(tokens: Any, fields: dict[str, Any]) -> Workload:
    """The step in which `tokens` tokens pass a lone layer. Raises UsageError."""
    unknown = set(fields) - {"load", "seed"}
    if unknown:
        raise UsageError(f"{min(unknown)}: tokens are those of a lone layer and exclude the fields of a workload")
    return Workload("prefill", prompt=whole("tokens", tokens, 1), **fields)
