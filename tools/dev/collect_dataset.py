"""Executes architectures of the search spaces and makes a dataset of them.

usage: build/venv-torch/bin/python tools/dev/collect_dataset.py --journal FILE [--hw NAME] [--seconds N] [--write FILE]

A journal that is there is continued. --seconds: stops after about so long (execute in pieces while the machine is
quiet). --write: makes FILE.jsonl.gz of the journal.
"""

import argparse
import dataclasses
import functools
import json
import os
import pathlib
import platform
import sys
import time

import moecast
import numpy
from moecast.dataset import write_dataset
from moecast.predictor import Request, Workload
from moecast.runners import Runtime, TorchTranslation

TRANSLATION = Request(batch=1, prompt=30, target=12, beams=5, encoder_decoder=True)
MOST_PARAMETERS = 150e6  # of decoders: 600 MB in fp32, far beyond any cache


@dataclasses.dataclass(frozen=True)
class Setup:
    """What is executed how; `twin` names the setup whose first genomes are executed again."""

    space: str
    runtime: str
    threads: int
    workload: object
    count: int
    twin: str = ""
    dtype: str = "fp32"


SETUPS = {
    "llm-decode": Setup("llm-moe", "onednn", 1, Workload("decode", batch=1, context=512), 800),
    "llm-decode-16": Setup("llm-moe", "onednn", 1, Workload("decode", batch=16, context=256), 220),
    "llm-prefill": Setup("llm-moe", "onednn", 1, Workload("prefill", batch=1, prompt=96), 150),
    "llm-decode-2-threads": Setup("llm-moe", "onednn", 2, Workload("decode", batch=1, context=512), 240, "llm-decode"),
    "llm-decode-bf16": Setup(
        "llm-moe", "onednn", 1, Workload("decode", batch=1, context=512), 160, "llm-decode", dtype="bf16"
    ),
    "automoe": Setup("automoe-wmt14-en-de", "torch", 1, TRANSLATION, 75),
    "automoe-2-threads": Setup("automoe-wmt14-en-de", "torch", 2, TRANSLATION, 25, "automoe"),
}


@functools.cache
def genomes_of(name):
    """The genomes of a setup: the same ones every time."""
    setup = SETUPS[name]
    if setup.twin:
        return genomes_of(setup.twin)[: setup.count]
    space = moecast.load_space(setup.space)
    generator = numpy.random.default_rng(sum(map(ord, name)))
    chosen = []
    while len(chosen) < setup.count:
        genome = space.random(1, generator)[0]
        if setup.runtime == "torch" or space.architecture(genome).total_parameters <= MOST_PARAMETERS:
            chosen.append(genome)
    return chosen


def execute(setup, architectures, hw):
    if setup.runtime == "torch":
        runner = TorchTranslation(setup.workload, threads=setup.threads, least_runs=4, routing="router")
        return runner.run(architectures)
    runtime = Runtime(hw, backend=setup.runtime, dtype=setup.dtype, threads=setup.threads, rounds=2)
    return runtime.run(architectures, setup.workload)


def read_journal(path):
    """Rows of complete lines; a line that was cut off is removed."""
    if not path.exists():
        return []
    content = path.read_bytes()
    complete = content[: content.rfind(b"\n") + 1]
    if complete != content:
        path.write_bytes(complete)
    return [json.loads(line) for line in complete.splitlines()]


def collect(path, hw, seconds):
    """Executes what is missing, setups in turn so that each lies all over the time. Returns whether all is there."""
    rows = read_journal(path)
    done = {name: sum(row["setup"] == name for row in rows) for name in SETUPS}
    start = time.monotonic()
    with path.open("a", encoding="utf-8") as journal:
        while any(done[name] < setup.count for name, setup in SETUPS.items()):
            name = min(SETUPS, key=lambda n: done[n] / SETUPS[n].count)
            setup = SETUPS[name]
            batch = genomes_of(name)[done[name] : done[name] + (4 if setup.runtime == "torch" else 40)]
            space = moecast.load_space(setup.space)
            for genome, execution in zip(batch, execute(setup, [space.architecture(g) for g in batch], hw)):
                row = {"setup": name, "genome": [int(i) for i in genome]}
                row.update({k: v for k, v in dataclasses.asdict(execution).items() if v is not None})
                journal.write(json.dumps(row) + "\n")
            journal.flush()
            done[name] += len(batch)
            if sys.stderr.isatty():
                print(f"\r{sum(done.values())} of {sum(s.count for s in SETUPS.values())} ", end="", file=sys.stderr)
            if time.monotonic() - start > seconds:
                break
    return all(done[name] >= setup.count for name, setup in SETUPS.items())


def header(hw):
    """`hw`: the profile that the runtime was executed with; it says which libraries that was."""
    import torch

    profile = json.loads((pathlib.Path(moecast.profile_folder(hw)) / "profile.json").read_text(encoding="utf-8"))
    cpuinfo = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8")
    cpu = {key: line.split(":")[1].strip() for line in cpuinfo.splitlines() if (key := line.split("\t")[0].strip())}
    return {
        "machine": {
            "cpu": cpu["model name"],
            "family": int(cpu["cpu family"]),
            "model": int(cpu["model"]),
            "cores": os.cpu_count(),
            "instructions": torch.backends.cpu.get_cpu_capability(),
            "kernel": platform.release(),
            "virtual": " hypervisor" in cpuinfo,
        },
        "libraries": {
            "moecast": moecast.__version__,
            "torch": torch.__version__,
            **{backend["name"]: backend.get("library") for backend in profile.get("backends", [])},
        },
        "spaces": {name: moecast.load_space(name).description for name in {s.space for s in SETUPS.values()}},
        "collected": time.strftime("%Y-%m-%d", time.gmtime()),
        "setups": {
            name: {
                "space": setup.space,
                "runtime": setup.runtime,
                "dtype": setup.dtype,
                "threads": setup.threads,
                "workload": {
                    **({"kind": "request"} if isinstance(setup.workload, Request) else {}),
                    **dataclasses.asdict(setup.workload),
                },
            }
            for name, setup in SETUPS.items()
        },
    }


def rounded(row):
    """Four digits are more than the noise leaves; predictions are not data."""
    return {
        k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in row.items() if not k.startswith("predicted")
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--journal", required=True, type=pathlib.Path)
    parser.add_argument("--hw", default="this-machine")
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--write", type=pathlib.Path, metavar="FILE")
    options = parser.parse_args()
    if options.write:
        write_dataset(options.write, header(options.hw), [rounded(row) for row in read_journal(options.journal)])
        return 0
    return 0 if collect(options.journal, options.hw, options.seconds) else 1


if __name__ == "__main__":
    raise SystemExit(main())
