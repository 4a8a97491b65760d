#!/usr/bin/env python3
"""Writes the profiles of GPUs in hwprofiles/ from a datasheet table and published tables of measured kernels.

usage: tools/dev/make_gpu_profiles.py MOECAST MEASUREMENTS [--out FOLDER] [--only NAME] [--no-calibration]
  MOECAST       the program; its importer and its calibration do the work
  MEASUREMENTS  folder with zoo/hardware_datasheet.csv, kernels/<system>/*.csv.gz and comm/<system>/*.csv.gz
"""

import argparse
import csv
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# profile: (row of the datasheet table, folder of its kernel tables or None)
MACHINES = {
    "a100-sxm": ("A100-SXM4-80GB", "a100_sxm"),
    "h100-sxm": ("H100-SXM5-80GB", "h100_sxm"),
    "h200-sxm": ("H200-SXM-141GB", "h200_sxm"),
    "b200-sxm": ("B200-SXM-180GB", "b200_sxm"),
    "b300-sxm": ("B300-SXM", "b300_sxm"),
    "l40s": ("L40S-48GB", "l40s"),
    "rtx-pro-6000": ("RTX-PRO-6000-Blackwell-Server", "rtx_pro_6000"),
    "gb200": ("GB200 (per GPU)", "gb200"),
}
# Machines of the same generation: what was never measured here is taken from there, on this datasheet.
SISTERS = {"b300-sxm": "b200-sxm", "gb200": "b200-sxm"}
# Tables of no kernel of ours, and one that holds the numbers of another library.
LEFT_OUT = ("_mlp.", "megamoe", "custom_allreduce.sglang-0.5.6.post2")
# Values that a datasheet row lacks, and where they are taken from.
ASSUMED = {
    "b300-sxm": {
        "multiprocessors": (148, "1", "as B200: the datasheet table has none"),
        "l2_cache": (126e6, "B", "as B200: the datasheet table has none"),
    },
}
# What other datasheets say of a machine: value, unit, source.
MORE_DATASHEETS = {
    "gb200": {"scaleup_devices": (72, "1", "NVIDIA GB200 NVL72 datasheet: one NVLink domain of 72 GPUs")},
}
# column of the table: (quantity, unit, factor to SI)
COLUMNS = {
    "mem_bw_tbps": ("memory_bandwidth", "B/s", 1e12),
    "mem_gb": ("memory_capacity", "B", 1e9),
    "bf16_tflops_dense": ("peak_bf16", "FLOP/s", 1e12),
    "fp8_tflops_dense": ("peak_fp8", "FLOP/s", 1e12),
    "fp4_tflops_dense": ("peak_fp4", "FLOP/s", 1e12),
    "l2_or_llc_mb": ("l2_cache", "B", 1e6),
    "sm_or_cu_or_core_count": ("multiprocessors", "1", 1),
    "boost_clock_mhz": ("boost_clock", "Hz", 1e6),
    "scaleup_gbps_per_dir": ("scaleup_bandwidth_per_direction", "B/s", 1e9),
    "pcie_gbps_per_dir": ("host_bandwidth_per_direction", "B/s", 1e9),
    "typical_nic_gbps_per_gpu": ("scaleout_bandwidth_per_direction", "B/s", 1e9),
    "tdp_w": ("power_limit", "W", 1),
}
LICENCE = "kernel tables: ai-dynamo/aiconfigurator, Apache-2.0"
OTHER_LICENCE = {"rtx_pro_6000": "activated-experts table: casys-kaist/LLMServingSim, MIT",
                 "gb200": "one-sided NVLink table: NVIDIA/TensorRT-LLM tech blog 18, Apache-2.0; no other kernel "
                          "was measured"}
