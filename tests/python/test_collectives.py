"""What the laws of communication reach on published tables, a whole rank or node count left out."""

import json
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMM = ROOT.parent / "shared" / "measurements" / "comm"
needs_tables = pytest.mark.skipif(not COMM.exists(), reason=f"no {COMM}")


def moecast() -> Path:
    for preset in ("dev", "release"):
        program = ROOT / "build" / preset / "moecast"
        if program.exists():
            return program
    pytest.skip("moecast is not built")


def strata(system: str, pattern: str, leave_out: str, sister: str = "") -> dict:
    folder = COMM / f"{system}_sxm" if system != "gb200" else COMM / system
    tables = [str(t) for t in sorted(folder.glob(pattern)) if "sglang-0.5.6.post2" not in t.name or "wideep" in t.name]
    tables = [t for t in tables if "nccl-2.23" not in t]
    name = system if system == "gb200" else f"{system}-sxm"
    command = [str(moecast()), "validate", "collectives", "--hw", name, "--leave-out", leave_out, "--format", "json"]
    command += ["--sister", f"{sister}-sxm"] if sister else []
    result = subprocess.run([*command, "--table", *tables], check=True, capture_output=True, text=True, timeout=300)
    return {stratum["name"]: stratum for stratum in json.loads(result.stdout)["strata"]}


def reaches(stratum: dict, median: float, p90: float) -> None:
    assert stratum["median_ape"] <= median, stratum
    assert stratum["p90_ape"] <= p90, stratum


SISTERS = [("h100", "h200"), ("h200", "h100"), ("b200", "b300"), ("b300", "b200")]


@needs_tables
@pytest.mark.parametrize(("system", "sister"), SISTERS)
def test_nccl_at_a_rank_count_that_was_not_measured(system, sister):
    found = strata(system, "nccl.*", "ranks", sister)
    reaches(found["ranks 4"], 0.028, 0.12)
    reaches(found["ranks 8"], 0.08, 0.21)
    assert 0.86 <= found["all"]["coverage_90_ratio"] <= 0.94
    assert min(found[f"ranks {ranks}"]["coverage_90_ratio"] for ranks in (2, 4, 8)) >= 0.84
    assert found["all"]["median_ape"] < found["all"]["baselines"]["nearest"] / 3


@needs_tables
@pytest.mark.parametrize(("system", "sister"), SISTERS)
def test_custom_all_reduce_at_a_rank_count_that_was_not_measured(system, sister):
    """p90 at 4 ranks is not held to 10 %: the eager curves of some machines waited twice as long for their host."""
    found = strata(system, "custom_allreduce.*", "ranks", sister)
    assert found["ranks 4"]["median_ape"] <= 0.036
    assert found["ranks 8"]["median_ape"] <= 0.076
    assert 0.84 <= found["all"]["coverage_90_ratio"] <= 0.94


@needs_tables
@pytest.mark.parametrize("system", ["h100", "h200", "b200", "b300"])
def test_dispatch_and_combine_of_a_shape_that_was_not_measured(system):
    low = strata(system, "wideep_deepep_ll.sglang-0.5.12*", "shape")
    reaches(low["all"], 0.04, 0.10)
    normal = strata(system, "wideep_deepep_normal.sglang-0.5.12*", "shape")
    reaches(normal["all"], 0.035, 0.09)
    assert 0.84 <= normal["all"]["coverage_90_ratio"] <= 0.94


@needs_tables
def test_four_nodes_from_one_and_two():
    low = strata("h100", "wideep_deepep_ll.sglang-0.5.6*", "nodes")
    reaches(low["nodes 4"], 0.073, 0.13)
    normal = strata("h100", "wideep_deepep_normal.sglang-0.5.6*", "nodes")
    for kernel in ("deepep/dispatch", "deepep/combine"):
        reaches(normal[f"nodes 4 {kernel}"], 0.10, 0.22)


@needs_tables
def test_one_sided_transfers_at_a_rank_count_that_was_not_measured():
    found = strata("gb200", "nvlink_one_sided.*", "ranks")
    for ranks in (8, 16, 32):
        assert found[f"ranks {ranks}"]["median_ape"] <= 0.036
