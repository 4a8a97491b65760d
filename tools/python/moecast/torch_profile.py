"""`moecast profile --backend torch`: operators as PyTorch executes them on this CPU, as a profile. Needs torch."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy
import torch

from moecast._core import InputError
from moecast.command_line import DONE, Parser, ended
from moecast.program import program
from moecast.torch_reference import DTYPES
from moecast.workload import MOST_SEED, whole

#: Largest ring of weights: well above the last level of cache.
_RING_BYTES = 256e6
_pools: dict[torch.dtype, torch.Tensor] = {}


def _pool(dtype):
    """One block of memory that all rings of weights are cut out of."""
    if dtype not in _pools:
        size = torch.empty((), dtype=dtype).element_size()
        block = torch.empty(int(_RING_BYTES // size), dtype=dtype)
        _pools[dtype] = block.uniform_(-0.1, 0.1) if dtype == torch.float32 else block.fill_(0.01)
    return _pools[dtype]


class _Point:
    """A call to be timed: kind, shape columns, footprints, and a list of callables that touch other memory each."""

    def __init__(self, kind, backend, shape, runs, footprint, inputs=0, outputs=0):
        self.kind, self.backend, self.shape, self.runs = kind, backend, shape, runs
        self.footprints = (int(footprint), int(inputs), int(outputs))


def _ring(bytes_of_one, wanted):
    return int(min(64, max(1, min(wanted, _RING_BYTES) // bytes_of_one)))


def _views(g, elements, dtype, at_once=1, most=64):
    """Groups of `at_once` flat tensors that a call reads, and the bytes between two uses of one of them."""
    pool = _pool(dtype)
    elements = min(elements, len(pool) // at_once)
    size = pool.element_size() * elements * at_once
    ring = min(most, _ring(size, 2 ** g.uniform(17, math.log2(_RING_BYTES))))
    groups = [
        [pool[(i * at_once + j) * elements : (i * at_once + j + 1) * elements] for j in range(at_once)]
        for i in range(ring)
    ]
    return groups, ring * size


def _gemm(g, dtype):
    """x W^T with weights of a footprint, as torch.nn.Linear calls it."""
    m = int(round(2 ** g.uniform(0, 11)))
    n, k = (32 * int(round(2 ** g.uniform(2, 6.5))) for _ in range(2))
    if g.random() < 0.4:  # as most models have them
        n, k = (256 * max(1, round(x / 256)) for x in (n, k))
    which = g.random()
    if which < 0.15:
        n = int(round(2 ** g.uniform(2, 6)))  # a router
    elif which < 0.25:  # the vocabulary, of the tokens of a step
        n, k = (32 * int(round(2 ** g.uniform(*octaves))) for octaves in ((8, 11), (3, 5.5)))
        m = int(round(2 ** g.uniform(0, 5)))
    if 2.0 * m * n * k > 2e10:
        return None
    size = torch.empty((), dtype=dtype).element_size()
    ring = _ring(n * k * size, 2 ** g.uniform(19, math.log2(_RING_BYTES)))
    pool = _pool(dtype)
    weights = [pool[i * n * k : (i + 1) * n * k].view(n, k) for i in range(ring)]
    x = pool[-m * k :].view(m, k)
    touched = ring * n * k * size
    return _Point(
        "gemm",
        "torch",
        {"m": m, "n": n, "k": k},
        [lambda w=w: torch.nn.functional.linear(x, w) for w in weights],
        touched,
    )


def _stage(kind, g, dtype):
    """One of the element-wise stages of a model."""
    t = int(round(2 ** g.uniform(0, 10)))
    h = 64 * int(round(2 ** g.uniform(1.5, 5)))
    f = torch.nn.functional
    if kind == "router":
        e = int(round(2 ** g.uniform(2, 6)))
        k = int(g.integers(1, min(8, e) + 1))
        groups, touched = _views(g, t * e, dtype)

        def choose(x):
            weights, chosen = torch.topk(torch.softmax(x.float(), dim=-1), k, dim=-1)
            weights = weights / weights.sum(dim=-1, keepdim=True)
            return weights.to(dtype), f.one_hot(chosen, e).permute(2, 1, 0)

        runs = [lambda x=x.view(t, e): choose(x) for (x,) in groups]
        return _Point(kind, "native", {"tokens": t, "experts": e, "top_k": k, "groups": 1}, runs, touched)
    if kind in ("permute", "unpermute"):
        k = int(g.integers(1, 9))
        many = t if kind == "permute" else t * k
        rows = torch.randperm(t * k) % t
        groups, touched = _views(g, many * h, dtype)
        if kind == "permute":
            runs = [lambda x=x.view(many, h): x[rows] for (x,) in groups]
        else:
            out, scale = torch.zeros(t, h, dtype=dtype), torch.rand(t * k, 1, dtype=dtype)
            runs = [lambda x=x.view(many, h): out.index_add_(0, rows, x * scale) for (x,) in groups]
        return _Point(kind, "native", {"tokens": t, "top_k": k, "hidden": h}, runs, touched)
    if kind.startswith("activation"):
        gated = int(kind == "activation")
        groups, touched = _views(g, t * h, dtype, 1 + gated)
        if gated:
            runs = [lambda a=a, b=b: f.silu(a) * b for a, b in groups]
        else:
            runs = [lambda a=a: f.relu(a) for (a,) in groups]
        return _Point("activation", "native", {"m": t, "width": h, "gated": gated}, runs, touched)
    if kind == "norm":
        norm = torch.nn.LayerNorm(h, dtype=dtype)
        groups, touched = _views(g, t * h, dtype)
        return _Point(
            kind, "native", {"m": t, "hidden": h}, [lambda x=x.view(t, h): norm(x) for (x,) in groups], touched
        )
    if kind == "elementwise":
        groups, touched = _views(g, t * h, dtype, 2)
        return _Point(kind, "native", {"m": t, "width": h}, [lambda x=x, y=y: x + y for x, y in groups], touched)
    if kind == "copy":
        n = int(2 ** g.uniform(12, 24)) // 4
        groups, touched = _views(g, n, torch.float32)
        out = torch.empty(n)
        return _Point(kind, "native", {"bytes": 4 * n}, [lambda x=x: out.copy_(x) for (x,) in groups], touched)
    return _attention(kind, g, dtype)


def _attention(kind, g, dtype):
    decode = kind == "attention_decode"
    heads, size = int(g.choice([2, 4, 8, 16])), int(g.choice([32, 64, 128]))
    kv_heads = int(g.choice([n for n in (1, 2, 4, 8, 16) if n <= heads]))
    batch = int(round(2 ** g.uniform(0, 4 if decode else 1)))
    context = int(round(2 ** g.uniform(3, 10)))
    query = 1 if decode else context
    q = torch.randn(batch, heads, query, size, dtype=dtype)
    cache = (batch, kv_heads, context, size)
    groups, touched = _views(g, math.prod(cache), dtype, 2, 64 if decode else 3)
    mask = torch.full((query, context), float("-inf"), dtype=dtype).triu(1) if query > 1 else None

    def attend(keys, values):
        wide = [x.view(cache) for x in (keys, values)]
        if kv_heads != heads:
            wide = [x.repeat_interleave(heads // kv_heads, dim=1) for x in wide]
        scores = q @ wide[0].transpose(-1, -2) / math.sqrt(size)
        if mask is not None:
            scores = scores + mask
        return (torch.softmax(scores, dim=-1) @ wide[1]).transpose(1, 2).reshape(batch, query, -1)

    shape = {"batch": batch, "query": query, "context": context, "heads": heads, "kv_heads": kv_heads, "head_dim": size}
    return _Point(kind, "native", shape, [lambda k=k, v=v: attend(k, v) for k, v in groups], touched)


def _make(kind, seed, dtype):
    """The point of a seed: the same one every time."""
    g = numpy.random.default_rng(seed)
    point = None
    while point is None:
        point = _gemm(g, dtype) if kind == "gemm" else _stage(kind, g, dtype)
    return point


def _calls(point, budget_s):
    """How many calls fill the budget, after every callable ran twice."""
    for run in point.runs:
        run()
    before = time.perf_counter()
    for run in point.runs:
        run()
    once = max((time.perf_counter() - before) / len(point.runs), 1e-7)
    return max(len(point.runs), min(2000, int(budget_s / once)))


def _time(point, calls):
    """Mean seconds of so many calls."""
    runs = point.runs
    start = time.perf_counter()
    for i in range(calls):
        runs[i % len(runs)]()
    return (time.perf_counter() - start) / calls


@torch.no_grad()
def profile(
    out: Any,
    *,
    name: str,
    dtype: str = "fp32",
    threads: int = 1,
    gemms: int = 360,
    stages: int = 28,
    budget_s: float = 0.08,
    rounds: int = 4,
    seed: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> str:
    """Measures and writes a profile: FOLDER/profile.json, samples/*.csv.gz, calibration.json. Returns the folder.

    `gemms`, `stages`: points of GEMMs, and of each other operator. `budget_s`: of a point.
    Raises InputError on a dtype that is not measured, and where the calibration cannot be made.
    """
    if dtype not in DTYPES:
        raise InputError(f"dtype: {dtype!r} is not measured (write fp32 or bf16)")
    torch.set_num_threads(threads)
    g = numpy.random.default_rng(seed)
    torch.manual_seed(seed)
    kinds = [
        "router",
        "permute",
        "unpermute",
        "activation",
        "activation, plain",
        "norm",
        "elementwise",
        "copy",
        "attention_decode",
        "attention_prefill",
    ]
    wanted = ["gemm"] * gemms + [kind for kind in kinds for _ in range(stages)]
    g.shuffle(wanted)
    wanted = [(kind, int(g.integers(2**62))) for kind in wanted] + [("call", 0)]
    # Rounds lie minutes apart, so that a burst of other work spoils one of them and not the median.
    means = [[] for _ in wanted]
    calls = [0] * len(wanted)
    rows = {}
    for turn in range(rounds):
        for number, place in enumerate(g.permutation(len(wanted))):
            kind, point_seed = wanted[place]
            point = _tiny(DTYPES[dtype]) if kind == "call" else _make(kind, point_seed, DTYPES[dtype])
            calls[place] = _calls(point, budget_s / rounds)
            means[place].append(_time(point, calls[place]))
            if turn == rounds - 1:
                rows.setdefault(point.kind, []).append(_row(point, dtype, threads, means[place], calls[place]))
            if progress:
                progress(turn * len(wanted) + number + 1, rounds * len(wanted))
    folder = pathlib.Path(out)
    (folder / "samples").mkdir(parents=True, exist_ok=True)
    for kind, lines in rows.items():
        text = io.StringIO()
        writer = csv.DictWriter(text, list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
        _write(folder / "samples" / f"{kind}.csv.gz", gzip.compress(text.getvalue().encode(), mtime=0))
    _write(folder / "profile.json", (json.dumps(_description(name, dtype), indent=2) + "\n").encode())
    done = subprocess.run([program(), "calibrate", str(folder)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise InputError(f"{folder}: {done.stderr.strip() or done.stdout.strip()}")
    return str(folder)


def _tiny(dtype):
    """The smallest call."""
    x, w = torch.randn(1, 16, dtype=dtype), torch.randn(16, 16, dtype=dtype)
    return _Point("call", "torch", {}, [lambda: torch.nn.functional.linear(x, w)], 0)


def _row(point, dtype, threads, rounds, calls):
    means = sorted(rounds)
    # Half of an interval of about 95 %: the range of so few rounds is near twice their standard deviation.
    spread = (means[-1] - means[0]) / math.sqrt(len(means))
    median = float(numpy.median(means))
    footprint, inputs, outputs = point.footprints
    return {
        "backend": point.backend,
        "dtype": dtype,
        "threads": threads,
        **point.shape,
        "footprint_bytes": footprint,
        "input_footprint_bytes": inputs,
        "output_footprint_bytes": outputs,
        "latency_s": f"{median:.6g}",
        "low_s": f"{max(median - spread, median / 2):.6g}",
        "high_s": f"{median + spread:.6g}",
        "samples": len(means),
        "preempted": 0,
        "round_s": " ".join(f"{m:.6g}" for m in rounds),
        "raw_samples": "",
    }


def _description(name, dtype):
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "schema_version": 1,
        "name": name,
        "device": "cpu",
        "created": time.strftime("%Y-%m-%d", time.gmtime()),
        "quantities": {
            "memory_capacity": {"value": float(memory), "unit": "B", "origin": "measured", "source": "sysconf"}
        },
        "backends": [
            {
                "name": "torch",
                "dtype": dtype,
                "library": f"PyTorch {torch.__version__}",
                "implementation": torch.__config__.parallel_info().splitlines()[0],
                "row_bucket": "exact",
                "packing": "unless_one_row",
            }
        ],
        "notes": ["experts of layers are executed one after another (eager); calls include those of Python"],
    }


def _write(path, content):
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".torch")
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.chmod(temporary, 0o644)
    os.replace(temporary, path)


def run(arguments):
    """`moecast profile --backend torch ...`: its exit code."""
    return ended(lambda: _profile(arguments))


def _profile(arguments):
    p = Parser(prog="moecast profile --backend torch", description=__doc__)
    p.add_argument("--backend", choices=["torch"], required=True)
    p.add_argument("--name", default="torch-cpu", help="of the profile (default torch-cpu)")
    p.add_argument("--out", metavar="FOLDER", help="default: an own profile of that name")
    p.add_argument("--dtype", default="fp32", choices=sorted(DTYPES))
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--gemms", type=int, default=360, help="points of GEMMs (default 360)")
    p.add_argument("--seed", type=int, default=1)
    options = p.parse_args(arguments)
    # More threads than CPUs measure the scheduler; a law is fitted to some dozens of points.
    threads = whole("--threads", options.threads, 1, len(os.sched_getaffinity(0)))
    gemms = whole("--gemms", options.gemms, 30, 1_000_000)
    seed = whole("--seed", options.seed, 0, MOST_SEED)
    home = os.environ.get("MOECAST_PROFILES") or os.path.join(
        os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share"), "moecast", "profiles"
    )
    out = options.out or os.path.join(home, options.name)
    start = time.monotonic()

    def show(done, of):
        left = (time.monotonic() - start) / done * (of - done)
        print(f"\r{done}/{of} points, {left:.0f} s left ", end="" if done < of else "\n", file=sys.stderr, flush=True)

    folder = profile(
        out,
        name=options.name,
        dtype=options.dtype,
        threads=threads,
        gemms=gemms,
        seed=seed,
        progress=show if sys.stderr.isatty() else None,
    )
    print(folder)
    return DONE
