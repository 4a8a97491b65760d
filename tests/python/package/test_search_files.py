"""Files of a search: journals that are continued, tables and models of qualities, what the command writes."""

import csv
import json

import moecast
import numpy
import pytest
from grid import GRID, quality
from moecast.search import search
from moecast.spaces import load_space

pytest.importorskip("pymoo")


def test_a_killed_search_continues_from_its_journal(predictor, tmp_path):
    calls = []

    def counted(genes):
        calls.append(1)
        return quality(genes)

    journal = tmp_path / "search.jsonl"
    arguments = {"objectives": ["a"], "metrics": {"a": counted}, "method": "exhaustive", "resume": journal}
    whole = search(GRID, predictor, **arguments)
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:100]) + lines[100][:10])
    calls.clear()
    again = search(GRID, predictor, **arguments)
    assert len(calls) == 180 - 99
    numpy.testing.assert_array_equal(again.columns["a"], whole.columns["a"])
    journal.write_bytes(b"".join(lines[:50]) + b"garbage\n" + b"".join(lines[51:]))
    with pytest.raises(moecast.InputError, match="line 51: is damaged"):
        search(GRID, predictor, **arguments)
    journal.write_bytes(b"".join(lines))
    with pytest.raises(moecast.InputError, match="belongs to another search"):
        search(GRID, predictor, **{**arguments, "seed": 5})


def test_a_search_killed_at_its_first_write_begins_anew(predictor, tmp_path):
    journal = tmp_path / "search.jsonl"
    arguments = {"objectives": ["a"], "metrics": {"a": quality}, "method": "exhaustive", "resume": journal}
    search(GRID, predictor, **arguments)
    whole = journal.read_bytes()
    for piece in (b"", whole[:20]):
        journal.write_bytes(piece)
        search(GRID, predictor, **arguments)
        assert journal.read_bytes() == whole
    journal.write_bytes(b"somebody's notes")
    with pytest.raises(moecast.InputError, match="no journal"):
        search(GRID, predictor, **arguments)
    assert journal.read_bytes() == b"somebody's notes"


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


def test_command(capsys, tmp_path):
    from moecast.search.command import run

    assert (
        run(
            [
                "--space",
                GRID,
                "--hw",
                "amd-epyc-2cpu",
                "--objective",
                "latency",
                "--format",
                "json",
                "-o",
                str(tmp_path / "out.json"),
            ]
        )
        == 0
    )
    assert json.loads((tmp_path / "out.json").read_text())["status"] == "ok"
    assert run(["--space", GRID, "--hw", "amd-epyc-2cpu", "--constraint", "latency<1us", "--objective", "latency"]) == 5
    assert run(["--space", "no", "--hw", "amd-epyc-2cpu"]) == 2
    assert run(["--space", GRID, "--hw", "amd-epyc-2cpu", "--format", "csv"]) == 0
    assert "encoder.experts" in capsys.readouterr().out
