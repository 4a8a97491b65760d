"""Spaces as data (A5, A18, A20, A12)."""

import json

import moecast
import numpy
import pytest
from moecast.spaces import Space, SpaceTimes, load_space, space_names, supernet_cost
from moecast.spaces.families import _split


def test_the_global_grid_has_180_that_all_simulate_A5(predictor):
    space = load_space("automoe-180")
    assert space.size() == 5 * 3 * 3 * 4 == len(space.all())
    columns = SpaceTimes(space, predictor).predict(space.all())
    assert (columns["status"] == 0).all() and (columns["latency_s"] > 0).all()


def latencies_of_more_experts(hw, tokens):
    predictor = moecast.Predictor(hw, threads=1)
    return [
        predictor.predict(moecast.Architecture.moe_layer(512, 2048, e, 2), tokens=tokens).latency_s
        for e in (2, 4, 8, 16, 32)
    ]


@pytest.mark.parametrize("hw", ["amd-epyc-2cpu", "amd-epyc-zen4-2cpu", "intel-xeon-processor-2cpu"])
def test_more_experts_read_more_weights_A5(hw):
    few = latencies_of_more_experts(hw, 8)
    assert few == sorted(few), "never faster at fixed top-k and tokens"


def test_latency_follows_the_experts_where_memory_bounds_and_not_where_arithmetic_does_A5():
    """On a machine whose arithmetic is fast: of the first EPYC, eight rows take longer than the weights they use."""
    few = latencies_of_more_experts("amd-epyc-zen4-2cpu", 8)
    # 8 tokens that choose 2 of E touch 2 experts of 2, and 12.9 of 32: 6.5 times the weights, which no cache holds.
    assert few[-1] > 6.5 * few[0]
    many = latencies_of_more_experts("amd-epyc-zen4-2cpu", 2048)
    # 4,096 rows in any case, 128 or more an expert: GEMMs of other heights are as efficient within 5 %.
    flat = 1.05
    assert max(many) < flat * min(many)


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


