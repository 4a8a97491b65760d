"""Layers that are executed over MPI ranks: every result is compared with the layer computed on one rank."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(os.environ.get("MOECAST_MPI", ROOT / "build/release/moecast-mpi"))
needs_mpi = pytest.mark.skipif(
    shutil.which("mpirun") is None or not PROGRAM.exists(), reason="no mpirun, or moecast-mpi was not built"
)
LAYER = {"tokens": 24, "hidden": 64, "width": 96, "experts": 8, "top_k": 3, "gated": True, "zipf": 1.2, "seed": 7}


def execute(tmp_path, ranks, layers):
    plan = {"ranks": ranks, "repeats": 2, "points": [{"kind": "moe_layer", "layer": layer} for layer in layers]}
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    done = subprocess.run(
        ["mpirun", "--allow-run-as-root", "--oversubscribe", "-n", str(ranks), PROGRAM, tmp_path / "plan.json",
         tmp_path / "results.json"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads((tmp_path / "results.json").read_text())["points"]


@needs_mpi
def test_experts_attention_and_shared_widths_equal_the_layer_on_one_rank(tmp_path):
    """The program stops with an error where a token's result differs by more than a thousandth."""
    layers = [
        LAYER,
        {**LAYER, "heads": 8},  # attention of each rank's own tokens
        {**LAYER, "tp": 2},  # two ranks share an expert's width
        {**LAYER, "tp": 2, "heads": 4, "gated": False},
        {**LAYER, "tp": 4, "zipf": 0, "top_k": 8},
    ]
    points = execute(tmp_path, 4, layers)
    assert len(points) == len(layers)
    for layer, point in zip(layers, points):
        assert len(point["seconds"]) == 2
        assert set(point["phases"]) == {"attention", "route", "dispatch", "experts", "combine"}
        assert (point["phases"]["attention"] > 0) == (layer.get("heads", 0) > 0)


@needs_mpi
def test_one_rank_and_eight(tmp_path):
    for ranks in (1, 8):
        (point,) = execute(tmp_path, ranks, [{**LAYER, "heads": 2}])
        assert min(point["seconds"]) > 0
