"""moecast.remeasure: the front of a machine that nobody profiled, found by measuring little of a space."""

import numpy
import pytest
from grid import GRID, quality
from moecast import InputError, Workload
from moecast._core import UsageError
from moecast.search import hypervolume, non_dominated, remeasure
from moecast.spaces import SpaceTimes, load_space

pytest.importorskip("pymoo")

HOW = {"objectives": ["accuracy", "latency"], "metrics": {"accuracy": quality}, "method": "exhaustive"}


class OtherMachine:
    """Arithmetic 3 times slower, bandwidth 1.4 times, noise of 2 %; counts what it is asked."""

    def __init__(self, predictor):
        self.space = load_space(GRID)
        self.times = SpaceTimes(self.space, predictor)
        self.asked = 0
        self.noise = numpy.random.default_rng(5)

    def seconds(self, genomes):
        columns = self.times.predict(genomes)
        return 3 * columns["compute_s"] + 1.4 * (columns["latency_s"] - columns["compute_s"])

    def __call__(self, genes):
        self.asked += 1
        genome = self.space.encode(genes)
        return float(self.seconds(genome[None])[0] * numpy.exp(0.02 * self.noise.standard_normal()))


def test_the_front_of_another_machine_is_found(predictor, tmp_path):
    machine = OtherMachine(predictor)
    found = remeasure(GRID, predictor, machine, rounds=6, per_round=4, resume=tmp_path / "journal", **HOW)
    assert machine.asked == len(found.latency_s) <= 24
    assert found.rounds[0]["error"] > 0.3  # a machine of another speed
    assert found.rounds[-1]["error"] < 0.06
    genomes = machine.space.all()
    truth = numpy.stack([[-quality(machine.space.decode(g)) for g in genomes], machine.seconds(genomes)], axis=1)
    reference = truth.max(axis=0)
    chosen = {g.tobytes() for g in found.result.front}
    rows = [i for i, g in enumerate(genomes) if g.tobytes() in chosen]
    exact = hypervolume(truth[non_dominated(truth)], reference)
    assert hypervolume(truth[rows], reference) > 0.95 * exact  # of what noise of 2 % leaves
    there = ~numpy.isnan(found.result.columns["measured_latency"])
    assert there.sum() == len(found.latency_s)
    numpy.testing.assert_array_equal(
        found.result.columns["latency"][there], found.result.columns["measured_latency"][there]
    )


def test_a_restarted_run_measures_nothing_twice(predictor, tmp_path):
    machine = OtherMachine(predictor)
    first = remeasure(GRID, predictor, machine, rounds=2, per_round=3, resume=tmp_path / "journal", **HOW)
    asked = machine.asked
    again = remeasure(GRID, predictor, machine, rounds=2, per_round=3, resume=tmp_path / "journal", **HOW)
    assert machine.asked == asked
    numpy.testing.assert_array_equal(first.latency_s, again.latency_s)


def test_metrics_are_asked_once_a_genome(predictor):
    asked = []
    how = {**HOW, "metrics": {"accuracy": lambda genes: asked.append(tuple(genes.values())) or quality(genes)}}
    remeasure(GRID, predictor, OtherMachine(predictor), rounds=2, per_round=2, **how)
    assert len(asked) == len(set(asked)) == 180


def test_a_journal_of_another_workload_is_refused(predictor, tmp_path):
    machine = OtherMachine(predictor)
    remeasure(GRID, predictor, machine, rounds=1, per_round=1, resume=tmp_path / "journal", **HOW)
    with pytest.raises(InputError, match="another search"):
        other = Workload("decode", batch=2, context=64)
        remeasure(GRID, predictor, machine, rounds=1, resume=tmp_path / "journal", workload=other, **HOW)


def test_what_fails_keeps_its_prediction(predictor):
    with pytest.warns(RuntimeWarning, match="raised"):
        found = remeasure(GRID, predictor, lambda genes: 1 / 0, rounds=2, per_round=2, **HOW)
    assert len(found.latency_s) == 0
    assert found.rounds == [{"measured": 0, "error": None}] * 2
    assert not numpy.isnan(found.result.columns["latency"]).any()


def test_too_few_rounds_are_refused(predictor):
    with pytest.raises(UsageError, match="at least 1"):
        remeasure(GRID, predictor, lambda genes: 1.0, rounds=0)
