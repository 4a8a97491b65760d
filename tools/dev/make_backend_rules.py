#!/usr/bin/env python3
"""Writes hwprofiles/<machine>/backends/<framework>.json: which kernel a framework picks, counted in a profile's tables.

usage: tools/dev/make_backend_rules.py [--out FOLDER] [--tiles WHEEL...]
  FOLDER  of profiles; default hwprofiles/
  WHEEL   sglang-VERSION-*.whl or vllm-VERSION-*.whl, whose names of configurations say which (experts, width) are
          tuned; left out: the lists stay as they are

The conditions are written here by hand; how many measured rows each decides, and how many of them name its kernel, is
counted in hwprofiles/<machine>/samples. An operator and format of which a table records one kernel gets a rule of its
own.
"""

import argparse
import csv
import gzip
import json
import re
import sys
import zipfile
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OPERATORS = ("moe", "gemm", "context_attention", "generation_attention", "context_mla", "generation_mla", "mla_bmm")
POSITIONS = {"num_tokens", "m", "batch_size", "isl", "step"}
HOPPER = ("h100-sxm", "h200-sxm")
BLACKWELL = ("b200-sxm", "b300-sxm")
# Below so many shapes of experts a table says little of others.
FEW_SHAPES = 3
SHAPE = ("hidden_size", "inter_size", "topk", "num_experts")
ROUTER = (
    "other shapes: the model's router or activation decides, which no column says; a shape like the tables' is assumed"
)
VLLM = (
    "vllm_unquantizedfusedmoe_flashinfer_",
    "vllm_modeloptfp8moe_flashinfer_",
    "vllm_fp8moe_flashinfer_trtllm_trtllmfp8experts",
)
NVFP4 = "vllm_compressedtensorsw4a4nvfp4moe_flashinfer_trtllm_trtllmnvfp4experts"
GEMMA = [(2816, 704, 8, 128)]
NEMOTRON = [(2048, 5120, 22, 512), (8192, 5120, 22, 512)]


def shapes(*known) -> list:
    return [dict(zip(SHAPE, shape)) for shape in known]


def rule(operator, formats, kernel, when=None, origin="measured", note="") -> dict:
    formats = [formats] if isinstance(formats, str) else formats
    made = {"operator": operator, "formats": formats}
    if when:
        made["when"] = when
    made["kernel" if isinstance(kernel, str) else "fastest_of"] = kernel
    return {**made, "origin": origin, "note": note}


