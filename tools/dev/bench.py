"""Runs every Google Benchmark of the project and prints what came out.

usage: bench.py --program FILE [--filter REGEX] [--format table|md|json] [--repetitions N]
JSON: a list of {name, value, unit, low, high}; value is the median of the repetitions, low and high its 95 % interval
(order statistics; the extremes where there are too few repetitions), unit is s, or 1/s for a rate.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

SECONDS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0}
# Counters that Google Benchmark calls by these names are rates; others are plain numbers.
RATES = {"items_per_second": "items", "bytes_per_second": "bytes"}


def interval(values: list[float]) -> tuple[float, float, float]:
    """(median, low, high): the distribution-free 95 % interval of the median, as in the profiler."""
    ordered = sorted(values)
    n = len(ordered)
    middle = ordered[n // 2] if n % 2 else 0.5 * (ordered[n // 2 - 1] + ordered[n // 2])
    low = int(max(0, (n - 1.96 * n**0.5) // 2))
    return middle, ordered[low], ordered[n - 1 - low]


def rows_of(report: dict) -> list[dict]:
    """One row for the time of each benchmark, one for each of its rates."""
    samples: dict[tuple[str, str], list[float]] = {}
    failures = []
    for run in report["benchmarks"]:
        if run.get("error_occurred"):
            failures.append(f"{run['name']}: {run.get('error_message', 'failed')}")
            continue
        if run.get("run_type") != "iteration":
            continue
        name = run["run_name"]
        seconds = float(run["real_time"]) * SECONDS[run["time_unit"]]
        samples.setdefault((name, "s"), []).append(seconds)
        for counter, unit in RATES.items():
            if counter in run:
                samples.setdefault((f"{name}:{unit}", "1/s"), []).append(float(run[counter]))
    if failures:
        raise RuntimeError("; ".join(failures))
    rows = []
    for (name, unit), values in samples.items():
        value, low, high = interval(values)
        rows.append({"name": name, "value": value, "unit": unit, "low": low, "high": high})
    return rows


def run_program(program: Path, pattern: str, repetitions: int) -> dict:
    """The program's own JSON report. @raises RuntimeError when it fails."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "report.json"
        command = [
            str(program),
            f"--benchmark_filter={pattern or '.'}",
            f"--benchmark_repetitions={repetitions}",
            f"--benchmark_out={out}",
            "--benchmark_out_format=json",
        ]
        done = subprocess.run(command, stdout=2, check=False, env={**os.environ, "OMP_WAIT_POLICY": "passive"})
        if done.returncode != 0:
            raise RuntimeError(f"{program} ended with {done.returncode}")
        text = out.read_text(encoding="utf-8") if out.is_file() else ""
    if not text.strip():
        raise RuntimeError(f"no benchmark matches {pattern!r}")
    return json.loads(text)


def scaled(value: float, unit: str) -> str:
    if unit != "s":
        for factor, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
            if value >= factor:
                return f"{value / factor:.3g} {prefix}/s"
        return f"{value:.3g} /s"
    for name in ("s", "ms", "us"):
        if value >= SECONDS[name]:
            return f"{value / SECONDS[name]:.3g} {name}"
    return f"{value / 1e-9:.3g} ns"


def table(rows: list[dict]) -> str:
    width = max([len(row["name"]) for row in rows] + [9])
    lines = [f"{'benchmark':{width}}  {'median':>10}  {'low':>10}  {'high':>10}"]
    for row in rows:
        cells = [scaled(row[key], row["unit"]) for key in ("value", "low", "high")]
        lines.append(f"{row['name']:{width}}  " + "  ".join(f"{cell:>10}" for cell in cells))
    return "\n".join(lines)


def markdown(rows: list[dict]) -> str:
    lines = ["| benchmark | median | 95 % interval |", "|---|---|---|"]
    for row in rows:
        value, low, high = (scaled(row[key], row["unit"]) for key in ("value", "low", "high"))
        lines.append(f"| `{row['name']}` | {value} | {low} to {high} |")
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="tools/dev/bench", description=__doc__.splitlines()[0])
    parser.add_argument("--program", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--filter", default="", help="only benchmarks whose name matches this expression")
    parser.add_argument("--format", choices=("table", "json", "md"), default="table")
    parser.add_argument("--repetitions", type=int, default=9, help="of each benchmark (default 9)")
    options = parser.parse_args(arguments)
    try:
        rows = rows_of(run_program(options.program, options.filter, options.repetitions))
    except RuntimeError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 1
    writers = {"table": table, "md": markdown, "json": lambda found: json.dumps(found, indent=2)}
    print(writers[options.format](rows))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
