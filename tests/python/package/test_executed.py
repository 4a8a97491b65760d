"""Constraints on the latency of architectures that were executed, none of whose kind the predictor has seen (A9)."""

import functools

import moecast
import numpy
import pytest
from moecast.accuracy import false_feasible
from moecast.adaptation import Correction
from moecast.dataset import dataset_names, load_dataset
from moecast.search import read_constraints
from moecast.spaces import SpaceTimes

#: False-feasible configurations at a confidence of 95 %.
BAR = 0.05
#: Measurements that an adapted predictor knows, of other depths and widths than what it is asked about.
TAUGHT = 40
#: Profiles of the machines that executed a dataset.
OWN_PROFILE = {"moe-epyc-zen4": "amd-epyc-zen4-2cpu"}


@functools.lru_cache
def runs(dataset_name, hw):
    """Of each setup of the project's runtime on one thread: predictions, measured seconds, (hidden, layers) of rows."""
    dataset = load_dataset(dataset_name)
    found = {}
    for setup, what in dataset.header["setups"].items():
        if what["runtime"] != "onednn" or what["threads"] != 1 or what.get("dtype", "fp32") != "fp32":
            continue
        genomes, measured = dataset.of(setup)
        space = dataset.space(setup)
        times = SpaceTimes(space, moecast.Predictor(hw, backend="onednn", threads=1), dataset.workload(setup))
        kinds = numpy.stack([space.values(f"decoder.{name}", genomes) for name in ("hidden", "layers")], axis=1)
        found[setup] = (times.predict(genomes), measured["latency_s"], kinds)
    return found


def noise(dataset_name):
    dataset = load_dataset(dataset_name)
    setups = [s for s, what in dataset.header["setups"].items() if what["runtime"] == "onednn" and what["threads"] == 1]
    return float(numpy.median(numpy.concatenate([dataset.of(setup)[1]["noise_ratio"] for setup in setups])))


def held_out(columns, seconds, kinds):
    """(columns, seconds) of all rows, each answered by a predictor that was taught other kinds only."""
    parts, truth = [], []
    for number, kind in enumerate(numpy.unique(kinds, axis=0)):
        own = (kinds == kind).all(axis=1)
        few = numpy.random.default_rng(number).choice(numpy.flatnonzero(~own), TAUGHT, replace=False)
        correction = Correction({k: v[few] for k, v in columns.items()}, seconds[few])
        parts.append(correction.apply({k: v[own] for k, v in columns.items()}))
        truth.append(seconds[own])
    return {k: numpy.concatenate([part[k] for part in parts]) for k in parts[0]}, numpy.concatenate(truth)


def broken(answers):
    """Share of what keeps a limit at a confidence of 95 % that is slower than it, over limits from fast to slow."""
    feasible = wrong = 0
    for columns, seconds in answers:
        named = {name: columns[f"{name}_s"] for name in ("latency", "latency_low", "latency_high")}
        for limit in numpy.quantile(seconds, numpy.linspace(0.2, 1, 9)):
            (constraint,) = read_constraints({"latency": limit}, 0.95, ("latency",))
            kept = constraint.margins(named) <= 0
            feasible, wrong = feasible + kept.sum(), wrong + (seconds[kept] > limit).sum()
    # A wide interval keeps fewer limits than a narrow one; where nothing is kept, nothing is said.
    assert feasible > 0.2 * 9 * sum(len(seconds) for _, seconds in answers)
    return wrong / feasible


@pytest.mark.skipif(not dataset_names(), reason="no dataset ships")
def test_limits_hold_for_executed_kinds_that_were_held_out_A9():
    """Of the quietest dataset, predicted from the first EPYC's profile: each kind of depth and width held out whole."""
    name = min(dataset_names(), key=noise)
    answers = [held_out(*run) for run in runs(name, "amd-epyc-2cpu").values()]
    seconds = numpy.concatenate([truth for _, truth in answers])
    high = numpy.concatenate([columns["latency_high_s"] for columns, _ in answers])
    assert len(seconds) >= 1000
    # The hardest limit of each, its own upper end, then limits that a search would be given.
    assert false_feasible(seconds, high) <= BAR
    assert broken(answers) <= BAR
    low = numpy.concatenate([columns["latency_low_s"] for columns, _ in answers])
    # Not by being vague: intervals of 90 % that cover 97 % or more would keep any bar.
    assert 0.85 <= ((low <= seconds) & (seconds <= high)).mean() <= 0.97


@pytest.mark.parametrize("name", OWN_PROFILE)
def test_limits_hold_for_executed_models_that_a_profile_alone_predicts_A9(name):
    if name not in dataset_names():
        pytest.skip(f"{name} does not ship")
    answers = [(columns, seconds) for columns, seconds, _ in runs(name, OWN_PROFILE[name]).values()]
    for columns, seconds in answers:
        assert false_feasible(seconds, columns["latency_high_s"]) <= BAR
    assert broken(answers) <= BAR
