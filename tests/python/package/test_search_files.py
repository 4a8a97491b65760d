"""Files of a search: journals that are continued, tables and models of qualities, what the command writes."""

import csv
import json
import os
import subprocess
import sys

import moecast
import numpy
import pytest
from grid import GRID, quality
from moecast.search import journal, search
from moecast.spaces import load_space

pytest.importorskip("pymoo")


def test_a_killed_search_continues_from_its_journal(predictor, tmp_path):
    calls = []

    def counted(genes):
        calls.append(1)
        return quality(genes)

    path = tmp_path / "search.jsonl"
    arguments = {"objectives": ["a"], "metrics": {"a": counted}, "method": "exhaustive", "resume": path}
    whole = search(GRID, predictor, **arguments)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:100]) + lines[100][:10])
    calls.clear()
    again = search(GRID, predictor, **arguments)
    assert len(calls) == 180 - 99
    numpy.testing.assert_array_equal(again.columns["a"], whole.columns["a"])
    path.write_bytes(b"".join(lines[:50]) + b"garbage\n" + b"".join(lines[51:]))
    with pytest.raises(moecast.InputError, match="line 51: is damaged"):
        search(GRID, predictor, **arguments)
    path.write_bytes(b"".join(lines))
    with pytest.raises(moecast.InputError, match="belongs to another search"):
        search(GRID, predictor, **{**arguments, "seed": 5})


KILLED = """
import os, sys, moecast
calls = []
def quality(genes):
    calls.append(genes)
    if len(calls) == 4:
        os._exit(9)
    return 1.0
predictor = moecast.Predictor("amd-epyc-2cpu", threads=1)
how = dict(resume=sys.argv[2]) if sys.argv[1] != "collect" else dict(path=sys.argv[2])
if sys.argv[1] == "search":
    moecast.search("automoe-180", predictor, objectives=["a"], metrics={"a": quality}, **how)
elif sys.argv[1] == "collect":
    moecast.collect("automoe-180", quality, 40, base=predictor, batch=20, **how)
else:
    moecast.remeasure("automoe-180", predictor, quality, objectives=["latency", "size:max"], **how)
"""


@pytest.mark.parametrize("what", ["search", "collect", "remeasure"])
def test_a_kill_loses_no_answer(tmp_path, what):
    """Each one is in the file when the next call begins."""
    path = tmp_path / "journal.jsonl"
    done = subprocess.run([sys.executable, "-c", KILLED, what, str(path)], check=False)
    assert done.returncode == 9
    assert len(path.read_text().splitlines()) == 1 + 3


def test_what_failed_is_called_again(predictor, tmp_path):
    """A callback that failed once, and an older file that holds its failure."""
    path = tmp_path / "search.jsonl"
    arguments = {"objectives": ["a"], "method": "exhaustive", "resume": path}

    def busy(genes):
        raise OSError("the device is busy")

    with pytest.warns(RuntimeWarning, match="busy"):
        assert search(GRID, predictor, metrics={"a": busy}, **arguments).status == "infeasible"
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps({"genome": [0, 0, 0, 0], "metric": "a", "value": None}) + "\n")
    calls = []
    mended = search(GRID, predictor, metrics={"a": lambda g: calls.append(1) or quality(g)}, **arguments)
    assert len(calls) == 180 and mended.failed == 0


@pytest.mark.parametrize(
    "line",
    [
        "[" * 200_000,
        "1" + "0" * 5000,
        "[]",
        "{}",
        "\0\0",
        "",
        *(
            json.dumps({"genome": [0, 0, 0, 0], "metric": "a", "value": 1.0}).replace(*change)
            for change in [
                ("1.0", "Infinity"),
                ("1.0", "NaN"),
                ("1.0", "true"),
                ("1.0", '"1"'),
                ("1.0", "1" + "0" * 400),
                ("[0, 0, 0, 0]", "[0, 0.7, 0, 0]"),
                ("[0, 0, 0, 0]", "[0, Infinity, 0, 0]"),
                ("[0, 0, 0, 0]", "[0, -1, 0, 0]"),
                ("[0, 0, 0, 0]", "[0, true, 0, 0]"),
                ("[0, 0, 0, 0]", "5"),
                ('"a"', "7"),
            ]
        ),
    ],
)
def test_a_damaged_line_is_named_and_never_used(predictor, tmp_path, line):
    path = tmp_path / "search.jsonl"
    arguments = {"objectives": ["a"], "metrics": {"a": quality}, "method": "exhaustive", "resume": path}
    search(GRID, predictor, **arguments)
    with open(path, "a", encoding="utf-8") as file:
        file.write(line + "\n")
    with pytest.raises(moecast.InputError, match="line 182: is damaged"):
        search(GRID, predictor, **arguments)