FA = ["bfloat16+bfloat16"]
FP8_KV = ["bfloat16+fp8"]
HEAD_192 = [{"head_dim": 192}]
ALIGNED = [{"n": {"multiple_of": 64}, "k": {"multiple_of": 128}}]
DEEP_GEMM = "DeepGEMM takes widths that are multiples of 64 (n) and 128 (k)"
SGLANG_MIXED = (
    "the model's family decides (by its name in SGLang), which no column says; the kernel of most shapes is assumed"
)
# (machines, framework): rules in order; the first that holds counts.
RULES = {
    (HOPPER, "vllm"): [
        rule(
            "moe",
            "fp8_block",
            "vllm_fp8moe_triton_tritonexperts",
            [{"moe_ep_size": 1}],
            note="Triton on one expert-parallel rank",
        ),
        rule(
            "moe",
            "fp8_block",
            "vllm_fp8moe_flashinfer_cutlass_flashinferexperts",
            note="CUTLASS of FlashInfer over several expert-parallel ranks",
        ),
        rule(
            "gemm",
            "fp8_block",
            "FlashInferFp8BlockScaledMMKernel",
            [{**ALIGNED[0], "m": {"to": 31}}],
            note=DEEP_GEMM + "; FlashInfer below 32 rows (tables: up to 16, and from 32 on DeepGEMM)",
        ),
        rule("gemm", "fp8_block", "DeepGemmFp8BlockScaledMMKernel", ALIGNED, note=DEEP_GEMM),
        rule("gemm", "fp8_block", "CutlassFp8BlockScaledMMKernel", note=DEEP_GEMM + "; CUTLASS the rest"),
        rule(
            "context_attention",
            FA,
            "vllm_flash_attn_fa4",
            [{"head_dim": {"from": 257}}],
            note="FlashAttention 3 ends at a head size of 256",
        ),
        rule("context_attention", FA, "vllm_flash_attn_fa3", note="FlashAttention 3 up to a head size of 256"),
        rule(
            "generation_attention",
            FA,
            "vllm_flash_attn_fa4",
            [{"head_dim": {"from": 257}}],
            note="FlashAttention 3 ends at a head size of 256",
        ),
        rule("generation_attention", FA, "vllm_flash_attn_fa3", note="FlashAttention 3 up to a head size of 256"),
    ],
    (BLACKWELL, "vllm"): [
        rule("moe", "bfloat16", VLLM[0] + "cutlass_flashinferexperts", shapes(*GEMMA)),
        rule("moe", "bfloat16", VLLM[0] + "trtllm_trtllmbf16experts", origin="assumed", note=ROUTER),
        rule("moe", "fp8", VLLM[1] + "cutlass_flashinferexperts", shapes(*GEMMA)),
        rule("moe", "fp8", VLLM[1] + "trtllm_trtllmfp8expertsmonolithic", origin="assumed", note=ROUTER),
        rule(
            "moe",
            "fp8_block",
            VLLM[2] + "modular",
            shapes((4096, 2048, 6, 256), (7168, 3072, 6, 384), (5120, 8192, 1, 16), (5120, 8192, 1, 128)),
        ),
        rule("moe", "fp8_block", VLLM[2] + "monolithic", origin="assumed", note=ROUTER),
        rule("moe", "nvfp4", NVFP4 + "modular", shapes(*GEMMA)),
        rule("moe", "nvfp4", NVFP4 + "monolithic", origin="assumed", note=ROUTER),
        rule("gemm", "fp8_block", "DeepGemmFp8BlockScaledMMKernel", ALIGNED, note=DEEP_GEMM),
        rule("gemm", "fp8_block", "CutlassFp8BlockScaledMMKernel", note=DEEP_GEMM + "; CUTLASS the rest"),
        rule("context_attention", FP8_KV, "vllm_triton_attn", HEAD_192, note="no kernel of TensorRT-LLM has this size"),
        rule(
            "context_attention",
            FA + FP8_KV,
            "vllm_flashinfer_trtllmdecode",
            [{"isl": 1}],
            note="a prompt of one token is a decode",
        ),
        rule("context_attention", FA + FP8_KV, "vllm_flashinfer_trtllmprefill"),
        rule(
            "generation_attention", FP8_KV, "vllm_triton_attn", HEAD_192, note="no kernel of TensorRT-LLM has this size"
        ),
        rule("generation_attention", FA + FP8_KV, "vllm_flashinfer_trtllmdecode"),
    ],
    (("l40s",), "vllm"): [
        rule("context_attention", FP8_KV, "vllm_triton_attn", HEAD_192, note="no kernel of FlashInfer has this size"),
        rule(
            "context_attention",
            FP8_KV,
            "vllm_flashinfer_fidecode",
            [{"isl": 1}],
            note="a prompt of one token is a decode",
        ),
        rule("context_attention", FP8_KV, "vllm_flashinfer_fiprefill"),
        rule(
            "generation_attention", FP8_KV, "vllm_triton_attn", HEAD_192, note="no kernel of FlashInfer has this size"
        ),
        rule("generation_attention", FP8_KV, "vllm_flashinfer_fidecode"),
    ],
    (HOPPER, "sglang"): [
        rule("moe", "bfloat16", "sglang_flashinfer_cutlass_moe", shapes(*NEMOTRON)),
        rule("moe", "bfloat16", "sglang_fused_moe_triton", origin="assumed", note=ROUTER),
    ],
    (("b200-sxm",), "sglang"): [
        rule(
            "moe",
            "fp8_block",
            "sglang_fused_moe_triton",
            shapes(
                (3072, 1536, 8, 256),
                (4096, 2048, 6, 256),
                (4096, 2048, 8, 256),
                (4096, 14336, 2, 8),
                (6144, 16384, 2, 8),
                (7168, 3072, 6, 384),
            ),
        ),
        rule("moe", "fp8_block", "sglang_flashinfer_trtllm_moe", origin="assumed", note=SGLANG_MIXED),
        rule(
            "moe",
            "bfloat16",
            "sglang_fused_moe_triton",
            shapes(
                (2816, 704, 8, 128),
                (4096, 2048, 8, 256),
                (4096, 14336, 2, 8),
                (5120, 8192, 1, 16),
                (5120, 8192, 1, 128),
                (6144, 16384, 2, 8),
            ),
        ),
        rule("moe", "bfloat16", "sglang_flashinfer_trtllm_moe", origin="assumed", note=SGLANG_MIXED),
        rule("moe", "w4a8_mxfp4_mxfp8", "sglang_flashinfer_trtllm_moe", shapes((2880, 2880, 4, 32))),
        rule("moe", "w4a8_mxfp4_mxfp8", "sglang_mxfp4_flashinfer_trtllm_moe", origin="assumed", note=SGLANG_MIXED),
    ],
    (HOPPER, "trtllm"): [
        rule(
            "moe",
            ["bfloat16", "fp8"],
            "moe_torch_flow_nongated",
            [{"expert_matrices": 2}],
            note="experts of two matrices",
        ),
        rule("moe", ["bfloat16", "fp8"], "moe_torch_flow_cutlass", note="gated experts"),
    ],
    (("b200-sxm",), "trtllm"): [
        rule(
            "moe",
            ["bfloat16", "fp8", "nvfp4"],
            "moe_torch_flow_nongated",
            [{"expert_matrices": 2}],
            note="experts of two matrices",
        ),
        rule("moe", ["bfloat16", "fp8"], "moe_torch_flow_cutlass", note="gated experts"),
        rule(
            "moe",
            "nvfp4",
            ["moe_torch_flow_cutlass", "moe_torch_flow_min_latency"],
            origin="assumed",
            note="the table times both for the same rows and records no choice; that the faster one runs is assumed",
        ),
    ],
}
# GPUs as frameworks name them in their configurations of tiles.
DEVICES = {
    "a100-sxm": "NVIDIA_A100-SXM4-80GB",
    "h100-sxm": "NVIDIA_H100_80GB_HBM3",
    "h200-sxm": "NVIDIA_H200",
    "b200-sxm": "NVIDIA_B200",
}
BLOCKS = ",dtype=fp8_w8a8,block_shape=[128,128]"
# (machine or None for all, framework): its kernel, and for each of its names of formats: ours, whether default tiles
# are small for few tokens (get_default_config). vLLM 0.24's default tiles are as fast as its tuned ones.
TUNED = {
    (None, "sglang"): ("sglang_fused_moe_triton", {"": ("bfloat16", True), BLOCKS: ("fp8_block", False)}),
    ("a100-sxm", "vllm"): ("vllm_fused_moe", {"": ("bfloat16", True)}),
}
# Machines without tables: the rules of another, none of whose choices was seen here.
AS = {"gb200": "b200-sxm"}


