"""moecast.collect: what it chooses, what it does when executions fail, and whose journal it continues."""

import json

import moecast
import numpy
import pytest
from grid import GRID
from moecast import Workload, collect
from moecast.spaces import load_space

#: The width of experts costs nothing where there are none: pairs of architectures that are alike.
NEUTRAL = {
    "moecast_space": 1,
    "name": "neutral",
    "family": "decoder",
    "workload": {"phase": "decode", "batch": 1, "context": 64},
    "fields": {
        "decoder.hidden": [256, 512],
        "decoder.layers": 2,
        "decoder.heads": 4,
        "decoder.experts": 1,
        "decoder.expert_width": [256, 512],
        "decoder.width": [512, 1024, 2048],
    },
}


@pytest.mark.parametrize("space, asked", [(NEUTRAL, 10), (NEUTRAL, 12), (GRID, 170)])
def test_every_execution_is_of_another_architecture(predictor, space, asked):
    executed = []
    genomes, seconds = collect(space, lambda g: executed.append(tuple(g.values())) or 0.01, asked, base=predictor)
    assert len(executed) == len(set(executed)) == asked == len(seconds)
    assert len(numpy.unique(genomes, axis=0)) == asked


def test_no_more_than_there_are(predictor):
    genomes, seconds = collect(NEUTRAL, lambda genes: 0.01, 500, base=predictor)
    assert len(genomes) == len(seconds) == 12


def test_what_fails_is_replaced(predictor):
    def some(genes):
        if genes["encoder.experts"] >= 8:
            raise RuntimeError("too large")
        return 0.01

    with pytest.warns(RuntimeWarning, match="too large"):
        genomes, seconds = collect(GRID, some, 20, base=predictor)
    space = load_space(GRID)
    assert len(genomes) == 20 and (seconds == 0.01).all()
    assert (space.values("encoder.experts", genomes) < 8).all()


def test_a_runner_that_never_answers_is_given_up(predictor):
    calls = []
    with pytest.warns(RuntimeWarning, match="raised"):
        genomes, seconds = collect(GRID, lambda genes: calls.append(1) or 1 / 0, 3, base=predictor, batch=1)
    assert len(genomes) == len(seconds) == 0 and len(calls) == 30


def test_only_its_own_journal_is_continued(predictor, tmp_path):
    path = tmp_path / "collection.jsonl"
    how = {"base": predictor, "path": path, "pool": 64}
    genomes, _ = collect(NEUTRAL, lambda genes: 0.01, 6, **how)
    other = json.loads(json.dumps(NEUTRAL))
    other["fields"]["decoder.hidden"] = [1024, 2048]
    for space, change in (
        (other, {}),
        (NEUTRAL, {"workload": Workload("prefill", prompt=512)}),
        (NEUTRAL, {"base": moecast.Predictor("intel-xeon-processor-2cpu", threads=1)}),
        (NEUTRAL, {"seed": 2}),
    ):
        with pytest.raises(moecast.InputError, match="belongs to another collection"):
            collect(space, lambda genes: 0.01, 6, **{**how, **change})
    calls = []
    more, _ = collect(NEUTRAL, lambda genes: calls.append(1) or 0.01, 8, **how)
    assert len(calls) == 2
    numpy.testing.assert_array_equal(more[:6], genomes)


@pytest.mark.parametrize(
    "change", [{"n": 0}, {"n": 1.5}, {"n": "a"}, {"batch": 0}, {"pool": 2}, {"seed": -1}, {"workload": 5}]
)
def test_wrong_arguments(predictor, change):
    with pytest.raises(moecast.UsageError):
        collect(NEUTRAL, lambda genes: 0.01, **{"n": 3, "base": predictor, **change})
