"""moecast.search (A4, A9, A11, A13, A14, A21): optima, fronts, constraints."""

import copy
import itertools

import moecast
import numpy
import pytest
from grid import GRID, quality
from moecast.search import hypervolume, non_dominated, read_constraints, search
from moecast.spaces import load_space

pytest.importorskip("pymoo")


def brute_front(scores):
    keep = [i for i, a in enumerate(scores) if not any((b <= a).all() and (b < a).any() for b in scores)]
    return {tuple(scores[i]) for i in keep}


def test_the_front_is_that_of_brute_force_A4(grid):
    assert {tuple(s) for s in grid.scores[grid.front_rows]} == brute_front(grid.scores)
    points = numpy.round(numpy.random.default_rng(1).random((3000, 3)), 2)
    assert {tuple(points[i]) for i in non_dominated(points)} == brute_front(points)


def test_hypervolume_and_sorting_of_five_objectives_A14():
    points = numpy.random.default_rng(2).random((40, 5))
    reference = numpy.ones(5)
    # Inclusion and exclusion over few points is the definition itself.
    few = points[:8]
    exact = sum(
        (-1) ** (n + 1) * numpy.prod(reference - numpy.max(few[list(c)], axis=0))
        for n in range(1, 9)
        for c in itertools.combinations(range(8), n)
    )
    assert hypervolume(few, reference) == pytest.approx(exact, rel=1e-9)
    assert {tuple(points[i]) for i in non_dominated(points)} == brute_front(points)


def test_constraints_filter_as_they_say_A9(predictor, grid):
    limit = float(numpy.median(grid.columns["latency"]))
    result = search(
        GRID,
        predictor,
        objectives=["accuracy"],
        metrics={"accuracy": quality},
        method="exhaustive",
        constraints={"latency": limit, "flops": "100G", "memory": "2GiB"},
        confidence=0.5,
    )
    expected = (grid.columns["latency"] <= limit) & (grid.columns["flops"] <= 100e9) & (grid.columns["memory"] <= 2**31)
    assert result.feasible.sum() == expected.sum() > 0
    numpy.testing.assert_array_equal(result.genomes[result.feasible], grid.genomes[expected])
    sure = search(
        GRID,
        predictor,
        objectives=["accuracy"],
        metrics={"accuracy": quality},
        method="exhaustive",
        constraints={"latency": limit},
        confidence=0.95,
    )
    kept = grid.columns["latency_high"] <= limit * (1 + 1e-9)
    assert sure.feasible.sum() == kept.sum() < expected.sum()
    assert (sure.margins[sure.feasible] <= 0).all()


def test_the_confidence_is_a_quantile_of_the_interval():
    """At 95 %, of configurations whose truth is drawn from their own intervals at most 5 % break their limit.

    Whether intervals are right is asked of executed architectures: test_executed.py.
    """
    g = numpy.random.default_rng(3)
    latency = g.lognormal(0, 0.3, 4000)
    sigma = 0.1
    columns = {"latency": latency, "latency_high": latency * numpy.exp(1.6448536 * sigma)}
    truth = latency * numpy.exp(sigma * g.standard_normal(4000))
    (constraint,) = read_constraints(["latency<1s"], 0.95, ("latency",))
    feasible = constraint.margins(columns) <= 0
    assert feasible.sum() > 500 and (truth[feasible] > 1).mean() <= 0.05


def test_evolution_finds_the_best_of_the_grid_A11(predictor, grid):
    limit = float(numpy.quantile(grid.columns["latency_high"], 0.6))
    best = (-grid.scores[:, 0] * (grid.columns["latency_high"] <= limit)).max()
    found = 0
    for seed in range(100):
        result = search(
            GRID,
            predictor,
            objectives=["accuracy"],
            metrics={"accuracy": quality},
            method="evolution",
            constraints=[f"latency<{limit!r}s"],
            generations=10,
            population=30,
            parents=8,
            mutations=12,
            crossovers=12,
            patience=6,
            seed=seed,
        )
        assert len(result.generations) <= 10
        found += -result.scores[result.front_rows[0], 0] == pytest.approx(best, rel=1e-12)
    assert found >= 95


def test_equal_seeds_give_equal_searches_A11(predictor):
    runs = [
        search("llm-moe", predictor, objectives=["latency", "size:max"], generations=4, population=24, seed=7)
        for _ in range(2)
    ]
    numpy.testing.assert_array_equal(runs[0].genomes, runs[1].genomes)
    assert runs[0].generations == runs[1].generations