DEFECTS = [
    "rows of hidden 7168, inter 2048, 256 experts went through expert groups in vLLM and SGLang: fitted with that load",
    "expert weights were constants, so compute-bound rows ran at low switching power: up to 15 % optimistic",
    "weight sets smaller than the last-level cache are read from it: repeated calls, no flush between",
]
COMMUNICATION_DEFECTS = {
    "h100-sxm": ["DeepEP normal mode on 2 nodes with 12 multiprocessors is 1.8 times slower than with 16"],
    "b200-sxm": ["eager custom all-reduce: whole curves wait twice as long for the host"],
}
MORE_DEFECTS = {
    "h100-sxm": ["vLLM 0.24.0 fp8_block GEMM rows are host-bound at small sizes",
                 "TensorRT-LLM bf16 and fp8: 9 % of the rows are untuned, 3 to 10 times slow, mostly whole curves"],
    "h200-sxm": ["vLLM 0.24.0 fp8_block GEMM rows are host-bound at small sizes",
                 "TensorRT-LLM bf16 and fp8: 9 % of the rows are untuned, 3 to 10 times slow, mostly whole curves"],
    "b200-sxm": ["vLLM 0.24.0 fp8_block GEMM rows are host-bound at small sizes"],
    "l40s": ["vLLM 0.24.0 fp8_block GEMM rows are host-bound at small sizes"],
}


def datasheet(path: Path) -> dict:
    with path.open(newline="") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def profile_of(name: str, row: dict, folder: str | None) -> dict:
    quantities = {}
    for column, (quantity, unit, factor) in COLUMNS.items():
        if row[column]:
            quantities[quantity] = {
                "value": float(row[column]) * factor,
                "unit": unit,
                "origin": "datasheet",
                "source": f"{row['source']} (confidence: {row['confidence']})",
            }
    for quantity, (value, unit, source) in ASSUMED.get(name, {}).items():
        if quantity not in quantities:
            quantities[quantity] = {"value": value, "unit": unit, "origin": "assumed", "source": source}
    for quantity, (value, unit, source) in MORE_DATASHEETS.get(name, {}).items():
        quantities[quantity] = {"value": value, "unit": unit, "origin": "datasheet", "source": source}
    notes = ["no kernel of this machine was measured"]
    if name in SISTERS:
        notes.append(f"kernels that were not measured here are those of {SISTERS[name]}, scaled by the datasheets")
    if folder:
        notes[0] = OTHER_LICENCE.get(folder, LICENCE)
        if folder not in OTHER_LICENCE:
            notes += DEFECTS + MORE_DEFECTS.get(name, []) + COMMUNICATION_DEFECTS.get(name, [])
    profile = {
        "schema_version": 1,
        "name": name,
        "device": "gpu",
        "quantities": dict(sorted(quantities.items())),
        "environment": {"architecture": row["arch"], "vendor": row["vendor"]},
        "backends": [],
        "notes": notes,
    }
    if name in SISTERS:
        profile["sister"] = SISTERS[name]
    return profile


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("moecast")
    parser.add_argument("measurements", type=Path)
    parser.add_argument("--out", type=Path, default=ROOT / "hwprofiles")
    parser.add_argument("--only", default="")
    parser.add_argument("--no-calibration", action="store_true")
    arguments = parser.parse_args()
    sheet = datasheet(arguments.measurements / "zoo" / "hardware_datasheet.csv")
    for name, (row, folder) in MACHINES.items():
        if arguments.only and arguments.only != name:
            continue
        target = arguments.out / name
        target.mkdir(parents=True, exist_ok=True)
        for old in (target / "samples").glob("*.*.csv.gz"):
            old.unlink()
        text = json.dumps(profile_of(name, sheet[row], folder), indent=2) + "\n"
        (target / "profile.json").write_text(text)
        calibrate = [arguments.moecast, "calibrate", str(target)]
        if name in SISTERS:
            calibrate += ["--sister", str(arguments.out / SISTERS[name])]
        tables = []
        for kind in ("kernels", "comm"):
            if folder:
                tables += sorted(map(str, (arguments.measurements / kind / folder).glob("*.csv*")))
        tables = [t for t in tables if not any(part in t for part in LEFT_OUT)]
        if not tables:
            if name in SISTERS and not arguments.no_calibration:
                subprocess.run(calibrate, check=True)
            continue
        command = [arguments.moecast, "import", "table", *tables, "--system", name, "--out", str(target)]
        subprocess.run(command, check=True)
        if not arguments.no_calibration:
            subprocess.run(calibrate, check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
