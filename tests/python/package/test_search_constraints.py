"""Limits of a search: their texts, units and numbers, and which end of an interval has to keep them."""

import moecast
import numpy
import pytest
from grid import GRID
from moecast.search import read_constraints, search

pytest.importorskip("pymoo")

KNOWN = ("latency", "flops", "memory", "size", "active_parameters", "acc1", "top-1", "gap_s")


@pytest.mark.parametrize(
    "given, metric, bound, at_least",
    [
        ("latency<50ms", "latency", 0.05, False),
        ("latency <= 50 us", "latency", 5e-5, False),
        ("latency<1min", "latency", 60.0, False),
        ("flops<1e11", "flops", 1e11, False),
        ("size<7G", "size", 7e9, False),
        ("gap_s<2", "gap_s", 2.0, False),
        ("gap_s<2min", "gap_s", 120.0, False),
        ("acc1>-0.5", "acc1", -0.5, True),
        ("flops<100GFLOP", "flops", 1e11, False),
        ("flops<100G", "flops", 1e11, False),
        ("memory<16GiB", "memory", 16 * 2.0**30, False),
        ("memory<1TB", "memory", 1e12, False),
        ("size<1.5e9", "size", 1.5e9, False),
        ("acc1>0.5", "acc1", 0.5, True),
        ("top-1>0.5", "top-1", 0.5, True),
    ],
)
def test_texts_with_units(given, metric, bound, at_least):
    for form in (given, [given]):
        (constraint,) = read_constraints(form, 0.5, KNOWN)
        assert (constraint.metric, constraint.at_least) == (metric, at_least)
        assert constraint.bound == pytest.approx(bound, rel=1e-12)


@pytest.mark.parametrize("number", [2, 2.0, numpy.float64(2), numpy.float32(2), numpy.int64(2)])
def test_numbers_of_a_dict_are_in_si_units(number):
    for name, metric in (("latency", "latency"), ("latency_s", "latency"), ("gap_s", "gap_s"), ("memory", "memory")):
        (constraint,) = read_constraints({name: number}, 0.5, KNOWN)
        assert (constraint.metric, constraint.bound, constraint.at_least) == (metric, 2.0, False)
    for text in ("2", "<2"):
        assert read_constraints({"gap_s": text}, 0.5, KNOWN)[0].bound == 2.0


@pytest.mark.parametrize("text", ["latency<=0.05s", "memory<=1.6e+10B", "flops<=1e+11FLOP", "size>=1e+06", "acc1>=0.5"])
def test_a_constraint_is_written_as_it_is_read(text):
    (constraint,) = read_constraints(text, 0.5, KNOWN)
    assert str(constraint) == text


@pytest.mark.parametrize(
    "text", ["50ms", "1min", "2 h", "0.5us", "50", "", "5 parsec", "-5ms", "5m", "1e999s", "1.2.3s", "ms"]
)
def test_times_are_those_of_the_command_line(text):
    """One parser: what `moecast serve --ttft` takes, a search takes, and no more."""
    try:
        seconds = moecast._core.parse_seconds(text, "--ttft")
    except moecast.UsageError:
        with pytest.raises(moecast.UsageError, match="constraints"):
            read_constraints([f"latency<{text}"], 0.5, KNOWN)
    else:
        assert read_constraints([f"latency<{text}"], 0.5, KNOWN)[0].bound == seconds


@pytest.mark.parametrize(
    "given, message",
    [
        (["memory<50ms"], '"ms" is not a unit of amount of bytes'),
        (["memory<16G"], 'write "GB"|units: B'),
        (["memory<16000"], 'has no unit .*"16GiB"'),
        (["latency<50"], 'has no unit .*"50ms"'),
        ({"latency": "50"}, "has no unit"),
        (["latency<2GiB"], '"GiB" is not a unit of time'),
        (["flops<5ms"], '"ms" is not a unit of amount of arithmetic'),
        (["flops<many"], "is no number"),
        (["size<2GiB"], "'GiB' is no unit of size"),
        (["latency<1.2.3"], '".3" is not a unit of time'),
        (["latency<1e999"], "is not a time"),
        (["size<1e999"], "not finite"),
        ({"latency": float("nan")}, "not finite"),
        ({"latency": True}, "is no bound"),
        ({"latency": None}, "is no bound"),
        ({5: 1}, "is no bound"),
        ({"speed": 1}, "is no metric"),
        ([("latency",)], "is no constraint"),
        (5, "is no list"),
    ],
)
def test_what_is_none_is_refused(given, message):
    with pytest.raises(moecast.UsageError, match=message):
        read_constraints(given, 0.5, KNOWN)


def test_a_lower_limit_is_kept_by_the_low_end(predictor):
    """At 95 %, "latency>x" needs the 5 % end above x, as "latency<x" needs the 95 % end below it."""
    found = search(GRID, predictor, objectives=["latency"], method="exhaustive")
    limit = float(numpy.median(found.columns["latency_low"]))
    (constraint,) = read_constraints([f"latency>{limit!r}s"], 0.95, KNOWN)
    kept = constraint.margins(found.columns) <= 0
    numpy.testing.assert_array_equal(kept, found.columns["latency_low"] >= limit * (1 - 1e-9))
    assert 0 < kept.sum() < (found.columns["latency"] >= limit).sum()


def test_numbers_of_numpy_and_own_names_in_a_search(predictor):
    own = {"acc1": lambda genes: float(genes["encoder.experts"])}
    result = search(
        GRID,
        predictor,
        objectives=["latency"],
        metrics=own,
        constraints={"latency": numpy.float64(1e3), "acc1": ">8"},
        method="random",
        generations=numpy.int64(2),
        population=numpy.int32(40),
        seed=numpy.uint8(3),
    )
    assert len(result.generations) == 2 and 0 < result.feasible.sum() < len(result.genomes)
    assert (result.columns["acc1"][result.feasible] >= 8).all()


@pytest.mark.parametrize("name", ["latency_high", "latency", "margins", "a<b", "a:b", "", 5])
def test_names_that_results_have_already(predictor, name):
    with pytest.raises(moecast.UsageError, match="metrics: "):
        search(GRID, predictor, metrics={name: lambda genes: 1.0})
