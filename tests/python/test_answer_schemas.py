"""What `moecast routing` and `moecast exchange` print against the schemas that document it."""

import json
import os
import subprocess
from pathlib import Path

import jsonschema
import pytest

ROOT = Path(__file__).resolve().parents[2]
MOECAST = Path(os.environ.get("MOECAST", ROOT / "build/release/moecast"))

LAYER = ["routing", "--experts", "16", "--top-k", "2", "--tokens", "512", "--ranks", "4", "--load", "zipf:1"]
SIZES = ["--hidden", "1024", "--width", "512"]
WIRES = ["exchange", "--cluster", "h100-hgx-rail", "--ranks", "16", "--bytes", "16MB"]
CASES = {
    "expected": LAYER,
    "bytes": LAYER + SIZES + ["--dispatch-dtype", "fp8_block", "--deduplicate", "node"],
    "capacity": LAYER + SIZES + ["--capacity-factor", "1.25", "--pad", "--samples", "3"],
    "dynamic_k": LAYER + ["--top-k-distribution", "0.2,0.3,0.5", "--samples", "3"],
    "blocks": LAYER + ["--row-block", "128", "--samples", "3"],
    "balanced": LAYER + SIZES + ["--placement", "balanced", "--link", "50GB/s"],
    "steps": LAYER + ["--steps", "4", "--capacity-schedule", "2x2,1.25", "--overflow", "queue", "--samples", "1"],
    "moves": LAYER + SIZES + ["--steps", "4", "--rebalance", "1", "--link", "50GB/s", "--drift", "0.5"],
    "algorithms": WIRES,
    "one": WIRES + ["--exchange", "ring", "--background", "0.2"],
    "reduce": WIRES + ["--operation", "all-reduce"],
    "alone": ["exchange", "--cluster", "h100-hgx-rail", "--ranks", "1", "--bytes", "1MB"],
}


@pytest.mark.parametrize("name", CASES)
def test_answers_are_as_documented(name):
    if not MOECAST.exists():
        pytest.skip(f"{MOECAST} is not built")
    command = CASES[name]
    said = subprocess.run([MOECAST, *command, "--format", "json"], check=True, capture_output=True, text=True).stdout
    schema = json.loads((ROOT / f"docs/schemas/{command[0]}.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(json.loads(said))
