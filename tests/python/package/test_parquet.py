"""`moecast sweep -o FILE.parquet`, read back with pyarrow."""

import csv
import json
import os
import subprocess
import sys

import pytest
from moecast import parquet
from moecast.program import program

pyarrow = pytest.importorskip("pyarrow")
import pyarrow.parquet  # noqa: E402

ASKED = ["--model", "olmoe-1b-7b,mixtral-8x7b", "--hw", "h200-sxm", "--tp", "1,3,8", "--batch", "1-64*4"]


def sweep(*words, **environment):
    command = [program(), "sweep", *ASKED, *words]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env=dict(os.environ, MOECAST_PYTHON=sys.executable, **environment),
    )


def test_rows_are_those_of_csv_with_types_and_units(tmp_path):
    file = tmp_path / "rows.parquet"
    done = sweep("-o", str(file))
    assert done.returncode == 0, done.stderr
    table = pyarrow.parquet.read_table(file)
    rows = list(csv.DictReader(sweep().stdout.splitlines()))
    assert table.column_names == list(rows[0])
    assert table.num_rows == len(rows) == 2 * 3 * 4
    for got, row in zip(table.to_pylist(), rows):
        for name, cell in row.items():
            if cell == "":
                assert got[name] is None, name
            elif isinstance(got[name], str):
                assert got[name] == cell
            else:
                assert got[name] == float(cell), name
    kinds = {name: str(table.schema.field(name).type) for name in table.column_names}
    assert {kinds[name] for name in ("model", "status", "reason", "bottleneck", "origin")} == {"string"}
    assert kinds["tp"] == kinds["batch"] == "int64"
    assert {kind for name, kind in kinds.items() if name not in ("tp", "batch") and kind != "string"} == {"double"}
    units = {name: (table.schema.field(name).metadata or {}).get(b"unit") for name in table.column_names}
    assert units["latency_s"] == units["factors.compute_s"] == b"s"
    assert units["memory_per_rank.kv_cache_bytes"] == b"B"
    assert units["throughput_tokens_per_s"] == b"token/s"
    assert units["factors.expert_parallel_efficiency_ratio"] == b"1"
    assert units["status"] is None and units["tp"] is None
    assert json.loads(table.schema.metadata[b"moecast"])["--batch"] == "1-64*4"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.parquet"]


def test_what_is_invalid_is_a_row_of_nulls(tmp_path):
    file = tmp_path / "rows.parquet"
    assert sweep("-o", str(file)).returncode == 0
    invalid = [row for row in pyarrow.parquet.read_table(file).to_pylist() if row["status"] == "invalid"]
    assert len(invalid) == 8  # tp 3 divides neither model's heads
    assert all(row["latency_s"] is None and "3 ranks do not divide" in row["reason"] for row in invalid)


def test_an_unfinished_sweep_goes_on(tmp_path):
    file = tmp_path / "rows.parquet"
    assert sweep("-o", str(file)).returncode == 0
    whole = pyarrow.parquet.read_table(file)
    rows = sweep().stdout
    question = whole.schema.metadata[b"moecast"].decode()
    file.unlink()
    (tmp_path / "rows.parquet.part").write_text(rows[: len(rows) // 2])
    (tmp_path / "rows.parquet.part.json").write_text(question)
    done = sweep("-o", str(file))
    assert done.returncode == 0, done.stderr
    assert "rows are there already" in done.stderr
    assert pyarrow.parquet.read_table(file).equals(whole, check_metadata=True)
    refused = sweep("-o", str(file))
    assert refused.returncode == 2 and "is there already" in refused.stderr


def test_a_cell_of_another_type_leaves_no_file(tmp_path):
    rows = tmp_path / "rows.csv"
    rows.write_text("tp,latency_s\n1,0.5\n2,soon\n")
    with pytest.raises(pyarrow.ArrowInvalid):
        parquet.write(str(rows), str(tmp_path / "rows.parquet"), whole=["tp"])
    assert [path.name for path in tmp_path.iterdir()] == ["rows.csv"]
    assert parquet.main([str(rows), str(tmp_path / "rows.parquet"), "--whole", "tp"]) == 3
    assert parquet.main([str(tmp_path / "none.csv"), str(tmp_path / "rows.parquet")]) == 4
