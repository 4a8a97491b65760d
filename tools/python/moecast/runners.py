"""What really executes architectures on this machine: the runtime of the program, and PyTorch."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import tempfile
from collections.abc import Sequence
from typing import Any

from moecast._core import Architecture, DeviceError, InputError, UsageError
from moecast.program import program
from moecast.spaces import load_space
from moecast.spaces.timing import workload_of
from moecast.workload import Request, Workload


@dataclasses.dataclass(frozen=True)
class Execution:
    """Seconds of one execution, as it was measured."""

    latency_s: float  #: median over rounds
    noise_ratio: float  #: |a / b - 1| of the medians of two halves of the rounds
    low_s: float | None = None  #: 95 % interval of the median
    high_s: float | None = None
    predicted_s: float | None = None  #: by the profile, where it was asked beside the execution
    predicted_low_s: float | None = None  #: 90 % interval
    predicted_high_s: float | None = None


class _Runner:
    """What `collect` and `remeasure` call: a dict of genes in, measured seconds out. Needs the space of the genes."""

    def __init__(self, space: Any, workload: Workload | Request | None) -> None:
        self.space = None if space is None else load_space(space)
        self.workload = workload if workload is not None or space is None else workload_of(self.space)

    def __call__(self, genes: dict[str, Any]) -> float:
        """Seconds of one architecture. Raises UsageError without a space, and what `run` raises."""
        if self.space is None:
            raise UsageError(f"space: whose genes are these? (write {type(self).__name__}(..., space=...))")
        (execution,) = self._executed([self.space.architecture(self.space.encode(genes))])
        if execution is None:
            raise DeviceError(f"{self.space.name}: the architecture was not executed")
        return execution.latency_s

    def _executed(self, architectures):
        raise NotImplementedError


class Runtime(_Runner):
    """The reference runtime of the program: decoders with experts, one step each.

    `hw`: a profile of this machine (it names backends and threads that were measured).
    `.run(architectures, workload)` executes a list of architectures and returns an Execution each, in order.
    `space`, `workload` (default: the space's): with these it is a runner of `moecast.collect`.
    """

    def __init__(
        self,
        hw: Any = "this-machine",
        *,
        backend: str = "onednn",
        dtype: str = "fp32",
        threads: int = 1,
        rounds: int = 4,
        space: Any = None,
        workload: Workload | None = None,
    ) -> None:
        super().__init__(space, workload)
        self.hw, self.backend, self.dtype, self.threads, self.rounds = hw, backend, dtype, threads, rounds

    def _executed(self, architectures):
        return self.run(architectures, self.workload)

    def run(self, architectures: Sequence[Architecture], workload: Workload) -> list[Execution | None]:
        """Raises InputError for what the runtime does not execute, DeviceError when it is stopped."""
        if not isinstance(workload, Workload):
            raise InputError(f"workload: the runtime executes steps, not a {type(workload).__name__}")
        step = {"phase": workload.phase, "batch": workload.batch}
        step.update({"context": workload.context} if workload.phase == "decode" else {"prompt": workload.prompt})
        with tempfile.NamedTemporaryFile("w", suffix=".jsonl", encoding="utf-8") as file:
            for number, architecture in enumerate(architectures):
                described = json.loads(architecture.to_text())
                file.write(json.dumps({"name": str(number), "architecture": described, **step}) + "\n")
            file.flush()
            answer = _answer(
                *["validate", "--hw", str(self.hw), "--configurations", file.name, "--timing", "stored"],
                *["--backend", self.backend, "--dtype", self.dtype, "--threads", str(self.threads)],
                *["--rounds", str(self.rounds), "--format", "json"],
            )
        executions = {int(case["name"]): _execution(case) for case in answer["cases"]}
        return [executions.get(number) for number in range(len(architectures))]


def _answer(*arguments):
    done = subprocess.run([program(), *arguments], capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):  # 1: a bar was missed, which is not asked here
        problem = done.stderr.strip() or f"ended with {done.returncode}"
        raise (InputError if done.returncode in (2, 3) else DeviceError)(problem.removeprefix("error: "))
    return json.loads(done.stdout)


def _execution(case):
    return Execution(
        case["executed_s"],
        case["rerun_ratio"],
        case["executed_low_s"],
        case["executed_high_s"],
        case["predicted_s"],
        case["predicted_low_s"],
        case["predicted_high_s"],
    )


class TorchTranslation(_Runner):
    """Translation of one sentence by encoder-decoder models with random weights. Needs torch.

    `request`: a Request; its prompt is encoded, its target generated for each beam. `space`: with it this is a runner
    of `moecast.collect`. `routing`: "even" (experts are drawn, all alike, as predictions of an even load take it) or
    "router" (as routers with random weights choose, which is alike for tokens that are alike).
    """

    def __init__(
        self,
        request: Request,
        *,
        threads: int = 1,
        dtype: str = "fp32",
        least_s: float = 0.5,
        least_runs: int = 5,
        space: Any = None,
        routing: str = "even",
    ) -> None:
        super().__init__(space, request)
        if routing not in ("even", "router"):
            raise UsageError(f"routing: {routing!r} is not known (write even or router)")
        if routing == "even" and request.load not in ("", "uniform"):
            raise UsageError(f"routing: experts are drawn alike, not as {request.load} has them (write router)")
        self.routing = routing
        self.request, self.threads, self.dtype = request, threads, dtype
        self.least = {"least_s": least_s, "least_runs": least_runs}

    def _executed(self, architectures):
        return self.run(architectures)

    def run(self, architectures: Sequence[Architecture]) -> list[Execution]:
        """An Execution each: a whole request."""
        import torch

        from moecast.torch_reference import DTYPES, Model, measure, quick_weights

        torch.set_num_threads(self.threads)
        executions = []
        for architecture in architectures:
            with quick_weights():
                model = Model(architecture).to(DTYPES[self.dtype]).eval()
            if self.routing == "even":
                model.route_evenly(int(torch.randint(2**31, ())))
            run = model.translate(self.request.prompt, self.request.target, self.request.beams)
            with torch.no_grad():
                executions.append(Execution(*measure(run, settle=1, **self.least)))
        return executions
