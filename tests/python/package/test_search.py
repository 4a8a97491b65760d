"""moecast.search (A4, A9, A11, A13, A14, A21): optima, fronts, constraints, resumption, adapters, executors."""

import concurrent.futures
import concurrent.futures.process
import csv
import itertools
import json
import os
import time

import moecast
import numpy
import pytest
from moecast.search import Evaluation, hypervolume, non_dominated, read_constraints, search
from moecast.search.journal import Memory
from moecast.search.metrics import read_objectives
from moecast.spaces import SpaceTimes, load_space

pytest.importorskip("pymoo")
GRID = "automoe-180"


def quality(genes):
    """A made-up accuracy: experts help less and less, top-2 helps, capacity matters a little."""
    routing = {"top-1": 0.0, "top-2": 0.02, "expert-choice": 0.015}[genes["encoder.routing"]]
    return (
        0.5
        + 0.05 * numpy.log2(genes["encoder.experts"])
        + routing
        + 1e-5 * genes["encoder.expert_width"]
        + 0.01 * genes["encoder.capacity_factor"]
    )


@pytest.fixture(scope="module")
def grid(predictor):
    """The whole grid, evaluated."""
    return search(
        GRID, predictor, objectives=["accuracy", "latency"], metrics={"accuracy": quality}, method="exhaustive"
    )


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


def test_evolution_finds_the_best_of_the_grid_A11(predictor, grid):
    limit = float(numpy.quantile(grid.columns["latency_high"], 0.6))
    best = (-grid.scores[:, 0] * (grid.columns["latency_high"] <= limit)).max()
    found = 0
    for seed in range(20):
        result = search(
            GRID,
            predictor,
            objectives=["accuracy"],
            metrics={"accuracy": quality},
            method="evolution",
            constraints=[f"latency<{limit!r}"],
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
    assert found >= 19


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
    row = int(numpy.argmax(grid.columns["flops"]))
    base = {name: float(values[row]) for name, values in grid.columns.items()}
    for entry, r in zip(grid.relative_to(base), grid.front_rows):
        assert entry["flops_ratio"] == grid.columns["flops"][r] / base["flops"]
        assert entry["speedup_ratio"] == base["latency"] / grid.columns["latency"][r]
        assert entry["accuracy_difference"] == grid.columns["accuracy"][r] - base["accuracy"]
        assert entry["explained"] == (abs(entry["speedup_ratio"] * entry["flops_ratio"] - 1) <= 0.1)
        assert entry["explained"] or "bound" in entry["why"]


@pytest.mark.parametrize(
    "name, metrics",
    [
        ("automoe-180", {}),
        (
            "moenas-vit",
            {n: (lambda g, n=n: hash(n) % 7 + g["encoder.0.experts"]) for n in ("accuracy", "fairness", "robustness")},
        ),
        (
            "mixture-of-supernets",
            {n: (lambda g: g["decoder.layers"]) for n in ("accuracy", "diversity", "supernet_quality")},
        ),
    ],
)
def test_each_preset_of_objectives_runs_A21(predictor, name, metrics):
    space = load_space(name)
    result = search(space, predictor, metrics=metrics, generations=2, population=12, method="nsga2")
    assert [o.metric for o in result.objectives] == list(space.objectives)
    assert result.status == "ok" and len(result.front)


def test_contradictory_constraints_are_named(predictor):
    result = search(
        GRID, predictor, objectives=["latency"], constraints=["latency<0.000001ms", "memory<1GiB"], method="exhaustive"
    )
    assert result.status == "infeasible" and result.best is None
    assert ["latency<=1e-09"] in result.conflicts
    fastest = search(GRID, predictor, objectives=["latency"], method="exhaustive")
    limit = float(numpy.quantile(fastest.columns["latency_high"], 0.2))
    size = float(fastest.columns["size"].max()) * 0.999
    both = search(
        GRID,
        predictor,
        objectives=["latency"],
        method="exhaustive",
        constraints=[f"latency<{limit!r}", f"size>{size!r}"],
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
    assert result.status == "infeasible" and len(result.generations) == 3 and result.conflicts == [["latency<=1e-06"]]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"constraints": ["latency<50parsec"]}, "is no unit"),
        ({"constraints": ["speed<5"]}, "is no metric"),
        ({"constraints": ["latency=5"]}, "is no constraint"),
        ({"objectives": ["accuracy"]}, "accuracy"),
        ({"method": "annealing"}, "is not known"),
        ({"objectives": ["latency", "latency"]}, "twice"),
        ({"method": "evolution", "objectives": ["latency", "flops"]}, "one objective"),
        ({"generations": 0}, "generations"),
        ({"confidence": 1.0}, "confidence"),
        ({"metrics": {"x": 3}}, "expected a callable"),
    ],
)
def test_wrong_arguments(predictor, change, message):
    with pytest.raises(moecast.UsageError, match=message):
        search(GRID, predictor, **{"objectives": ["latency"], **change})


