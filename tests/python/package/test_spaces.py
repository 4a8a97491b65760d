"""Spaces as data (A5, A18, A20, A12)."""

import json

import moecast
import numpy
import pytest
from moecast.spaces import Space, SpaceTimes, load_space, space_names


def test_the_global_grid_has_180_that_all_simulate_A5(predictor):
    space = load_space("automoe-180")
    assert space.size() == 5 * 3 * 3 * 4 == len(space.all())
    columns = SpaceTimes(space, predictor).predict(space.all())
    assert (columns["status"] == 0).all() and (columns["latency_s"] > 0).all()


def test_latency_follows_the_experts_A5(predictor):
    """More experts read more weights: never faster at fixed top-k and tokens; flat when arithmetic bounds."""

    def latencies(tokens):
        return [
            predictor.predict(moecast.Architecture.moe_layer(512, 2048, e, 2), tokens=tokens).latency_s
            for e in (2, 4, 8, 16, 32)
        ]

    few = latencies(8)
    assert all(b >= a * 0.97 for a, b in zip(few, few[1:])) and few[-1] > 1.3 * few[0]
    many = latencies(2048)
    assert max(many) < 1.35 * min(many)


@pytest.mark.parametrize("name", space_names())
def test_every_preset_makes_models_and_reads_back(name, predictor):
    space = load_space(name)
    genomes = space.random(5, 3)
    for genome in genomes:
        assert space.architecture(genome).layers == sum(space.layer_count(s, genome) for s in space.family.stacks)
        numpy.testing.assert_array_equal(space.encode(space.decode(genome)), genome)
    assert space.valid(genomes).all()


@pytest.mark.parametrize("name", ["automoe-wmt14-en-de", "hat-wmt14-en-de", "llm-moe", "moenas-vit", "automoe-180"])
def test_times_are_those_of_the_predictor(name, predictor):
    space = load_space(name)
    genomes = space.random(6, 4)
    times = SpaceTimes(space, predictor)
    columns = times.predict(genomes)
    for i, genome in enumerate(genomes):
        model = space.architecture(genome)
        one = sum(n * predictor.predict(model, step).latency_s for n, step in times.workload.steps())
        assert columns["latency_s"][i] == pytest.approx(one, rel=0.01)
        assert columns["total_parameters"][i] == pytest.approx(model.total_parameters)


@pytest.mark.parametrize(
    "family, field",
    [
        ("architecture-mixture", "encoder.capacity_factor"),
        ("architecture-mixture", "encoder.top_k"),
        ("encoder-decoder", "mixture_experts"),
        ("vision", "decoder.experts"),
        ("decoder", "encoder.experts"),
    ],
)
def test_a_preset_refuses_fields_outside_its_row_A20(family, field):
    preset = {
        "architecture-mixture": "mixture-of-supernets",
        "encoder-decoder": "automoe-180",
        "vision": "moenas-vit",
        "decoder": "llm-moe",
    }[family]
    space = load_space(preset)
    fields = {name: list(f.choices) for name, f in space.fields.items() if name in space.family.required}
    Space({"moecast_space": 1, "family": family, "fields": fields})
    with pytest.raises(moecast.InputError, match=field):
        Space({"moecast_space": 1, "family": family, "fields": {**fields, field: 2}})


def test_a_mixture_of_architectures_routes_no_token_A18(predictor):
    space = load_space("mixture-of-supernets")
    genome = space.encode({"mixture_experts": 2})
    merged, mixed = (SpaceTimes(space, predictor).predict(space.encode({"mix": mix})) for mix in ("weights", "outputs"))
    subnet = predictor.predict_batch([space.architecture(genome)], SpaceTimes(space, predictor).workload)
    assert merged["latency_s"][0] == pytest.approx(subnet["latency_s"][0], rel=0.01)
    assert mixed["latency_s"][0] == pytest.approx(2 * subnet["latency_s"][0], rel=0.01)
    assert merged["routing_overhead_s"][0] == 0 == mixed["routing_overhead_s"][0]
    assert merged["merge_bytes"][0] == pytest.approx(3 * 4 * subnet["total_parameters"][0])


def test_a_subnet_costs_what_it_costs_alone_A12(predictor):
    space = load_space("automoe-wmt14-en-de")
    genome = space.random(1, 9)[0]
    alone = moecast.Architecture.from_dict(json.loads(space.architecture(genome).to_text()))
    from_space = predictor.predict(space.architecture(genome), batch=5, context=20, source=30)
    assert from_space.latency_s == predictor.predict(alone, batch=5, context=20, source=30).latency_s
    # The supernet itself: no sub-network is slower than the largest choice of everything.
    largest = space.encode({f.name: max(f.choices) for f in space.fields.values() if f.genes})
    times = SpaceTimes(space, predictor)
    assert times.predict(space.random(200, 2))["latency_s"].max() <= times.one(largest)[0] * 1.01


def test_language_models_choose_their_router(predictor):
    """Experts that choose their tokens read all their weights in a decode step of one token."""
    space = load_space("llm-moe")
    assert "decoder.routing" in space.genes
    times = SpaceTimes(space, predictor)
    many = {"decoder.experts": 32, "decoder.top_k": 1}
    by_token, by_expert = (
        times.one(space.encode({**many, "decoder.routing": routing}))[0]
        for routing in ("token-choice", "expert-choice")
    )
    assert by_expert > 3 * by_token


SMALL = {"decoder.hidden": [256, 512], "decoder.layers": [2, 4], "decoder.heads": 4, "decoder.width": [512, 1024]}


