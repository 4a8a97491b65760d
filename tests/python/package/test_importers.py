"""Parquet tables of aiconfigurator-core's columns."""

import json
import pathlib

import moecast
import pytest
from moecast.importers import aiconfigurator

pytest.importorskip("pyarrow")


def write(folder, name, columns):
    import pyarrow
    import pyarrow.parquet

    folder.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.table(columns), folder / f"{name}_perf.parquet")


@pytest.fixture
def tables(tmp_path):
    data = tmp_path / "systems" / "data" / "h200_sxm"
    tokens = [1, 2, 4, 8, 16, 32, 64, 128]
    n = len(tokens)
    write(
        data / "moe" / "vllm" / "0.24.0",
        "moe",
        {
            "framework": ["VLLM"] * n,
            "version": ["0.24.0"] * n,
            "device": ["NVIDIA H200"] * n,
            "op_name": ["moe"] * n,
            "kernel_source": ["vllm_fused_moe"] * n,
            "moe_dtype": ["bfloat16"] * n,
            "num_tokens": tokens,
            "hidden_size": [4096] * n,
            "inter_size": [14336] * n,
            "topk": [2] * n,
            "num_experts": [8] * n,
            "moe_tp_size": [1] * n,
            "moe_ep_size": [1] * n,
            "distribution": ["balanced"] * n,
            "latency": [0.3 + 0.01 * t for t in tokens[:-1]] + [-1.0],
        },
    )
    write(data / "vllm" / "0.24.0", "mystery", {"a": [1.0], "latency": [1.0]})
    (data / "vllm" / "0.24.0" / "gemm_perf.parquet").write_bytes(b"PAR1 this is no table PAR1")
    return tmp_path


def test_every_table_of_a_system_is_imported_or_named(tables, tmp_path):
    out = tmp_path / "profile"
    report = aiconfigurator(tables, system="h200_sxm", out=out, options=["--bandwidth", "4.8TB/s"])
    by_name = {pathlib.Path(r["table"]).name: r for r in report}
    assert by_name["moe_perf.parquet"]["status"] == "imported", by_name
    assert by_name["moe_perf.parquet"]["rows"] == 8
    assert "1" in json.dumps(by_name["moe_perf.parquet"]["said"])  # the row that nothing can have measured is counted
    assert by_name["mystery_perf.parquet"]["status"] == "refused" and by_name["mystery_perf.parquet"]["reason"]
    assert by_name["gemm_perf.parquet"]["status"] == "refused"
    assert any(out.iterdir())


def test_wrong_folders(tmp_path):
    with pytest.raises(moecast.InputError, match="is no folder"):
        aiconfigurator(tmp_path / "no", system="h200_sxm")
    with pytest.raises(moecast.InputError, match="holds no h200_sxm"):
        aiconfigurator(tmp_path, system="h200_sxm")
    with pytest.raises(moecast.InputError, match="not installed"):
        aiconfigurator(system="h200_sxm")
