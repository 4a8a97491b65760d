#!/usr/bin/env python3
"""How far kernels lie from physics at usual efficiencies, as a Markdown table.

    tools/dev/usual_efficiencies.py ../shared/measurements

Operators of a step that no table holds take start + max(bytes / (share of bandwidth), operations / (share of the bf16
peak)). The shares below are those of sim/step/attention_operators.cpp and recurrent_operators.cpp, the spread is what
90 % of the rows of tables of the same kind lie within: it becomes the interval of such an operator.
"""

import csv
import gzip
import json
import math
import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ATTENTION = {"vllm_flash_attn_fa3", "vllm_flashinfer_trtllmdecode", "vllm_flashinfer_trtllmprefill"}
# kind: share of bandwidth, share of the bf16 peak, start in seconds
USUAL = {
    "attention, decode": (0.7, 0.5, 10e-6),
    "attention, prompts": (0.5, 0.4, 15e-6),
    "state, decode": (0.8, 0.5, 3e-6),
    "state, prompts": (0.25, 0.05, 20e-6),
    "short convolution, decode": (0.8, 0.5, 3e-6),
    "short convolution, prompts": (0.8, 0.5, 5e-6),
}


def limits(system):
    """Bandwidth and bf16 peak of the shipped profile."""
    quantities = json.loads((ROOT / "hwprofiles" / system / "profile.json").read_text())["quantities"]
    return quantities["memory_bandwidth"]["value"], quantities["peak_bf16"]["value"]


def rows(path):
    with gzip.open(path, "rt", newline="", encoding="utf-8") as file:
        yield from csv.DictReader(file)


def attention(path, prompts):
    """Seconds, bytes and operations of grouped-query rows with a bf16 cache, by the kernels that engines pick."""
    for row in rows(path):
        if row["kernel_source"] not in ATTENTION or "fp8" in row["kv_cache_dtype"]:
            continue
        if prompts and row["kernel_source"].endswith("decode"):
            continue
        batch, heads, size, window = (int(row[n]) for n in ("batch_size", "num_heads", "head_dim", "window_size"))
        kv_heads = int(row["num_key_value_heads"]) or heads
        length = int(row["isl"]) + int(row["step"])
        seen = min(length, window) if window else length
        if prompts:
            moved = batch * length * size * (4 * heads + 8 * kv_heads)
            pairs = length * seen - seen * seen / 2
        else:
            moved, pairs = batch * seen * 4 * kv_heads * size, seen
        yield 1e-3 * float(row["latency"]), moved, 4 * batch * heads * size * pairs


def delta_net(path, prompts, convolution):
    for row in rows(path):
        if (row["phase"] == "context") != prompts or ("conv" in row["kernel_source"]) != convolution:
            continue
        batch, keys, values, taps = (int(row[n]) for n in ("batch_size", "num_k_heads", "num_v_heads", "d_conv"))
        keys, size, values = keys * int(row["head_k_dim"]), int(row["head_k_dim"]), values * int(row["head_v_dim"])
        tokens = batch * (int(row["seq_len"]) if prompts else 1)
        if convolution:
            channels = 2 * keys + values
            moved, done = 4 * channels * (tokens + batch * (taps - 1)), 2 * tokens * channels * taps
        else:
            moved, done = 8 * batch * values * size + 4 * tokens * (keys + values), 6 * tokens * values * size
        yield 1e-3 * float(row["latency"]), moved, done


def errors(kind, data):
    bandwidth, peak, start = USUAL[kind]
    prompts = kind.endswith("prompts")
    for system in ("h100-sxm", "h200-sxm", "b200-sxm", "b300-sxm"):
        folder = data / "kernels" / system.replace("-", "_")
        bytes_per_s, flops_per_s = limits(system)
        if kind.startswith("attention"):
            name = "context_attention" if prompts else "generation_attention"
            tables = [attention(folder / f"{name}.vllm-0.24.0.csv.gz", prompts)]
        else:
            tables = [delta_net(p, prompts, "convolution" in kind) for p in sorted(folder.glob("gdn.*"))]
        for table in tables:
            for seconds, moved, done in table:
                said = start + max(moved / (bandwidth * bytes_per_s), done / (peak * flops_per_s))
                yield math.log(said / seconds)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    print("| kind | bandwidth | peak | start | rows | median of ln(said / measured) | 90 % of abs(ln) below |")
    print("|---|---|---|---|---|---|---|")
    for kind, (bandwidth, peak, start) in USUAL.items():
        off = list(errors(kind, Path(sys.argv[1])))
        spread = sorted(map(abs, off))[int(0.9 * len(off))]
        print(
            f"| {kind} | {bandwidth} | {peak} | {1e6 * start:.0f} us | {len(off)} | {statistics.median(off):+.2f} |"
            f" {spread:.2f} |"
        )


if __name__ == "__main__":
    main()