def tables(folder: Path, framework: str) -> dict:
    """(operator, format) -> [(kernel, row of numbers, measured positions)], and the tables' names."""
    found = defaultdict(list)
    for path in sorted((folder / "samples").glob(f"*.{framework}-*.csv.gz")):
        operator, version = path.name.removesuffix(".csv.gz").split(".", 1)
        if operator not in OPERATORS:
            continue
        with gzip.open(path, "rt", newline="") as file:
            for curve in csv.DictReader(file):
                names = [n for n in curve if n not in ("kernel", "dtype", "ln_latency_steps")]
                varied = [n for n in names if n in POSITIONS]
                fixed = {n: float(curve[n]) for n in names if n not in POSITIONS}
                for values in zip(*(curve[n].split(" ") for n in varied)):
                    row = {**fixed, **{n: float(v) for n, v in zip(varied, values)}}
                    found[operator, curve["dtype"]].append((curve["kernel"], row, f"{operator}.{version}"))
    return found


def fits(condition, value: float) -> bool:
    if not isinstance(condition, dict):
        return value == condition
    return (
        condition.get("from", value) <= value <= condition.get("to", value)
        and ("multiple_of" not in condition or value % condition["multiple_of"] == 0)
        and ("not_multiple_of" not in condition or value % condition["not_multiple_of"] != 0)
    )


def holds(made: dict, row: dict) -> bool:
    cases = made.get("when", [{}])
    return any(all(fits(condition, row[name]) for name, condition in case.items()) for case in cases)


