"""Adapters, each against the real package."""

import pytest
from grid import GRID
from moecast.search import Evaluation, read_constraints
from moecast.search.journal import Memory
from moecast.search.metrics import read_objectives
from moecast.spaces import SpaceTimes, load_space

pytest.importorskip("pymoo")


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


def test_pymoo(predictor):
    from moecast.adapters.pymoo import SpaceProblem
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.optimize import minimize

    result = minimize(SpaceProblem(evaluation(predictor, ["size<1G"])), NSGA2(20), ("n_gen", 5), seed=1)
    assert result.F is not None and (result.G <= 0).all()


def test_optuna(predictor):
    optuna = pytest.importorskip("optuna")
    from moecast.adapters.optuna import OptunaObjective

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    objective = OptunaObjective(evaluation(predictor, ["size<1G"]))
    sampler = optuna.samplers.TPESampler(seed=1, constraints_func=objective.constraints)
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler)
    study.optimize(objective, 15)
    assert len(study.trials) == 15 and study.best_trials


def test_deap(predictor):
    pytest.importorskip("deap")
    from deap import base, creator
    from moecast.adapters.deap import deap_evaluate

    creator.create("MoecastFitness", base.Fitness, weights=(-1.0, -1.0))
    creator.create("MoecastIndividual", list, fitness=creator.MoecastFitness)
    toolbox = base.Toolbox()
    toolbox.register("evaluate", deap_evaluate(evaluation(predictor)))
    individual = creator.MoecastIndividual([0, 0, 0, 0])
    individual.fitness.values = toolbox.evaluate(individual)
    assert individual.fitness.valid and individual.fitness.values[0] > 0


def test_nni_hat_and_ofa(predictor):
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