def standalone(genes):
    """The model that these genes of AutoMoE's space describe, written down without it."""
    hidden = {"encoder": genes["encoder.hidden"], "decoder": genes["decoder.hidden"]}

    def attention(heads, **more):
        fields = {"type": "attention", "heads": heads, "kv_heads": heads, "head_dim": 512 // heads}
        return {**fields, "bias_qkv": True, "bias_out": True, **more}

    def feed_forward(stack, layer):
        count, plain = genes[f"{stack}.{layer}.experts"], {"gated": False, "bias": True, "activation": "relu"}
        if count == 1:
            return {"type": "ffn", "ffn": {**plain, "width": genes[f"{stack}.{layer}.width"]}}
        own = [genes[f"{stack}.{layer}.{e}.expert_width"] for e in range(count)]
        experts = [{"count": own.count(w), "expert": {**plain, "width": w}} for w in sorted(set(own))]
        return {"type": "moe", "experts": experts, "router": {"top_k": 1}}

    model = {"moecast_architecture": 1, "name": "alone", "hidden": hidden["decoder"], "vocabulary": 32768}
    model |= {"encoder_hidden": hidden["encoder"], "tied_embeddings": True, "dtype": "fp32"}
    for stack in ("encoder", "decoder"):
        model[stack] = []
        for layer in range(genes.get(f"{stack}.layers", 6)):
            blocks = [attention(genes[f"{stack}.{layer}.heads"], causal=stack == "decoder")]
            if stack == "decoder":
                sources = genes[f"decoder.{layer}.source_layers"]
                heads = genes[f"decoder.{layer}.cross_heads"]
                blocks.append(attention(heads, kind="cross", causal=False, source_layers=sources))
            model[stack].append({"blocks": [*blocks, feed_forward(stack, layer)]})
    return moecast.Architecture.from_dict(model)


def test_a_subnet_costs_what_the_standalone_configuration_costs_A12(predictor):
    """Through the numbered layers of the space, against a configuration that was written without it."""
    space = load_space("automoe-wmt14-en-de")
    times = SpaceTimes(space, predictor)
    genomes = space.random(12, 9)
    columns = times.predict(genomes)
    for row, genome in enumerate(genomes):
        alone = predictor.predict(standalone(space.decode(genome)), times.workload)
        assert columns["total_parameters"][row] == alone.total_parameters
        assert columns["flops"][row] == pytest.approx(alone.flops, rel=1e-9)
        # 1 %: layers are costed at a few footprints, between which a model's own is read off.
        assert columns["latency_s"][row] == pytest.approx(alone.latency_s, rel=0.01)


def test_a_supernet_costs_its_slowest_or_a_drawn_subnet_A12(predictor):
    times = SpaceTimes(load_space("automoe-180"), predictor)
    everything = times.predict(times.space.all())
    most = supernet_cost(times)
    assert most["latency_s"] == everything["latency_s"].max()
    assert times.one(most["genome"])[0] == most["latency_s"]
    assert most["total_parameters"] == everything["total_parameters"].max()
    drawn = supernet_cost(times, "sampled", samples=4000)
    # Of 4,000 draws the mean is known to a 60th of the spread.
    spread = everything["latency_s"].std() / 60
    assert drawn["latency_s"] == pytest.approx(everything["latency_s"].mean(), abs=4 * spread)
    assert drawn["memory_bytes"] == most["memory_bytes"] and drawn["genome"] is None
    assert supernet_cost(times, "sampled", samples=4000) == drawn
    with pytest.raises(moecast.UsageError, match="mode"):
        supernet_cost(times, "mean")


@pytest.mark.parametrize("name", ["automoe-wmt14-en-de", "llm-moe"])
def test_no_subnet_is_slower_than_its_supernet_A12(name, predictor):
    times = SpaceTimes(load_space(name), predictor)
    most = supernet_cost(times)
    drawn = times.predict(times.space.random(3000, 2))
    for column in ("latency_s", "memory_bytes", "total_parameters"):
        assert drawn[column].max() <= most[column]


def test_finer_experts_are_the_same_work_at_a_price_C15():
    """Twice and four times as many experts of a half and a quarter: the same weights and FLOPs, more calls."""
    predictor = moecast.Predictor("amd-epyc-zen4-2cpu", threads=1)
    coarse = moecast.Architecture.moe_layer(512, 2048, 8, 2)
    before, calls, latency = coarse.total_parameters, 0, 0
    for parts in (1, 2, 4):
        fine = coarse.split_experts(parts)
        more = 512 * 8 * (parts - 1)  # columns of the router
        assert fine.total_parameters - before == more
        assert fine.flops(new_tokens=4) - coarse.flops(new_tokens=4) == 2 * 4 * more
        answer = predictor.predict(fine, tokens=4)
        # Two projections and the activation of every touched expert (of 8 experts 5.5, of 16 twice as many); router,
        # selection, permutation and back.
        touched = 8 * parts * (1 - (1 - 2 / 8) ** 4)
        assert answer.calls() == pytest.approx(3 * touched + 4, rel=1e-12)
        assert answer.calls() > calls and answer.latency_s > latency, "the price of the latency is reported"
        calls, latency = answer.calls(), answer.latency_s
    assert coarse.split_experts(1) == coarse


def test_finer_experts_are_more_copies_of_tokens_C15():
    """Over two nodes DeepEP sends a token to each rank that holds one of its experts."""
    coarse = moecast.Architecture.moe_layer(7168, 2048, 256, 8)
    gpus = moecast.Predictor("h200-sxm", backend="sglang", ep=16, dp=16)
    sent = [gpus.predict(coarse.split_experts(parts), tokens=2048).factors["all_to_all_s"] for parts in (1, 2, 4)]
    assert sent[0] < sent[1] < sent[2]


def test_a_granularity_is_the_split_of_every_expert_C15():
    space = small({"granularity": [1, 2, 4], "decoder.experts": [1, 8], "decoder.top_k": [2]})
    for genome in space.all():
        genes = space.decode(genome)
        coarse = space.architecture(space.encode({**genes, "granularity": 1}))
        assert space.architecture(genome) == coarse.split_experts(genes["granularity"])
    shared = small({"granularity": [1, 4], "decoder.experts": [8], "decoder.shared_experts": [1]})
    (block,) = [
        b for b in shared.architecture(shared.encode({"granularity": 4})).to_dict()["blocks"].values() if "shared" in b
    ]
    assert block["shared"]["expert"]["width"] == 512 // 4, "of the size of the fine ones"


@pytest.mark.parametrize("width, parts", [(1000, 3), (1000, 16), (512, 3)])
def test_a_granularity_that_does_not_divide_is_refused_C15(width, parts):
    problem = f"{parts} parts do not divide an expert of width {width}"
    fields = {"granularity": [1, parts], "decoder.experts": [4], "decoder.width": [width]}
    with pytest.raises(moecast.InputError, match=f"/fields/granularity: {problem}"):
        small(fields)
    with pytest.raises(moecast.InputError, match="/fields/granularity"):
        small({**fields, "decoder.width": 960, "decoder.expert_width": {"per_expert": [480, width]}})
    with pytest.raises(moecast.InputError, match=problem):
        moecast.Architecture.moe_layer(512, width, 8, 2).split_experts(parts)
    with pytest.raises(moecast.InputError, match=f"granularity: .*{problem}"):
        _split(f'{{"type":"moe","experts":[{{"count":2,"expert":{{"width":{width}}}}}],"router":{{"top_k":1}}}}', parts)
    small({**fields, "decoder.experts": [1]})  # a dense network is not cut


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