def test_callbacks_that_raise_or_hang_do_not_end_it(predictor):
    calls = []

    def fragile(genes):
        calls.append(genes)
        if genes["encoder.experts"] == 2:
            raise RuntimeError("no data")
        if (
            genes["encoder.experts"] == 4
            and genes["encoder.routing"] == "top-1"
            and genes["encoder.expert_width"] == 512
        ):
            time.sleep(60)
        return quality(genes)

    with pytest.warns(RuntimeWarning, match="raised|longer"):
        result = search(
            GRID, predictor, objectives=["a"], metrics={"a": fragile}, method="exhaustive", time_limit_s=0.2
        )
    assert len(calls) == 180 and result.failed == 36 + 3 and result.status == "ok"
    assert result.feasible.sum() == 180 - 39


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


def test_lines_of_a_table_that_disagree(predictor, tmp_path):
    space = load_space(GRID)
    row = ",".join(str(v) for v in space.decode(space.all()[0]).values())
    (tmp_path / "a.csv").write_text(f"{','.join(space.genes)},bleu\n{row},1\n{row},2\n")
    with pytest.raises(moecast.InputError, match="line 3: an earlier line"):
        search(GRID, predictor, objectives=["bleu"], metrics={"bleu": f"{tmp_path}/a.csv:bleu"})


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


def die_once(genes):
    """Kills the worker that first gets the third expert count."""
    flag = os.environ["MOECAST_TEST_FLAG"]
    if genes["encoder.experts"] == 8 and not os.path.exists(flag):
        open(flag, "w").close()
        os._exit(1)
    return float(genes["encoder.experts"])


def test_executors_and_a_worker_that_dies(predictor, tmp_path, monkeypatch):
    monkeypatch.setenv("MOECAST_TEST_FLAG", str(tmp_path / "died"))
    expected = search(GRID, predictor, objectives=["a"], metrics={"a": lambda g: float(g["encoder.experts"])})
    with concurrent.futures.ProcessPoolExecutor(2) as pool, pytest.warns(RuntimeWarning, match="lost its worker"):
        result = search(GRID, predictor, objectives=["a"], metrics={"a": die_once}, executor=pool)
    numpy.testing.assert_array_equal(result.columns["a"], expected.columns["a"])
    assert result.failed == 0


class BrokenPool(concurrent.futures.Executor):
    """Breaks while calls are still being handed to it."""

    def __init__(self):
        self.taken = 0

    def submit(self, function, /, *arguments, **_named):
        self.taken += 1
        if self.taken > 3:
            raise concurrent.futures.process.BrokenProcessPool("a worker died")
        future = concurrent.futures.Future()
        future.set_result(function(*arguments))
        return future


def test_an_executor_that_breaks_early_loses_nothing(predictor):
    with pytest.warns(RuntimeWarning, match="lost its worker"):
        result = search(
            GRID, predictor, objectives=["a"], metrics={"a": lambda g: g["encoder.experts"]}, executor=BrokenPool()
        )
    assert result.failed == 0 and len(result.genomes) == 180
    numpy.testing.assert_array_equal(result.columns["a"], load_space(GRID).values("encoder.experts", result.genomes))


