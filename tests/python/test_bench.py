"""tools/dev/bench turns a report of Google Benchmark into rows with an interval."""

import json
import stat

import pytest

import bench


def run(name, time, unit="us", **more):
    return {"name": name, "run_name": name, "run_type": "iteration", "real_time": time, "time_unit": unit, **more}


def test_the_interval_holds_the_median():
    # 30 samples: ranks 9 and 20 (0-based) enclose the median with 95 %: (30 - 1.96 sqrt 30) / 2 = 9.6.
    assert bench.interval([float(i) for i in range(30)]) == (14.5, 9.0, 20.0)
    assert bench.interval([3.0]) == (3.0, 3.0, 3.0)


def test_times_are_seconds_and_aggregates_are_left_out():
    mean = {**run("a_mean", 9.0), "run_type": "aggregate"}
    rows = bench.rows_of({"benchmarks": [run("a", 1.0), run("a", 3.0), run("a", 2.0), mean]})
    assert rows == [{"name": "a", "value": pytest.approx(2e-6), "unit": "s", "low": pytest.approx(1e-6),
                     "high": pytest.approx(3e-6)}]


def test_a_rate_gets_its_own_row():
    rows = bench.rows_of({"benchmarks": [run("a", 1.0, "ms", items_per_second=5e6)]})
    assert [(row["name"], row["unit"], row["value"]) for row in rows] == [("a", "s", 1e-3), ("a:items", "1/s", 5e6)]


def test_a_failed_benchmark_is_an_error():
    with pytest.raises(RuntimeError, match="a: no profile"):
        bench.rows_of({"benchmarks": [run("a", 0.0, error_occurred=True, error_message="no profile")]})


@pytest.fixture(name="program")
def make_program(tmp_path):
    """A program that answers as Google Benchmark does."""
    path = tmp_path / "bench"
    report = json.dumps({"benchmarks": [run("BM_Predict", 420.0, "ns"), run("BM_Predict", 430.0, "ns")]})
    path.write_text(f"#!/bin/sh\nfor a; do case $a in --benchmark_out=*) cat > ${{a#*=}} <<'END'\n{report}\nEND\n"
                    ";; --benchmark_filter=none) exit 0;; esac; done\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_json_is_a_list_of_rows(program, capsys):
    assert bench.main(["--program", str(program), "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [set(row) for row in rows] == [{"name", "value", "unit", "low", "high"}]
    assert rows[0]["low"] <= rows[0]["value"] <= rows[0]["high"]


def test_the_table_scales_its_units(program, capsys):
    assert bench.main(["--program", str(program)]) == 0
    assert "BM_Predict      425 ns      420 ns      430 ns" in capsys.readouterr().out


def test_a_filter_that_matches_nothing_is_an_error(program, capsys):
    assert bench.main(["--program", str(program), "--filter", "none"]) == 1
    assert "no benchmark matches 'none'" in capsys.readouterr().err