def test_nsga2_reaches_the_exhaustive_front(predictor, grid):
    reference = grid.scores.max(axis=0)
    whole = hypervolume(grid.scores[grid.front_rows], reference)
    result = search(
        GRID,
        predictor,
        objectives=["accuracy", "latency"],
        metrics={"accuracy": quality},
        method="nsga2",
        generations=25,
        population=40,
        seed=3,
    )
    assert hypervolume(result.scores[result.front_rows], reference) >= 0.99 * whole
    assert result.knee() is not None


def test_relative_to_a_baseline_A13(grid):
    """The table that MoE-NAS is announced with: BERT 100 % and 1 x, S 40 %, 4 x, +0.5, L 60 %, 2.5 x, +1.2."""
    columns = {
        #                      BERT    S      L     as FLOPs say  slower than FLOPs say
        "flops": numpy.array([22.5e9, 9.0e9, 13.5e9, 11.25e9, 11.25e9]),
        "latency": numpy.array([0.100, 0.025, 0.040, 0.050, 0.080]),
        "accuracy": numpy.array([80.0, 80.5, 81.2, 79.0, 79.0]),
    }
    result = copy.copy(grid)
    result.columns, result.front_rows = columns, numpy.arange(5)
    bert, small, large, fair, slow = result.relative_to({"flops": 22.5e9, "latency": 0.1, "accuracy": 80.0})
    shown = {"flops_ratio": 0.4, "speedup_ratio": 4.0, "accuracy_difference": 0.5}
    assert {name: small[name] for name in shown} == pytest.approx(shown, rel=1e-12)
    shown = {"flops_ratio": 0.6, "speedup_ratio": 2.5, "accuracy_difference": 1.2}
    assert {name: large[name] for name in shown} == pytest.approx(shown, rel=1e-12)
    # 1 / 0.4 = 2.5 is less than 4, 1 / 0.6 = 1.67 less than 2.5: FLOPs account for neither.
    assert not small["explained"] and "2.50 x fewer FLOPs, 4.00 x faster" in small["why"]
    assert not large["explained"] and "1.67 x fewer FLOPs, 2.50 x faster" in large["why"]
    assert "shrank more than FLOPs" in large["why"]
    assert bert["explained"] and bert["speedup_ratio"] == 1 and "why" not in bert
    assert fair["explained"], "half the FLOPs in half the time"
    assert not slow["explained"] and "do not shrink with FLOPs" in slow["why"]


def test_a_baseline_is_a_genome_or_its_metrics(predictor, grid):
    row = int(numpy.argmax(grid.columns["flops"]))
    base = {name: float(values[row]) for name, values in grid.columns.items()}
    assert grid.relative_to(grid.genomes[row]) == grid.relative_to(base)
    assert grid.relative_to(grid.best)[0]["speedup_ratio"] == 1
    with pytest.raises(moecast.InputError, match="shape"):
        grid.relative_to([0])
    with pytest.raises(moecast.UsageError, match="no latency"):
        grid.relative_to({"flops": 1.0})
    few = search(GRID, predictor, objectives=["latency"], method="random", generations=1, population=3)
    others = [g for g in grid.genomes if not (few.genomes == g).all(axis=1).any()]
    with pytest.raises(moecast.InputError, match="was not evaluated"):
        few.relative_to(others[0])


def test_a_reference_is_a_point_of_the_objectives(predictor, grid):
    one = search(GRID, predictor, objectives=["latency"])
    worst = float(one.columns["latency"].max())
    assert one.hypervolume([worst]) == one.hypervolume(worst) == pytest.approx(worst - one.columns["latency"].min())
    for reference in ([1, 2], [], [float("nan")], "x"):
        with pytest.raises(moecast.UsageError, match="is no point of 1 objectives"):
            one.hypervolume(reference)
    with pytest.raises(moecast.UsageError, match="is no point of 2 objectives"):
        hypervolume(grid.scores, [1.0])


@pytest.mark.parametrize("method", ["nsga2", "evolution", "random", "exhaustive"])
def test_a_space_of_one_architecture(predictor, method):
    fields = {"decoder.hidden": 256, "decoder.layers": 2, "decoder.heads": 4, "decoder.width": 512}
    one = {"moecast_space": 1, "name": "one", "family": "decoder", "fields": fields}
    result = search(one, predictor, objectives=["latency"], method=method, generations=2, population=4)
    assert result.status == "ok" and result.genomes.shape == (1, 0)


