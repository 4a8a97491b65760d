"""`moecast search`."""

import argparse
import csv
import dataclasses
import io
import json
import os
import sys
import tempfile

from moecast._core import UsageError
from moecast.command_line import DONE, NO, Parser, ended
from moecast.predictor import Predictor
from moecast.search import search
from moecast.search.arguments import whole
from moecast.search.methods import METHODS
from moecast.spaces import load_space, space_names
from moecast.spaces.timing import workload_of

_EXAMPLES = """examples:
  moecast search --space automoe --hw amd-epyc-2cpu --threads 1 --latency 200ms --flops 100G --memory 16GiB
  moecast search --space automoe-180 --hw this-machine --latency 150ms --objective flops:max
  moecast search --space automoe-wmt14-en-de --hw amd-epyc-2cpu --metric bleu=scores.csv:bleu --objective bleu \\
      --constraint "latency<200ms" --generations 30 --resume search.jsonl
  moecast search --space llm-moe --hw amd-epyc-2cpu --objective latency --objective size:max --format json -o front.json
"""


def parser():
    p = Parser(
        prog="moecast search",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Search a space of architectures by predicted latency and other objectives.",
    )
    p.add_argument(
        "--space", required=True, metavar="NAME|FILE", help=f"one of {', '.join(space_names())}, or a JSON file"
    )
    p.add_argument("--hw", default="this-machine", metavar="NAME|FOLDER", help="profile (moecast list hw)")
    p.add_argument("--backend", default="", metavar="NAME", help="of the profile (default: its first)")
    p.add_argument("--dtype", default="", metavar="FORMAT", help="of weights and activations (default: the profile's)")
    p.add_argument("--threads", type=int, default=0, metavar="N", help="of a CPU (default: all that were profiled)")
    p.add_argument("--batch", type=int, metavar="N", help="sequences or requests together (default: the space's)")
    p.add_argument("--context", type=int, metavar="TOKENS", help="in the KV cache of a decode step")
    p.add_argument(
        "--objective",
        action="append",
        metavar="METRIC[:min|max]",
        help="latency, flops, memory, size, active_parameters or a --metric; repeat for several",
    )
    p.add_argument(
        "--constraint",
        action="append",
        default=[],
        metavar="METRIC<BOUND",
        help='e.g. "latency<50ms", "memory<2GiB", "accuracy>0.8"; repeat for several',
    )
    for metric, bound, example in (
        ("latency", "TIME", "50ms"),
        ("flops", "NUMBER", "100GFLOP"),
        ("memory", "BYTES", "16GiB"),
    ):
        p.add_argument(f"--{metric}", metavar=bound, help=f'{example} says --constraint "{metric}<{example}"')
    p.add_argument(
        "--confidence",
        type=float,
        default=0.95,
        metavar="P",
        help="how sure it must be that a measured latency keeps its limit (default 0.95)",
    )
    p.add_argument(
        "--metric",
        action="append",
        default=[],
        metavar="NAME=FILE.csv:COLUMN|NAME=FILE.json",
        help="a quality of your own: a table with a column for every gene, or a linear model",
    )
    p.add_argument("--method", choices=METHODS, help="default: exhaustive up to 2000, evolution, or nsga2")
    p.add_argument("--generations", type=int, default=30, metavar="N")
    p.add_argument("--population", type=int, default=125, metavar="N")
    p.add_argument("--patience", type=int, metavar="N", help="stop after N generations without a better one")
    p.add_argument("--seed", type=int, default=1, metavar="N")
    p.add_argument("--resume", metavar="FILE", help="journal of what qualities were; continued when it exists")
    p.add_argument("--format", choices=tuple(_FORMATS), default="table")
    p.add_argument("-o", "--output", metavar="FILE", help="written atomically; default: stdout")
    return p


def run(arguments):
    """Exit code as the program's: 1 where no architecture keeps the constraints."""
    return ended(lambda: _search(parser().parse_args(arguments)))


