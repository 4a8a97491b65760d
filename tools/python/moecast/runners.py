"""What really executes architectures on this machine: the runtime of the program, and PyTorch."""

import dataclasses
import json
import subprocess
import tempfile

from moecast._core import DeviceError, InputError
from moecast.program import program


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


class Runtime:
    """The reference runtime of the program: decoders with experts, one step each.

    `hw`: a profile of this machine (it names backends and threads that were measured).
    `.run(architectures, workload)` executes a list of architectures and returns an Execution each, in order.
    """

    def __init__(self, hw="this-machine", *, backend="onednn", dtype="fp32", threads=1, rounds=4):
        self.hw, self.backend, self.dtype, self.threads, self.rounds = hw, backend, dtype, threads, rounds

    def run(self, architectures, workload):
        """Raises InputError for what the runtime does not execute, DeviceError when it is stopped."""
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


class TorchTranslation:
    """Translation of one sentence by encoder-decoder models with random weights. Needs torch.

    `request`: a Request; its prompt is encoded, its target generated for each beam.
    """

    def __init__(self, request, *, threads=1, dtype="fp32", least_s=0.5, least_runs=5):
        self.request, self.threads, self.dtype = request, threads, dtype
        self.least = {"least_s": least_s, "least_runs": least_runs}

    def run(self, architectures):
        """An Execution each: a whole request."""
        import torch

        from moecast.torch_reference import DTYPES, Model, measure, quick_weights

        torch.set_num_threads(self.threads)
        executions = []
        for architecture in architectures:
            with quick_weights():
                model = Model(architecture).to(DTYPES[self.dtype]).eval()
            run = model.translate(self.request.prompt, self.request.target, self.request.beams)
            with torch.no_grad():
                executions.append(Execution(*measure(run, settle=1, **self.least)))
        return executions
