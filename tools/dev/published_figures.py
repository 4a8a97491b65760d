#!/usr/bin/env python3
"""Published figures beside predictions of the shipped profiles, as Markdown tables.

    tools/dev/published_figures.py ../shared/measurements

Low-latency DeepEP (tables of its own README, H800), DeepGEMM (H800), the MoE module of TensorRT-LLM (B200), and whole
steps of DeepSeek-V3 under wide expert parallelism (H100, H800). No figure was used for a fit. H800 is an H100 with
160 GB/s of NVLink; the profile of H100 stands for it.
"""

import csv
import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MOECAST = ROOT / "build/release/moecast"


def bias(command, hw, name, header, row):
    """Predicted over published - 1 of one row, or None where nothing is known."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_text(header + "\n" + ",".join(map(str, row)) + "\n")
        done = subprocess.run(
            [MOECAST, "validate", command, "--hw", hw, "--table", path, "--format", "json"],
            capture_output=True,
            text=True,
        )
    if done.returncode not in (0, 1):
        return {}
    strata = json.loads(done.stdout)["strata"]
    return {s["name"]: s for s in strata}


def rows(path):
    with open(path, newline="", encoding="utf-8") as file:
        yield from csv.DictReader(file)


SHAPE = ("nodes", "hidden", "tokens_per_rank", "topk", "experts")


def deepep(data):
    header = (
        "op_name,kernel_source,node_num,hidden_size,num_token,num_topk,num_experts,combine_avg_t_us,"
        "combine_bandwidth_gbps,dispatch_avg_t_us,dispatch_bandwidth_gbps"
    )
    for row in rows(data / "alltoall/published_all2all.csv"):
        if not row["library"].startswith("DeepEP V1") or "low-latency" not in row["mode"] or not row["latency_us"]:
            continue
        us = float(row["latency_us"])
        found = bias(
            "collectives",
            "h100-sxm",
            "wideep_deepep_ll.sglang-0.5.6.post2.csv",
            header,
            ["ll", "deepep", *(int(float(row[name])) for name in SHAPE), us, 1, us, 1],
        )
        stratum = found.get("kernel deepep/" + row["op"])
        tokens = int(float(row["tokens_per_rank"]))
        yield (f"DeepEP {row['op']}, EP{row['ep']}, {tokens} tokens, {row['mode']}", row["source"], us, stratum)


def deepgemm(data):
    header = "kernel_source,gemm_dtype,m,n,k,latency"
    for row in rows(data / "published/deepgemm_h800.csv"):
        if row["kernel"] != "dense":
            continue
        us = float(row["latency_us_derived"])
        found = bias(
            "kernels",
            "h100-sxm",
            "gemm.sglang-0.5.14.csv",
            header,
            ["deepgemm", "fp8_block", row["m_per_group"], row["n"], row["k"], us / 1e3],
        )
        yield f"DeepGEMM dense {row['m_per_group']}x{row['n']}x{row['k']}", row["source"], us, found.get("all")


def trtllm(data):
    header = (
        "kernel_source,moe_dtype,num_tokens,hidden_size,inter_size,topk,num_experts,moe_tp_size,moe_ep_size,"
        "distribution,latency"
    )
    for row in rows(data / "published/trtllm_moe_module_b200_nvfp4.csv"):
        if row["kernel"] != "TRTLLM-Gen grouped":
            continue
        us = float(row["latency_us"])
        found = bias(
            "kernels",
            "b200-sxm",
            "moe.trtllm-1.3.0rc20.csv",
            header,
            ["moe_torch_flow_min_latency", "nvfp4", row["num_tokens"], 7168, 2048, 8, 256, 8, 1, "balanced", us / 1e3],
        )
        yield f"TensorRT-LLM MoE module TP8, {row['num_tokens']} tokens", row["source"], us, found.get("all")


# Published figures that one step answers: hardware of the row -> profile. What the rest lacks is said beside it.
MACHINES = {"H800 x8 node": "h100-sxm", "H100 x8 node": "h100-sxm", "H100/H800 x8 node": "h100-sxm"}
UNANSWERED = (
    ("cpu experts", lambda r: r["parallelism"] == "CPU experts", "experts in host memory beside a GPU"),
    ("training", lambda r: r["phase"] == "train", "a training run of an unpublished model"),
    ("two figures", lambda r: "/" in r["value"] or "x" in r["value"], "two figures, or a ratio, of several runs"),
    ("layer", lambda r: r["unit"] == "us/layer", "one dispatch in a trace: see moecast validate collectives"),
)


def experts_of(ranks):
    """Copies that make 256 experts a multiple of the ranks, 32 as DeepSeek and SGLang state where they divide."""
    return 32 if (256 + 32) % ranks == 0 else (-256) % ranks


def step_of(row):
    """Seconds of a published step and the question about it, or a reason why there is none."""
    for _, holds, why in UNANSWERED:
        if holds(row):
            return None, why
    machine = MACHINES.get(row["hardware"])
    ranks = row["parallelism"].removeprefix("EP")
    if machine is None or not ranks.isdigit() or not row["derived_step_ms"] or not row["context_len"]:
        return None, "ranks, batch or length of the run are not stated"
    if "MTP" in row["system"]:
        return None, "a step with multi-token prediction"
    ranks = int(ranks)
    context, each = int(row["context_len"]), int(row["batch_per_gpu"])
    flags = ["--model", "deepseek-v3", "--hw", machine, "--backend", "sglang", "--dp", ranks, "--ep", ranks]
    flags += ["--redundant-experts", experts_of(ranks)]
    if "profile-data" in row["system"] or "perfect" in row["system"]:
        flags += ["--load", "uniform"]  # both state a balanced router
    if row["phase"] == "prefill":
        flags += ["--phase", "prefill", "--batch", ranks * max(1, each // context), "--prompt", context]
    else:
        flags += ["--batch", ranks * each, "--context", context]
    return float(row["derived_step_ms"]) / 1e3, flags


def end_to_end(data):
    for row in rows(data / "published/end_to_end_published.csv"):
        label = f"{row['model']} {row['system']}, {row['hardware']}, {row['parallelism']} {row['phase']}"
        shown = f"{row['value']} {row['unit']}"
        seconds, asked = step_of(row)
        if seconds is None:
            yield label, row["source"], shown, asked
            continue
        done = subprocess.run(
            [MOECAST, "predict", *map(str, asked), "--format", "json"], capture_output=True, text=True
        )
        if done.returncode != 0:
            yield label, row["source"], shown, done.stderr.strip().split("\n")[0]
            continue
        answer = json.loads(done.stdout)
        if answer["latency_s"] is None:
            yield label, row["source"], f"{1e3 * seconds:.0f} ms a step", answer["reason"]
            continue
        off = answer["latency_s"] / seconds - 1
        inside = "in" if answer["latency_low_s"] <= seconds <= answer["latency_high_s"] else "outside"
        result = f"{1e3 * answer['latency_s']:.0f} ms, {100 * off:+.0f} %, {inside}"
        yield label, row["source"], f"{1e3 * seconds:.0f} ms a step ({shown})", result


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    data = Path(sys.argv[1])
    print("| figure | source | published | predicted | error |\n|---|---|---|---|---|")
    for maker in (deepep, deepgemm, trtllm):
        for label, source, us, stratum in maker(data):
            if stratum is None:
                print(f"| {label} | {source[:60]} | {us:.1f} us | - | nothing calibrated |")
                continue
            off = stratum["bias_ratio"]
            inside = "in" if stratum["coverage_90_ratio"] > 0.5 else "outside"
            print(f"| {label} | {source[:60]} | {us:.1f} us | {us * (1 + off):.1f} us | {100 * off:+.0f} %, {inside} |")
    print("\n| whole steps | source | published | predicted, error, inside the interval; or why there is none |")
    print("|---|---|---|---|")
    for label, source, shown, result in end_to_end(data):
        print(f"| {label} | {source[:60]} | {shown} | {result} |")


if __name__ == "__main__":
    main()