def single_rules(found: dict, known: list) -> list:
    """Operators and formats that no rule is written for: the one kernel that the tables record."""
    made = []
    for (operator, format_), rows in found.items():
        if any(r["operator"] == operator and format_ in r["formats"] for r in known):
            continue
        kernels = {kernel for kernel, _, _ in rows}
        if len(kernels) > 1:
            raise SystemExit(f"{operator} {format_}: {sorted(kernels)}: write a rule")
        note = "the only kernel that the table records"
        origin = "measured"
        if operator == "moe" and len({tuple(row[name] for name in SHAPE) for _, row, _ in rows}) < FEW_SHAPES:
            note, origin = f"{note}, of fewer than {FEW_SHAPES} shapes; that others run it too is assumed", "assumed"
        made.append(rule(operator, format_, kernels.pop(), origin=origin, note=note))
    return made


def counted(rules: list, found: dict) -> list:
    written = []
    rows, agree, seen = [0] * len(rules), [0] * len(rules), [set() for _ in rules]
    for (operator, format_), measured in found.items():
        candidates = [i for i, r in enumerate(rules) if r["operator"] == operator and format_ in r["formats"]]
        for kernel, row, table in measured:
            first = next((i for i in candidates if holds(rules[i], row)), None)
            if first is None:
                continue
            rows[first] += 1
            agree[first] += kernel in (rules[first].get("fastest_of") or [rules[first]["kernel"]])
            seen[first].add(table)
    for made, decided, right, where in zip(rules, rows, agree, seen):
        note = made.pop("note")
        if decided == 0:
            continue
        source = ", ".join(sorted(where)) + (": " + note if note else "")
        written.append({**made, "rows": decided, "agree": right, "source": source})
    return sorted(written, key=lambda r: OPERATORS.index(r["operator"]))


def tuned_tiles(wheel: Path, machine: str) -> list:
    """(experts, width) of one rank that a framework's Triton kernel has tiles for, whatever the version of Triton."""
    framework, version = wheel.name.split("-")[:2]
    known = TUNED.get((machine, framework)) or TUNED.get((None, framework))
    if not known or machine not in DEVICES:
        return []
    kernel, formats = known
    pattern = re.compile(r"fused_moe/configs/E=(\d+),N=(\d+),device_name=([^,]*?)((?:,.*)?)\.json$")
    pairs = defaultdict(set)
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            name = re.sub(r"triton_utils/configs/triton_[^/]*/", "fused_moe/configs/", name)
            found = pattern.search(name)
            named = found[4].replace(" ", "") if found else None
            if found and found[3] == DEVICES[machine] and named in formats:
                pairs[named].add((int(found[1]), int(found[2])))
    return [
        {
            "operator": "moe",
            "kernel": kernel,
            "formats": [formats[named][0]],
            "small_default": formats[named][1],
            "pairs": sorted(map(list, found)),
            "source": f"names of the tile configurations that {framework} {version} ships for {DEVICES[machine]}",
        }
        for named, found in sorted(pairs.items())
    ]


def write(out: Path, machine: str, framework: str, rules: list, wheels: list) -> None:
    path = out / machine / "backends" / f"{framework}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    tuned = json.loads(path.read_text()).get("tuned", []) if path.exists() else []
    for wheel in wheels:
        if wheel.name.startswith(framework + "-"):
            tuned = tuned_tiles(wheel, machine)
    document = {"schema_version": 1, "framework": framework, "rules": rules, **({"tuned": tuned} if tuned else {})}
    text = json.dumps(document, indent=2)
    text = re.sub(r"\[\s+(\d+),\s+(\d+)\s+\]", r"[\1, \2]", text)  # a pair a line
    path.write_text(text + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "hwprofiles")
    parser.add_argument("--tiles", type=Path, nargs="*", default=[], metavar="WHEEL")
    arguments = parser.parse_args()
    out = arguments.out
    for machine in ("a100-sxm", "l40s", *HOPPER, *BLACKWELL):
        for framework in ("sglang", "trtllm", "vllm"):
            found = tables(ROOT / "hwprofiles" / machine, framework)
            if not found:
                continue
            by_hand = [
                r for (machines, f), rules in RULES.items() if machine in machines and f == framework for r in rules
            ]
            rules = [dict(r) for r in by_hand] + single_rules(found, by_hand)
            written = counted(rules, found)
            write(out, machine, framework, written, arguments.tiles)
            for heir, like in AS.items():
                if like == machine:
                    guesses = [
                        {**r, "origin": "assumed", "rows": 0, "agree": 0, "source": f"as {like}: {r['source']}"}
                        for r in written
                    ]
                    write(out, heir, framework, guesses, arguments.tiles)
    return 0


if __name__ == "__main__":
    sys.exit(main())