#: Qualities that disagree: what makes one better makes another worse.
QUALITIES = {
    "automoe-180": {},
    "moenas-vit": {
        "accuracy": lambda g: sum(g[f"encoder.{i}.experts"] for i in range(4)),
        "fairness": lambda g: -sum(g[f"encoder.{i}.experts"] ** 2 for i in range(4)),
        "robustness": lambda g: g["encoder.3.experts"] - g["encoder.0.experts"],
    },
    "mixture-of-supernets": {
        "accuracy": lambda g: g["decoder.layers"],
        "diversity": lambda g: -abs(g["decoder.layers"] - 3),
        "supernet_quality": lambda g: g["encoder.hidden"] / 640 - g["decoder.layers"],
    },
}


@pytest.mark.parametrize("name", QUALITIES)
def test_each_preset_of_objectives_runs_A21(predictor, name):
    space, metrics = load_space(name), QUALITIES[name]
    result = search(space, predictor, metrics=metrics, generations=3, population=24, method="nsga2")
    assert [o.metric for o in result.objectives] == list(space.objectives)
    assert result.status == "ok" and len(result.front) > 1
    for entry in result.table():
        assert all(entry[metric] == quality(entry["genes"]) for metric, quality in metrics.items())
    assert {tuple(s) for s in result.scores[result.front_rows]} == brute_front(result.scores)
    if metrics:  # each objective is best somewhere else
        best = [set(numpy.flatnonzero(s == s.min())) for s in result.scores[result.front_rows].T]
        assert not set.intersection(*best)


def test_contradictory_constraints_are_named(predictor):
    result = search(
        GRID, predictor, objectives=["latency"], constraints=["latency<0.000001ms", "memory<1GiB"], method="exhaustive"
    )
    assert result.status == "infeasible" and result.best is None
    assert ["latency<=1e-09s"] in result.conflicts
    fastest = search(GRID, predictor, objectives=["latency"], method="exhaustive")
    limit = float(numpy.quantile(fastest.columns["latency_high"], 0.2))
    size = float(fastest.columns["size"].max()) * 0.999
    both = search(
        GRID,
        predictor,
        objectives=["latency"],
        method="exhaustive",
        constraints=[f"latency<{limit!r}s", f"size>{size!r}"],
    )
    assert both.conflicts == [[str(c) for c in both.constraints]]


@pytest.mark.parametrize("space", ["automoe-wmt14-en-de", "llm-moe"])
def test_evolution_without_a_feasible_start_ends(predictor, space):
    result = search(
        space,
        predictor,
        objectives=["flops:max"],
        constraints={"latency": "1us"},
        generations=3,
        population=12,
        parents=4,
        mutations=4,
        crossovers=4,
        method="evolution",
    )
    assert result.status == "infeasible" and len(result.generations) == 3 and result.conflicts == [["latency<=1e-06s"]]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"constraints": ["latency<50parsec"]}, "is not a unit of time"),
        ({"constraints": ["speed<5"]}, "is no metric"),
        ({"constraints": ["latency=5"]}, "is no constraint"),
        ({"objectives": ["accuracy"]}, "accuracy"),
        ({"method": "annealing"}, "is not known"),
        ({"objectives": ["latency", "latency"]}, "twice"),
        ({"method": "evolution", "objectives": ["latency", "flops"]}, "one objective"),
        ({"generations": 0}, "generations"),
        ({"confidence": 1.0}, "confidence"),
        ({"metrics": {"x": 3}}, "expected a callable"),
        ({"metrics": 5}, "is no dict"),
        ({"objectives": 5}, "is no list"),
        ({"generations": True}, "generations"),
        ({"generations": 2.5}, "generations"),
        ({"population": "9"}, "population"),
        ({"seed": -1}, "seed"),
        ({"seed": None}, "seed"),
        ({"patience": 0}, "patience"),
        ({"mutations": 0, "crossovers": 0}, "both are 0"),
        ({"mutation_probability": float("nan")}, "mutation_probability"),
        ({"workload": {"batch": 4}}, "Workload"),
        ({"progress": 5}, "progress"),
        ({"confidence": "x"}, "confidence"),
    ],
)
def test_wrong_arguments(predictor, change, message):
    with pytest.raises(moecast.UsageError, match=message):
        search(GRID, predictor, **{"objectives": ["latency"], **change})