def _search(options):
    metrics = {}
    for text in options.metric:
        name, equals, source = text.partition("=")
        if not equals or not name:
            raise UsageError(f"--metric: {text!r} is not NAME=FILE")
        metrics[name] = source
    limits = [f"{name}<{bound}" for name in ("latency", "flops", "memory") if (bound := getattr(options, name))]
    space = load_space(options.space)
    result = search(
        space,
        Predictor(options.hw, backend=options.backend, dtype=options.dtype, threads=options.threads),
        objectives=options.objective,
        constraints=[*limits, *options.constraint],
        confidence=options.confidence,
        metrics=metrics,
        method=options.method,
        workload=_workload(space, options),
        generations=options.generations,
        population=options.population,
        patience=options.patience,
        seed=options.seed,
        resume=options.resume,
        progress=sys.stderr.isatty() or None,
    )
    text = _FORMATS[options.format](result)
    if options.output:
        _write(options.output, text)
    else:
        sys.stdout.write(text)
    if result.status != "ok":
        excluded = "; ".join(" and ".join(map(_kept, names)) for names in result.conflicts)
        print(f"no architecture keeps all constraints; nothing that was tried {excluded}", file=sys.stderr)
        return NO
    return DONE


def _kept(limit):
    return limit if limit.startswith("has ") else f"keeps {limit}"


def _workload(space, options):
    """The space's workload with the batch and the context that are asked for. Raises UsageError."""
    workload = workload_of(space)
    if options.batch is not None:
        workload = dataclasses.replace(workload, batch=whole("--batch", options.batch, 1))
    if options.context is not None:
        if getattr(workload, "phase", "") not in ("decode", "mixed"):
            raise UsageError(f"--context: the workload of {space.name} is no decode step, its contexts follow from it")
        workload = dataclasses.replace(workload, context=whole("--context", options.context, 1))
    return workload


def _rows(result):
    metrics = [name for name in result.columns if name not in ("latency_low", "latency_high")]
    header = [*metrics, *result.space.genes]
    return header, [[entry[m] for m in metrics] + list(entry["genes"].values()) for entry in result.table()]


def _csv(result):
    out = io.StringIO()
    header, rows = _rows(result)
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return out.getvalue()


def _markdown(result):
    header, rows = _rows(result)
    cells = [[f"{cell:.6g}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    return "".join(f"| {' | '.join(row)} |\n" for row in [header, ["---"] * len(header), *cells])


def _json_lines(result):
    return "".join(json.dumps(entry) + "\n" for entry in result.table())


def _table(result):
    lines = [
        f"{result.space.name}: {len(result.genomes)} architectures evaluated, {int(result.feasible.sum())} feasible, "
        f"{len(result.front_rows)} on the front, {result.seconds:.2f} s ({result.stopped})"
    ]
    shown = ("latency", "flops", "memory", "size")
    own = [n for n in result.columns if n not in (*shown, "active_parameters", "latency_low", "latency_high")]
    lines.append(
        "  ".join(["  latency   90 % interval     ", "  FLOPs", " memory", "   size", *own, "genes that vary"])
    )
    varying = (
        [g for i, g in enumerate(result.space.genes) if len(set(result.front[:, i])) > 1] if len(result.front) else []
    )
    for entry in result.table()[:25]:
        genes = ", ".join(f"{g}={entry['genes'][g]}" for g in varying[:8]) or "-"
        cells = [
            f"{_seconds(entry['latency']):>9}",
            f"{_seconds(entry['latency_low'])} to {_seconds(entry['latency_high']):<9}",
            *(f"{_count(entry[n]):>7}" for n in shown[1:]),
            *(f"{entry[n]:.5g}" for n in own),
            genes,
        ]
        lines.append("  ".join(cells))
    if len(result.front_rows) > 25:
        lines.append(f"({len(result.front_rows) - 25} more: --format csv shows all)")
    return "\n".join(lines) + "\n"


def _seconds(value):
    for unit, scale in (("s", 1), ("ms", 1e-3), ("us", 1e-6)):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value / 1e-9:.3g} ns"


def _count(value):
    for unit, scale in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value:.3g}"


_FORMATS = {
    "table": _table,
    "md": _markdown,
    "csv": _csv,
    "json": lambda result: result.to_text(),
    "jsonl": _json_lines,
}


def _write(path, text):
    folder = os.path.dirname(os.path.abspath(path))
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=".search")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