def test_a_dask_cluster_whose_worker_is_killed(predictor, tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed")
    monkeypatch.setenv("MOECAST_TEST_FLAG", str(tmp_path / "died"))
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        with distributed.Client(cluster) as client:
            result = search(GRID, predictor, objectives=["a"], metrics={"a": die_once}, executor=client.get_executor())
    assert (tmp_path / "died").exists()
    assert result.failed == 0 and len(result.genomes) == 180
    space = load_space(GRID)
    numpy.testing.assert_array_equal(result.columns["a"], space.values("encoder.experts", result.genomes))


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


class TestAdapters:
    """Each against the real package."""

    @staticmethod
    def evaluation(predictor, constraints=(), objectives=("latency", "size:max")):
        space = load_space(GRID)
        known = ("latency", "flops", "memory", "size", "active_parameters")
        return Evaluation(
            space,
            SpaceTimes(space, predictor),
            {},
            read_objectives(list(objectives), known),
            read_constraints(constraints, 0.5, known),
            Memory(),
        )

    def test_pymoo(self, predictor):
        from moecast.adapters.pymoo import SpaceProblem
        from pymoo.algorithms.moo.nsga2 import NSGA2
        from pymoo.optimize import minimize

        result = minimize(SpaceProblem(self.evaluation(predictor, ["size<1G"])), NSGA2(20), ("n_gen", 5), seed=1)
        assert result.F is not None and (result.G <= 0).all()

    def test_optuna(self, predictor):
        optuna = pytest.importorskip("optuna")
        from moecast.adapters.optuna import OptunaObjective

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        objective = OptunaObjective(self.evaluation(predictor, ["size<1G"]))
        sampler = optuna.samplers.TPESampler(seed=1, constraints_func=objective.constraints)
        study = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler)
        study.optimize(objective, 15)
        assert len(study.trials) == 15 and study.best_trials

    def test_deap(self, predictor):
        pytest.importorskip("deap")
        from deap import base, creator
        from moecast.adapters.deap import deap_evaluate

        creator.create("MoecastFitness", base.Fitness, weights=(-1.0, -1.0))
        creator.create("MoecastIndividual", list, fitness=creator.MoecastFitness)
        toolbox = base.Toolbox()
        toolbox.register("evaluate", deap_evaluate(self.evaluation(predictor)))
        individual = creator.MoecastIndividual([0, 0, 0, 0])
        individual.fitness.values = toolbox.evaluate(individual)
        assert individual.fitness.valid and individual.fitness.values[0] > 0

    def test_nni_hat_and_ofa(self, predictor):
        from moecast.adapters.hat import LatencyPredictor
        from moecast.adapters.nni import LatencyFilter
        from moecast.adapters.ofa import EfficiencyPredictor

        space = load_space("hat-wmt14-en-de")
        times = SpaceTimes(space, predictor)
        genome = space.random(1, 1)[0]
        latency = times.one(genome)[0]
        assert LatencyFilter(latency * 10, times)(genome) and not LatencyFilter(latency / 10, times)(genome)
        assert EfficiencyPredictor(times).get_efficiency(space.decode(genome)) == pytest.approx(1e3 * latency)
        config = {
            "encoder": {
                "encoder_embed_dim": 640,
                "encoder_layer_num": 6,
                "encoder_ffn_embed_dim": [1024] * 6,
                "encoder_self_attention_heads": [4] * 6,
            },
            "decoder": {
                "decoder_embed_dim": 512,
                "decoder_layer_num": 2,
                "decoder_ffn_embed_dim": [2048] * 2,
                "decoder_self_attention_heads": [8] * 2,
                "decoder_ende_attention_heads": [4] * 2,
                "decoder_arbitrary_ende_attn": [-1, 2],
            },
        }
        hat = LatencyPredictor(times)
        genes = space.decode(hat.genome(config))
        assert genes["decoder.layers"] == 2 and genes["decoder.1.source_layers"] == 3 and genes["encoder.3.heads"] == 4
        assert hat.predict_lat(config) > 0


def test_false_feasible_rate_of_the_interval_A9():
    """At 95 %, of configurations whose truth is drawn from their own intervals at most 5 % break their limit."""
    g = numpy.random.default_rng(3)
    latency = g.lognormal(0, 0.3, 4000)
    sigma = 0.1
    columns = {"latency": latency, "latency_high": latency * numpy.exp(1.6448536 * sigma)}
    truth = latency * numpy.exp(sigma * g.standard_normal(4000))
    (constraint,) = read_constraints(["latency<1"], 0.95, ("latency",))
    feasible = constraint.margins(columns) <= 0
    assert feasible.sum() > 500 and (truth[feasible] > 1).mean() <= 0.05
