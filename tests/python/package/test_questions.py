"""What a predictor is asked: columns, lists, requests, sizes; architectures and predictions as objects."""

import pickle

import moecast
import numpy
import pytest
from moecast.spaces import SpaceTimes


def columns(n, seed=1):
    g = numpy.random.default_rng(seed)
    return {
        "hidden": g.integers(4, 16, n, dtype=numpy.int32) * 64,
        "width": g.integers(4, 32, n, dtype=numpy.int32) * 64,
        "experts": g.choice(numpy.array([4, 8, 16, 32], numpy.int32), n),
        "top_k": g.choice(numpy.array([1, 2, 4], numpy.int32), n),
        "tokens": g.choice(numpy.array([1, 7, 64, 300], numpy.int32), n),
    }


HUGE = {"hidden": 16384, "width": 16384, "experts": 512, "top_k": 8, "tokens": 64}


def test_columns_of_layers_say_what_does_not_fit(predictor):
    layers = {name: numpy.array([value, columns(1)[name][0]], numpy.int32) for name, value in HUGE.items()}
    batch = predictor.predict_batch(layers)
    assert list(batch["status"]) == [1, 0]
    for name in ("latency_s", "latency_low_s", "latency_high_s", "compute_s"):
        assert list(numpy.isnan(batch[name])) == [True, False], name
    assert numpy.isnan(predictor.layers().one(*HUGE.values())).all()
    singly = predictor.predict_batch(layers, one_by_one=True)
    for name in ("status", "memory_bytes", "total_parameters"):
        numpy.testing.assert_allclose(batch[name], singly[name], rtol=1e-12)
    assert singly["latency_s"][1] == pytest.approx(batch["latency_s"][1], rel=0.03)


@pytest.mark.parametrize(
    "more, message",
    [
        ({"workload": moecast.Workload(load="zipf:1.2")}, "columns of layers have none"),
        ({"load": "zipf:1.2"}, r"write loads="),
        ({"phase": "decode"}, "phase: means nothing"),
        ({"tokens": 4}, "tokens: means nothing"),
        ({"loads": "uniform"}, "a list of texts"),
        ({"seed": -1}, "seed: -1 is out of range"),
    ],
)
def test_columns_of_layers_refuse_what_they_would_ignore(predictor, more, message):
    with pytest.raises(moecast.UsageError, match=message):
        predictor.predict_batch(columns(2), **more)


def test_a_list_is_asked_as_one_is(predictor, layer):
    wider = moecast.Architecture.moe_layer(512, 2048, experts=8, top_k=2, gated=False)
    batch = predictor.predict_batch([layer, wider], tokens=64, load="zipf:1.2")
    assert list(batch["latency_s"]) == [
        predictor.predict(a, tokens=64, load="zipf:1.2").latency_s for a in (layer, wider)
    ]
    assert batch["latency_s"][0] > predictor.predict_batch([layer], tokens=64)["latency_s"][0]
    with pytest.raises(moecast.UsageError, match="batch: give a workload or its fields"):
        predictor.predict_batch([layer], moecast.Workload(), batch=64)
    for what in ("x", None, layer, [layer, "x"], 3):
        with pytest.raises(moecast.UsageError, match="expected a"):
            predictor.predict_batch(what)


def test_batches_have_calls_however_they_are_asked(predictor):
    space = moecast.load_space("llm-moe")
    models = [space.architecture(g) for g in space.random(3, 5)]
    request = moecast.Request(prompt=8, target=4)
    batch, singly = (predictor.predict_batch(models, request, one_by_one=way) for way in (False, True))
    for name in ("calls", "first_calls", "flops", "latency_s"):
        numpy.testing.assert_allclose(batch[name], singly[name], rtol=0.01)


def test_several_ranks_in_a_batch_a_search_and_columns():
    gpu = moecast.Predictor("h200-sxm")
    spread = moecast.Predictor("h200-sxm", dp=4, ep=4)
    space = moecast.load_space("llm-moe")
    models = [space.architecture(g) for g in space.random(2, 5)]
    batch = gpu.predict_batch(models, batch=16, ep=4, dp=4)
    assert list(batch["latency_s"]) == [gpu.predict(m, batch=16, ep=4, dp=4).latency_s for m in models]
    assert list(spread.predict_batch(models, batch=16)["latency_s"]) == list(batch["latency_s"])
    times = SpaceTimes(space, pickle.loads(pickle.dumps(spread)), moecast.Workload(batch=16))
    assert list(times.predict(space.random(2, 5))["latency_s"]) == list(batch["latency_s"])
    layers = {name: numpy.array([value] * 2) for name, value in {**HUGE, "hidden": 4096, "width": 1536}.items()}
    layers["experts"] = numpy.array([64, 128])
    answer = gpu.predict_batch(layers, ep=4, dp=4)
    one = moecast.Architecture.moe_layer(4096, 1536, 128, 8)
    assert answer["latency_s"][1] == gpu.predict(one, tokens=64, ep=4, dp=4).latency_s
    with pytest.raises(moecast.InputError, match="row 0: ep"):
        gpu.predict_batch({**layers, "experts": numpy.array([66, 128])}, ep=4)
    with pytest.raises(moecast.UsageError, match="epp: is no field of a deployment"):
        moecast.Predictor("h200-sxm", epp=2)