def test_what_is_no_file_is_no_journal(predictor, tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    for path, problem in (
        ("/dev/null", "no regular file"),
        (tmp_path / "pipe", "no regular file"),
        (tmp_path, "no regular file"),
        (tmp_path / "no folder" / "file", "cannot be used"),
        ("a\0b", "cannot be used"),
    ):
        with pytest.raises(moecast.InputError, match=problem):
            search(GRID, predictor, resume=path)
    with pytest.raises(moecast.UsageError, match="is no path"):
        search(GRID, predictor, resume=5)
    monkeypatch.setattr(journal, "LONGEST_LINE", 1000)
    (tmp_path / "long").write_text("x" * 5000 + "\n")
    with pytest.raises(moecast.InputError, match="line 1: is too long"):
        search(GRID, predictor, resume=tmp_path / "long")


def test_a_search_killed_at_its_first_write_begins_anew(predictor, tmp_path):
    path = tmp_path / "search.jsonl"
    arguments = {"objectives": ["a"], "metrics": {"a": quality}, "method": "exhaustive", "resume": path}
    search(GRID, predictor, **arguments)
    whole = path.read_bytes()
    for piece in (b"", whole[:20]):
        path.write_bytes(piece)
        search(GRID, predictor, **arguments)
        assert path.read_bytes() == whole
    path.write_bytes(b"somebody's notes")
    with pytest.raises(moecast.InputError, match="no journal"):
        search(GRID, predictor, **arguments)
    assert path.read_bytes() == b"somebody's notes"


def test_qualities_from_a_table_and_a_model(predictor, grid, tmp_path):
    space = load_space(GRID)
    with open(tmp_path / "scores.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*space.genes, "bleu"])
        for genome in space.all():
            genes = space.decode(genome)
            writer.writerow([*genes.values(), quality(genes)])
    result = search(GRID, predictor, objectives=["bleu", "latency"], metrics={"bleu": f"{tmp_path}/scores.csv:bleu"})
    numpy.testing.assert_array_equal(result.front, grid.front)
    (tmp_path / "model.json").write_text(json.dumps({"intercept": 1, "coefficients": {"encoder.experts": 0.5}}))
    linear = search(GRID, predictor, objectives=["m"], metrics={"m": f"{tmp_path}/model.json"})
    assert -linear.scores[linear.front_rows[0], 0] == 1 + 0.5 * 32
    (tmp_path / "scores.csv").write_text("encoder.experts,bleu\n2,1\n")
    with pytest.raises(moecast.InputError, match="column 'encoder.expert_width' is missing"):
        search(GRID, predictor, objectives=["bleu"], metrics={"bleu": f"{tmp_path}/scores.csv:bleu"})


def test_qualities_from_a_dict(predictor, grid, tmp_path):
    space = load_space(GRID)
    values = {tuple(genome): quality(space.decode(genome)) for genome in space.all()}
    result = search(GRID, predictor, objectives=["a", "latency"], metrics={"a": values})
    numpy.testing.assert_array_equal(result.front, grid.front)
    for broken, problem in (
        ({(0, 0, 0, 0): 1}, r"no value of the architecture \[0, 0, 0, 1\]"),
        ({(0, 0, 0, 0): float("nan")}, "no finite number"),
        ({(0, 0, 0, 99): 1}, "has no choice number 99"),
        ({(0,): 1}, "shape"),
    ):
        with pytest.raises(moecast.InputError, match=problem):
            search(GRID, predictor, objectives=["a"], metrics={"a": broken})
    (tmp_path / "model.json").write_text(json.dumps({"intercept": 1, "coefficients": {}}))
    assert search(GRID, predictor, objectives=["m"], metrics={"m": tmp_path / "model.json"}).status == "ok"


def test_lines_of_a_table_that_disagree(predictor, tmp_path):
    space = load_space(GRID)
    row = ",".join(str(v) for v in space.decode(space.all()[0]).values())
    (tmp_path / "a.csv").write_text(f"{','.join(space.genes)},bleu\n{row},1\n{row},2\n")
    with pytest.raises(moecast.InputError, match="line 3: an earlier line"):
        search(GRID, predictor, objectives=["bleu"], metrics={"bleu": f"{tmp_path}/a.csv:bleu"})


@pytest.mark.parametrize(
    "coefficients, message",
    [
        ({"encoder.routing": 1}, "no numbers"),
        ({"encoder.experts": float("nan")}, "not finite"),
        ({"x": 1}, "no such gene"),
    ],
)
def test_broken_models_name_the_fault(predictor, tmp_path, coefficients, message):
    (tmp_path / "model.json").write_text(json.dumps({"intercept": 1, "coefficients": coefficients}))
    with pytest.raises(moecast.InputError, match=message):
        search(GRID, predictor, objectives=["m"], metrics={"m": f"{tmp_path}/model.json"})
