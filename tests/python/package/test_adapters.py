"""Adapters, each against the real package."""

import moecast
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
    config = hat_config()
    hat = LatencyPredictor(times)
    genes = space.decode(hat.genome(config))
    assert genes["decoder.layers"] == 2 and genes["decoder.1.source_layers"] == 3 and genes["encoder.3.heads"] == 4
    assert hat.predict_lat(config) > 0


def hat_config(encoder=None, decoder=None):
    """HAT's configuration of 6 and 2 layers, with some values changed."""
    return {
        "encoder": {
            "encoder_embed_dim": 640,
            "encoder_layer_num": 6,
            "encoder_ffn_embed_dim": [1024] * 6,
            "encoder_self_attention_heads": [4] * 6,
            **(encoder or {}),
        },
        "decoder": {
            "decoder_embed_dim": 512,
            "decoder_layer_num": 2,
            "decoder_ffn_embed_dim": [2048] * 2,
            "decoder_self_attention_heads": [8] * 2,
            "decoder_ende_attention_heads": [4] * 2,
            "decoder_arbitrary_ende_attn": [-1, 2],
            **(decoder or {}),
        },
    }


@pytest.mark.parametrize(
    "config, problem",
    [
        ({}, "encoder: is missing"),
        ({"encoder": 5}, "encoder_embed_dim: is missing"),
        (hat_config({"encoder_layer_num": 5}), "encoder.layers: 5: hat-wmt14-en-de has 6 there"),
        (hat_config({"encoder_layer_num": 7}), "encoder_layer_num: 7 is out of range"),
        (hat_config({"encoder_embed_dim": 999}), "encoder.hidden: 999 is no choice"),
        (hat_config({"encoder_ffn_embed_dim": [1024]}), "no whole number of layer 1"),
        (hat_config(None, {"decoder_ffn_embed_dim": 1024}), "no whole number of layer 0"),
        (hat_config(None, {"decoder_arbitrary_ende_attn": [-1]}), "no whole number of layer 1"),
    ],
)
def test_what_hat_does_not_say_is_refused(predictor, config, problem):
    from moecast.adapters.hat import LatencyPredictor

    with pytest.raises(moecast.InputError, match=problem):
        LatencyPredictor(SpaceTimes(load_space("hat-wmt14-en-de"), predictor)).predict_lat(config)


def test_hat_asks_for_what_the_space_holds_fixed(predictor):
    """A value that is no gene has to be the one that every architecture of the space has."""
    from moecast.adapters.hat import LatencyPredictor

    wide = {"encoder_embed_dim": 512, "encoder_ffn_embed_dim": [2048] * 6, "encoder_self_attention_heads": [8] * 6}
    deep = {
        "decoder_layer_num": 6,
        "decoder_ffn_embed_dim": [2048] * 6,
        "decoder_self_attention_heads": [8] * 6,
        "decoder_ende_attention_heads": [8] * 6,
        "decoder_arbitrary_ende_attn": [-1] * 6,
    }
    fields = dict(load_space(GRID).description["fields"], **{"encoder.experts": [1, 8], "encoder.width": [1024, 2048]})
    hat = LatencyPredictor(SpaceTimes(load_space({**load_space(GRID).description, "fields": fields}), predictor))
    genes = hat.times.space.decode(hat.genome(hat_config(wide, deep)))
    assert genes["encoder.experts"] == 1 and genes["encoder.width"] == 2048
    for encoder, decoder, problem in (
        ({**wide, "encoder_embed_dim": 640}, deep, "encoder.hidden: 640"),
        ({**wide, "encoder_ffn_embed_dim": [1024] + [2048] * 5}, deep, "encoder.1.width: 2048"),
        (wide, {**deep, "decoder_layer_num": 1}, "decoder.layers: 1"),
        (wide, {**deep, "decoder_ende_attention_heads": [4] * 6}, "decoder.0.cross_heads: 4"),
    ):
        with pytest.raises(moecast.InputError, match=problem):
            hat.predict_lat(hat_config(encoder, decoder))
    dense = LatencyPredictor(SpaceTimes(load_space(GRID), predictor))
    with pytest.raises(moecast.InputError, match="encoder.experts: 1 is no choice"):
        dense.predict_lat(hat_config(wide, deep))


def test_a_filter_asks_a_predictor_about_architectures(predictor):
    from moecast.adapters.nni import LatencyFilter

    space = load_space("llm-moe")
    model = space.architecture(space.random(1, 1)[0])
    latency = predictor.predict(model, moecast.Workload()).latency_s
    assert LatencyFilter(latency * 10, predictor)(model) and not LatencyFilter(latency / 10, predictor)(model)
    many = moecast.Workload("prefill", prompt=2048)
    assert not LatencyFilter(latency * 10, predictor, workload=many)(model)
    for change in ({"confidence": 1.0}, {"confidence": "x"}, {"threshold_s": None}, {"workload": 5}):
        with pytest.raises(moecast.UsageError):
            LatencyFilter(**{"threshold_s": 1.0, "times": predictor, **change})
