"""The script that makes the shipped profiles of GPUs, on a part of its input."""

import csv
import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MEASUREMENTS = ROOT.parent / "shared" / "measurements"


def moecast() -> Path:
    for preset in ("dev", "release"):
        program = ROOT / "build" / preset / "moecast"
        if program.exists():
            return program
    pytest.skip("moecast is not built")


@pytest.mark.skipif(not MEASUREMENTS.exists(), reason=f"no {MEASUREMENTS}")
def test_a_part_of_the_tables_becomes_a_profile(tmp_path):
    """One kernel of one machine: the same script, the same commands, a calibration at the end."""
    part = tmp_path / "measurements"
    (part / "zoo").mkdir(parents=True)
    (part / "kernels" / "a100_sxm").mkdir(parents=True)
    sheet = "hardware_datasheet.csv"
    (part / "zoo" / sheet).write_bytes((MEASUREMENTS / "zoo" / sheet).read_bytes())
    source = MEASUREMENTS / "kernels" / "a100_sxm" / "moe.vllm-0.14.0.csv.gz"
    with gzip.open(source, "rt", newline="") as file:
        rows = list(csv.reader(file))
    with gzip.open(part / "kernels" / "a100_sxm" / source.name, "wt", newline="") as file:
        csv.writer(file).writerows(rows[:1] + rows[1::3])
    script = ROOT / "tools" / "dev" / "make_gpu_profiles.py"
    out = tmp_path / "out"
    command = [sys.executable, script, moecast(), part, "--only", "a100-sxm", "--out", out]
    subprocess.run([str(word) for word in command], check=True, capture_output=True, timeout=300)
    profile = json.loads((out / "a100-sxm" / "profile.json").read_text())
    assert profile["quantities"]["memory_bandwidth"]["value"] == pytest.approx(2.039e12)
    assert (out / "a100-sxm" / "samples" / source.name).exists()
    assert (out / "a100-sxm" / "kernels.bin").read_bytes().startswith(b'{"schema_version":5')
    shipped = json.loads((ROOT / "hwprofiles" / "a100-sxm" / "profile.json").read_text())
    assert shipped == profile