def test_a_request_is_the_sum_of_its_steps(predictor):
    space = moecast.load_space("llm-moe")
    model = space.architecture(space.random(1, 5)[0])
    request = moecast.Request(prompt=16, target=9, beams=2)
    answer = predictor.predict(model, request)
    steps = [(n, predictor.predict(model, step)) for n, step in request.steps()]
    for name in ("latency_s", "latency_low_s", "latency_high_s", "flops"):
        assert getattr(answer, name) == pytest.approx(sum(n * getattr(step, name) for n, step in steps))
    assert answer.latency_s == pytest.approx(predictor.predict_batch([model], request)["latency_s"][0], rel=0.01)
    assert answer.factors["compute_s"] == pytest.approx(sum(n * step.factors["compute_s"] for n, step in steps))
    assert answer.tpot_s == pytest.approx(sum(n * step.latency_s for n, step in steps[1:]) / 8)
    assert answer.memory["total_bytes"] == max(step.memory["total_bytes"] for _, step in steps)
    explained = predictor.explain(model, request, without=["routing-overhead"])
    assert explained["inputs"]["phase"] == "request" and explained["inputs"]["target_tokens"] == 9
    assert explained["latency_without_s"]["memory_bandwidth"] < explained["latency_s"] < answer.latency_s
    assert sum(o["latency_s"] for o in explained["operators"]) == pytest.approx(explained["latency_s"], rel=0.01)
    alone = predictor.predict(moecast.Architecture.load("deepseek-v3"), request)
    assert alone.status == "does_not_fit" and alone.latency_s is None


@pytest.mark.parametrize("fields", [{"target": 0}, {"target": -5}, {"target": float("nan")}, {"beams": 1.5}])
def test_requests_of_no_size_are_refused(fields):
    with pytest.raises(moecast.UsageError, match=next(iter(fields))):
        moecast.Request(**fields)


@pytest.mark.parametrize("tokens", [64.0, "64", float("nan"), True, [64]])
def test_sizes_are_whole_numbers(predictor, layer, tokens):
    with pytest.raises(moecast.UsageError, match="tokens: .* is not a whole number"):
        predictor.predict(layer, tokens=tokens)
    with pytest.raises(moecast.UsageError, match="hidden: .* is not a whole number"):
        moecast.Architecture.moe_layer(tokens, 64, 4, 2)
    assert predictor.predict(layer, tokens=numpy.int64(64)).latency_s > 0


def test_a_name_is_no_architecture(predictor):
    with pytest.raises(moecast.UsageError, match="Architecture.load reads one"):
        predictor.predict("mixtral-8x7b")


@pytest.mark.parametrize(
    "change, message",
    [
        ({"hidden": 2**63 - 1}, "hidden: .* out of range"),
        ({"width": 0}, "width: 0 is out of range"),
        ({"experts": 10**30}, "experts: .* out of range"),
        ({"capacity_factor": float("nan")}, "capacity_factor"),
        ({"capacity_factor": -1.0}, "capacity_factor"),
        ({"shared_experts": 5000}, "shared_experts"),
    ],
)
def test_a_layer_keeps_the_limits_of_the_command_line(change, message):
    with pytest.raises(moecast.UsageError, match=message):
        moecast.Architecture.moe_layer(**{"hidden": 64, "width": 64, "experts": 4, "top_k": 2, **change})


def test_architectures_compare_and_hash(layer):
    same = moecast.Architecture.moe_layer(512, 1024, experts=8, top_k=2)
    assert layer == same and hash(layer) == hash(same) and len({layer, same}) == 1
    assert (layer == None) is False and layer != 5 and layer in [None, "x", same]  # noqa: E711
    assert layer != moecast.Architecture.moe_layer(512, 1024, experts=8, top_k=1)


def test_dicts_hold_numbers_of_numpy_and_nothing_else():
    model = moecast.load_space("llm-moe").describe([0] * len(moecast.load_space("llm-moe").genes))
    read = moecast.Architecture.from_dict({**model, "hidden": numpy.int64(model["hidden"])})
    assert read == moecast.Architecture.from_dict(model)
    circle = {}
    circle["a"] = circle
    for bad in ({"hidden": {1}}, circle, {"hidden": numpy.zeros(3)}):
        with pytest.raises(moecast.InputError, match="given: "):
            moecast.Architecture.from_dict(bad, "given")


def test_predictions_can_be_pickled(predictor, layer):
    gpu = moecast.Predictor("h200-sxm", backend="vllm")
    model = moecast.Architecture.load("glm-4.5-air")
    answers = [
        predictor.predict(layer, tokens=64),
        predictor.predict(moecast.Architecture.load("deepseek-v3"), batch=1),
        gpu.predict(model, batch=8, tp=4, draft_tokens=1, acceptance=0.8),
    ]
    names = [name for name in dir(answers[0]) if not name.startswith("_") and not callable(getattr(answers[0], name))]
    for answer in answers:
        copy = pickle.loads(pickle.dumps(answer))
        assert {name: getattr(copy, name) for name in names} == {name: getattr(answer, name) for name in names}
        assert copy.to_text() == answer.to_text() and repr(copy) == repr(answer)