def small(fields=None, **others):
    return Space(
        {"moecast_space": 1, "name": "small", "family": "decoder", "fields": {**SMALL, **(fields or {})}, **others}
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"decoder.routing": ["token-choice", "sigmoid-zzz"]},
        {"decoder.routing": "top-x"},
        {"decoder.routing": "top-0"},
        {"decoder.routing": 5},
        {"decoder.experts": None},
        {"decoder.experts": [0]},
        {"decoder.heads": None},
        {"decoder.heads": 0},
        {"decoder.hidden": [-5]},
        {"decoder.hidden": [256.5]},
        {"decoder.hidden": True},
        {"decoder.hidden": [float("nan")]},
        {"decoder.layers": [2, "3"]},
        {"decoder.layers": {"per_layer": 2}},
        {"decoder.width": [[1]]},
        {"decoder.width": {"per_layer": 512}},
        {"decoder.top_k": "2"},
        {"decoder.capacity_factor": -1},
        {"granularity": 0},
        {"granularity": "a"},
        {"activation": "zzz"},
        {"gated": 1},
        {"dtype": 32},
    ],
)
def test_values_that_a_field_cannot_have(fields):
    with pytest.raises(moecast.InputError, match=f"/fields/{next(iter(fields))}"):
        small(fields)


@pytest.mark.parametrize(
    "others, message",
    [
        ({"family": [1]}, "/family"),
        ({"rules": 5}, "/rules"),
        ({"rules": [[1]]}, "/rules"),
        ({"rules": ["encoder_at_least_decoder"]}, "has no encoder and decoder"),
        ({"workload": [1]}, "/workload"),
        ({"workload": {"kind": "x"}}, "/workload/kind"),
        ({"workload": {"beams": 2}}, "/workload/beams: a step has no such field"),
        ({"workload": {"kind": "request", "context": 2}}, "/workload/context"),
        ({"workload": {"batch": 0}}, "/workload/batch"),
        ({"workload": {"batch": "1"}}, "/workload/batch"),
        ({"workload": {"kind": "request", "encoder_decoder": 1}}, "/workload/encoder_decoder"),
        ({"objectives": 5}, "/objectives"),
        ({"objectives": "latency"}, "/objectives"),
        ({5: 5}, "/5"),
    ],
)
def test_descriptions_that_are_none(others, message):
    with pytest.raises(moecast.InputError, match=message):
        Space({"moecast_space": 1, "family": "decoder", "fields": SMALL, **others})


@pytest.mark.parametrize(
    "hidden",
    [(256, 512), range(256, 513, 256), numpy.array([256, 512]), [numpy.int64(256), numpy.int32(512)]],
)
def test_choices_of_python_and_numpy(hidden, predictor):
    space, plain = small({"decoder.hidden": hidden}), small()
    assert space.fingerprint == plain.fingerprint
    assert json.loads(json.dumps(space.description)) == plain.description
    assert space.encode({"decoder.hidden": numpy.int64(512)})[0] == 1
    assert SpaceTimes(space, predictor).one(space.all()[0])[0] > 0
    with pytest.raises(moecast.InputError, match="too many"):
        small({"decoder.hidden": range(10**9)})


def test_a_description_that_holds_itself_is_refused():
    fields = dict(SMALL)
    fields["decoder.width"] = [fields]
    with pytest.raises(moecast.InputError, match="cannot be read"):
        small(fields)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"family": "dense"}, "/family"),
        ({"fields": {}}, "encoder.hidden: is missing"),
        ({"moecast_space": 2}, "moecast_space"),
        ({"genes": {}}, "/genes"),
        ({"rules": ["none"]}, "/rules"),
    ],
)
def test_broken_descriptions(change, message):
    with pytest.raises(moecast.InputError, match=message):
        Space({"moecast_space": 1, "family": "encoder-decoder", "fields": {}, **change})


def test_broken_choices_and_files(tmp_path):
    space = load_space("llm-moe")
    with pytest.raises(moecast.InputError, match="has no choice number"):
        space.architecture([99] * len(space.genes))
    with pytest.raises(moecast.InputError, match="shape"):
        space.architecture([0])
    with pytest.raises(moecast.InputError, match="is no choice"):
        space.encode({"decoder.hidden": 7})
    fields = {name: list(f.choices) for name, f in space.fields.items() if name in space.family.required}
    with pytest.raises(moecast.InputError, match="nothing to choose from"):
        Space({"moecast_space": 1, "family": "decoder", "fields": {**fields, "decoder.width": []}})
    with pytest.raises(moecast.UsageError, match="did you mean 'llm-moe'"):
        load_space("llm-mo")
    assert load_space("automoe").name == "automoe-wmt14-en-de"
    for name in (None, 5, [1]):
        with pytest.raises(moecast.UsageError, match="is no name"):
            load_space(name)
    for name in (tmp_path / "missing.json", "/dev/null/x.json", str(tmp_path) + "/"):
        with pytest.raises(moecast.InputError, match="no such file"):
            load_space(name)
    for count, seed in ((-1, 1), (1, "x"), (1, -1)):
        with pytest.raises(moecast.UsageError, match="random"):
            space.random(count, seed)
    with pytest.raises(moecast.InputError, match="is no dict"):
        space.encode([1])
    with pytest.raises(moecast.InputError, match="is no choice"):
        space.encode({"decoder.hidden": numpy.array([512, 768])})
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(moecast.InputError, match="is not JSON"):
        load_space(tmp_path / "bad.json")
    with pytest.raises(moecast.InputError, match="too many to list"):
        space.all()
