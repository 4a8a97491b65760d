#!/usr/bin/env python3
"""Judge the laws of communication on published tables, groups left out: the tables of docs/accuracy.md.

    tools/dev/judge_collectives.py ../shared/measurements [--program build/release/moecast]

Runs `moecast validate collectives --leave-out ranks|shape|nodes` on every table of comm/ and prints, as Markdown,
median and 90th percentile of the error in per cent and (in brackets) the share of rows inside the 90 % interval.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys

# Tables of other libraries' numbers or of another definition (README of the measurements), not judged.
KEPT_OUT = {
    "custom_allreduce.sglang-0.5.6.post2": "the numbers of trtllm-1.2.0rc5",
    "nccl.nccl-2.23": "differs from later releases by 6 / 28 %, and has no all_reduce",
}
SISTERS = {"h100_sxm": "h200-sxm", "h200_sxm": "h100-sxm", "b200_sxm": "b300-sxm", "b300_sxm": "b200-sxm"}


def strata(program, system, tables, leave_out, sister=None):
    """Strata by name, of `moecast validate collectives` on tables of one system; None where nothing can be judged."""
    command = [program, "validate", "collectives", "--hw", system.replace("_", "-"), "--format", "json"]
    for table in tables:
        command += ["--table", str(table)]
    command += ["--leave-out", leave_out] + (["--sister", sister] if sister else [])
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode not in (0, 1):
        print(f"{' '.join(command[3:])}: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
        return None
    return {stratum["name"]: stratum for stratum in json.loads(done.stdout)["strata"]}


def cell(stratum):
    """median / p90 and coverage of a stratum, in per cent."""
    if not stratum:
        return "-"
    inside = f" ({100 * stratum['coverage_90_ratio']:.0f})" if stratum["n"] >= 10 else ""
    return f"{100 * stratum['median_ape']:.1f} / {100 * stratum['p90_ape']:.0f}{inside}"


def tables_of(folder, kind):
    return sorted(p for p in folder.glob(f"{kind}.*.csv.gz") if p.name.removesuffix(".csv.gz") not in KEPT_OUT)


def rank_rows(program, comm, kind, with_sister):
    """One rank count left out: all tables of a system together, then medians over single tables."""
    found = {4: [], 8: []}
    print("| system, tables | 4 from 2 and 8 | 8 from 2 and 4 |\n|---|---|---|")
    for folder in sorted(comm.iterdir()):
        sister = SISTERS.get(folder.name) if with_sister else None
        tables = tables_of(folder, kind)
        of = strata(program, folder.name, tables, "ranks", sister) if tables else None
        if not of:
            continue
        for table in tables:
            alone = strata(program, folder.name, [table], "ranks", sister) or {}
            for ranks in (4, 8):
                if f"ranks {ranks}" in alone:
                    found[ranks].append(alone[f"ranks {ranks}"])
        print(f"| {folder.name}, {len(tables)} | {cell(of.get('ranks 4'))} | {cell(of.get('ranks 8'))} |")
    middle = [
        " / ".join(f"{100 * statistics.median(s[key] for s in found[ranks]):.1f}" for key in ("median_ape", "p90_ape"))
        for ranks in (4, 8)
    ]
    print(f"| median of {len(found[4])} tables | {middle[0]} | {middle[1]} |\n")


def deepep_rows(program, comm, kind):
    """A shape left out, and a count of nodes left out; dispatch and combine."""
    print("| system, table | a shape, one node | the same, 2 and 4 nodes | 4 nodes from 1 and 2 |\n|---|---|---|---|")
    for folder in sorted(comm.iterdir()):
        for table in tables_of(folder, kind):
            shape = strata(program, folder.name, [table], "shape") or {}
            nodes = strata(program, folder.name, [table], "nodes") or {}

            def both(of, count):
                parts = [of.get(f"nodes {count} deepep/{kernel}") for kernel in ("dispatch", "combine")]
                return ", ".join(cell(part) for part in parts) if all(parts) else ""

            several = "; ".join(filter(None, (both(shape, 2), both(shape, 4))))
            print(
                f"| {folder.name} {table.name.removesuffix('.csv.gz')} | {both(shape, 1) or '-'} | {several or '-'} "
                f"| {both(nodes, 4) or '-'} |"
            )
    print()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("measurements", type=pathlib.Path)
    parser.add_argument("--program", default="build/release/moecast")
    asked = parser.parse_args()
    comm = asked.measurements / "comm"
    if not comm.is_dir():
        sys.exit(f"{comm}: no folder of tables of collectives")
    print("NCCL, one count of ranks left out\n")
    rank_rows(asked.program, comm, "nccl", False)
    print("Custom all-reduce, the same beside a sister system\n")
    rank_rows(asked.program, comm, "custom_allreduce", True)
    print("DeepEP, low latency\n")
    deepep_rows(asked.program, comm, "wideep_deepep_ll")
    print("DeepEP, normal\n")
    deepep_rows(asked.program, comm, "wideep_deepep_normal")


if __name__ == "__main__":
    main()
