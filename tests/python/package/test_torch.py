"""PyTorch modules as architectures, and as references (Debian's torch; transformers where it is installed)."""

import moecast
import numpy
import pytest

torch = pytest.importorskip("torch")
nn = torch.nn


class Gated(nn.Module):
    def __init__(self, hidden, width):
        super().__init__()
        self.w1, self.w2, self.w3 = (
            nn.Linear(hidden, width, bias=False),
            nn.Linear(width, hidden, bias=False),
            nn.Linear(hidden, width, bias=False),
        )
        self.act_fn = nn.SiLU()


class ListBlock(nn.Module):
    """Mixtral's and Qwen's: experts as a list, a linear gate."""

    def __init__(self, hidden=64, width=96, experts=8, top_k=2):
        super().__init__()
        self.gate = nn.Linear(hidden, experts, bias=False)
        self.experts = nn.ModuleList(Gated(hidden, width) for _ in range(experts))
        self.top_k = top_k


class Fused(nn.Module):
    """Experts as fused parameters."""

    def __init__(self, experts=8, hidden=64, width=96):
        super().__init__()
        self.gate_up_proj = nn.Parameter(torch.empty(experts, 2 * width, hidden))
        self.down_proj = nn.Parameter(torch.empty(experts, hidden, width))
        self.act_fn = nn.SiLU()


class Router(nn.Module):
    def __init__(self, experts, hidden, top_k):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(experts, hidden))
        self.top_k = top_k


class FusedBlock(nn.Module):
    """DeepSeek's: a router of its own, fused experts, a shared expert."""

    def __init__(self):
        super().__init__()
        self.gate = Router(8, 64, 4)
        self.experts = Fused()
        self.shared_experts = Gated(64, 128)


def moe_of(architecture):
    import json

    d = json.loads(architecture.to_text())
    block = d["decoder"][0]["blocks"][0]
    return d["blocks"][block] if isinstance(block, str) else block


def test_experts_as_a_list():
    architecture = moecast.from_torch(ListBlock(), torch.zeros(3, 64))
    block = moe_of(architecture)
    assert architecture.hidden == 64 and architecture.dtype == "fp32"
    assert block["experts"][0]["count"] == 8 and block["experts"][0]["expert"]["width"] == 96
    assert block["router"]["top_k"] == 2
    assert architecture.total_parameters == pytest.approx(
        sum(p.numel() for p in ListBlock().parameters()) + 64 + 64, abs=130
    )


def test_fused_experts_and_a_shared_one():
    block = moe_of(moecast.from_torch(FusedBlock()))
    assert block["experts"][0]["count"] == 8 and block["experts"][0]["expert"]["width"] == 96
    assert block["router"]["top_k"] == 4 and block["shared"]["expert"]["width"] == 128


class Plain(nn.Module):
    """A network of experts and a gate, both of which can be given."""

    def __init__(self, gate=None, activation=nn.ReLU, top_k=1, norm=False):
        super().__init__()
        self.gate = gate or nn.Linear(32, 4)
        self.experts = nn.ModuleList(
            nn.Sequential(
                *([nn.LayerNorm(32)] if norm else []),
                nn.Linear(32, 64, bias=not norm),
                activation(),
                nn.Linear(64, 32, bias=not norm),
            )
            for _ in range(4)
        )
        self.top_k = top_k


def test_a_plain_sequence_of_experts_and_a_gate():
    architecture = moecast.from_torch(Plain())
    block = moe_of(architecture)
    assert block["experts"][0]["expert"]["activation"] == "relu" and block["experts"][0]["expert"]["gated"] is False
    assert architecture.total_parameters == sum(p.numel() for p in Plain().parameters()) + 2 * 32  # two norms
    pair = nn.Sequential(nn.Linear(32, 4), Plain().experts)
    assert moe_of(moecast.from_torch(pair, top_k=2))["router"]["top_k"] == 2
    with pytest.raises(moecast.InputError, match="top_k=2 was given"):
        moecast.from_torch(Plain(), top_k=2)
    assert moe_of(moecast.from_torch(Plain(top_k=numpy.int64(3))))["router"]["top_k"] == 3


def test_a_gate_of_several_layers_is_read_from_its_first():
    gate = nn.Sequential(nn.Linear(32, 16), nn.Tanh(), nn.Linear(16, 4))
    architecture = moecast.from_torch(Plain(gate), torch.zeros(1, 32))
    router = moe_of(architecture)["router"]
    assert architecture.hidden == 32 and router["network"] == "mlp" and router["mlp_widths"] == [16]
    assert architecture.total_parameters == sum(p.numel() for p in Plain(gate).parameters()) + 2 * 32
    with pytest.raises(moecast.InputError, match="no gate that chooses among 4"):
        moecast.from_torch(Plain(nn.Sequential(nn.Linear(32, 4), nn.Linear(32, 4))))


@pytest.mark.parametrize("activation", [nn.Tanh, nn.Mish])
def test_activations_that_are_not_known_are_named(activation):
    with pytest.raises(moecast.InputError, match=f"experts.0: a {activation.__name__} is no activation"):
        moecast.from_torch(Plain(activation=activation))


def test_a_norm_is_no_bias():
    assert "bias" not in moe_of(moecast.from_torch(Plain(norm=True)))["experts"][0]["expert"]


class WithAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(32, 4)
        self.moe = Plain()


def test_wrappers_are_looked_through_and_what_is_not_read_is_said():
    wrapped = nn.Sequential(nn.Sequential(Plain()))
    assert moecast.from_torch(wrapped).total_parameters == moecast.from_torch(Plain()).total_parameters
    with pytest.raises(moecast.InputError, match="attention.in_proj_weight the first"):
        moecast.from_torch(WithAttention())
    with pytest.raises(moecast.InputError, match="1.weight the first"):
        moecast.from_torch(nn.Sequential(Plain(), nn.Linear(32, 1000)))
    (note,) = moecast.from_torch(WithAttention(), experts_only=True).notes
    assert "4096 weights outside" in note


@pytest.mark.parametrize(
    "inputs, message",
    [
        ((torch.zeros(1, 33),), "end in 33"),
        ({"x": torch.zeros(2, 33)}, "end in 33"),
        (torch.tensor(1.0), "a single number"),
    ],
)
def test_example_inputs_are_checked_however_they_are_given(inputs, message):
    with pytest.raises(moecast.InputError, match=message):
        moecast.from_torch(Plain(), inputs)
    moecast.from_torch(Plain(), (torch.zeros(1, 32), torch.zeros(7)))


def test_a_container_becomes_layers():
    architecture = moecast.from_torch(nn.Sequential(ListBlock(), ListBlock(width=32), ListBlock()))
    assert architecture.layers == 3


@pytest.mark.parametrize(
    "module, message",
    [(nn.Linear(3, 3), "holds no experts"), (3, "no torch.nn.Module"), (ListBlock(experts=4, top_k=9), "top_k = 9")],
)
def test_what_is_not_understood_is_named(module, message):
    with pytest.raises(moecast.InputError, match=message):
        moecast.from_torch(module)
    with pytest.raises(moecast.InputError, match="example_inputs"):
        moecast.from_torch(ListBlock(), torch.zeros(2, 65))


def test_the_reference_computes_what_its_parts_compute():
    from moecast.torch_reference import Model, layer_of

    torch.manual_seed(1)
    layer = layer_of(moecast.Architecture.moe_layer(32, 64, 4, 2))
    x = torch.randn(7, 32)
    with torch.no_grad():
        weights, chosen = torch.topk(torch.softmax(layer.router(x), -1), 2)
        weights = weights / weights.sum(-1, keepdim=True)
        expected = torch.stack(
            [sum(weights[t, j] * layer.experts[chosen[t, j]](x[t]) for j in range(2)) for t in range(7)]
        )
        assert torch.allclose(layer(x), expected, atol=1e-5)
    space = moecast.load_space("automoe-wmt14-en-de")
    model = Model(space.architecture(space.random(1, 1)[0])).eval()
    with torch.no_grad():
        model.translate(9, 3, 2)()
    llm = Model(moecast.load_space("llm-moe").architecture(moecast.load_space("llm-moe").random(1, 1)[0])).eval()
    with torch.no_grad():
        assert llm.decode_step(2, 16)().shape == (2, 32000)


def test_experts_are_drawn_alike_where_routing_is_even():
    from moecast.runners import TorchTranslation
    from moecast.torch_reference import Model

    space = moecast.load_space("automoe-wmt14-en-de")
    model = Model(space.architecture(space.random(1, 1)[0])).eval()
    moe = next(m for m in model.modules() if type(m).__name__ == "MoE" and len(m.experts) > 1)
    rows = [0] * len(moe.experts)
    for number, expert in enumerate(moe.experts):
        expert.register_forward_pre_hook(lambda m, x, number=number: rows.__setitem__(number, len(x[0])))
    alike = torch.ones(4000, moe.router.in_features)
    with torch.no_grad():
        moe(alike)
        assert sorted(rows)[-1] == 4000  # one expert has them all
        model.route_evenly(3)
        moe(alike)
    assert sum(rows) == 4000
    assert max(abs(r - 4000 / len(rows)) for r in rows) < 250  # eight standard deviations
    request = moecast.Request(prompt=4, target=2, beams=2, encoder_decoder=True)
    for routing in ("even", "router"):
        (execution,) = TorchTranslation(request, least_s=0.01, least_runs=2, routing=routing).run(
            [space.architecture(space.random(1, 1)[0])]
        )
        assert execution.latency_s > 0
    with pytest.raises(moecast.UsageError, match="routing"):
        TorchTranslation(request, routing="other")
    with pytest.raises(moecast.UsageError, match="zipf"):
        TorchTranslation(moecast.Request(encoder_decoder=True, load="zipf:1"))


@pytest.fixture(scope="module")
def profiled(tmp_path_factory):
    """PyTorch's operators on this machine: few points in two rounds, for a judgement of a handful of cases."""
    from moecast.torch_profile import profile

    folder = tmp_path_factory.mktemp("profile") / "torch"
    return profile(folder, name="torch-test", gemms=60, stages=10, budget_s=0.01, rounds=2)


def judge(report, cases, kernels_ratio):
    """Bounds of a handful of cases, of a machine that held still while they were executed.

    A busy one moves whole cases by half their time, which no bound that is worth having allows: above a noise of 10 %
    nothing is judged, as in docs/nas.md. Below it, six runs read a MAPE of 2 to 10 % and a tau of 0.87 to 1; of six
    cases each pair that swaps takes 0.13 from tau.
    """
    assert report["n"] == cases and numpy.isfinite(report["mape"]) and report["noise"] is not None
    if report["noise"] > 0.1:
        pytest.skip(f"the machine is busy: two halves of the rounds differ by {report['noise']:.0%}")
    assert report["mape"] < 0.25 and report["tau"] > 0.5
    # The kernels alone must account for the work: a stage law gone wild shows here, before anything is fitted to it.
    least, most = kernels_ratio
    assert least < report["kernels_ratio"] < most
    # Few cases taught the interval, and few are judged by it: half of six were slower than its end in one run of six.
    # All of them outside would be an interval of something else.
    assert report["coverage"] >= 0.3 and report["false_feasible"] <= 0.7


def test_blocks_not_profiled_are_predicted(profiled):
    """A handful: the whole judgement is tools/dev/validate-torch."""
    from moecast.torch_validation import validate_layers

    report = validate_layers(profiled, cases=8, closing=10, seed=1, least_s=0.02, rounds=2)
    # Kernels that were profiled while the machine was busier or calmer than it is now: seen 0.75 to 1.2.
    judge(report, 8, (0.6, 1.5))


def test_translation_end_to_end_is_predicted(profiled):
    """A handful of AutoMoE's models, on a space that is small enough for a test."""
    from moecast.torch_validation import validate_translation

    fields = {
        "vocabulary": 1000,
        "encoder.hidden": [128, 256],
        "encoder.layers": 2,
        "encoder.heads": 4,
        "encoder.width": 256,
        "encoder.experts": {"per_layer": [1, 2, 4]},
        "decoder.hidden": [128, 256],
        "decoder.layers": [1, 2, 3],
        "decoder.heads": 4,
        "decoder.width": {"per_layer": [256, 1024]},
        "decoder.experts": {"per_layer": [1, 2, 4]},
    }
    request = {"kind": "request", "prompt": 8, "target": 6, "beams": 2, "encoder_decoder": True}
    space = {"moecast_space": 1, "name": "tiny", "family": "encoder-decoder", "fields": fields, "workload": request}
    report = validate_translation(profiled, cases=6, closing=6, seed=1, space=space, rounds=2)
    assert len(report["cases"][0]["genome"]) == len(moecast.load_space(space).genes)
    # Python between such small kernels takes up to half of the time: seen 1.3 to 1.6.
    judge(report, 6, (0.7, 2.2))


def test_blocks_of_transformers_are_executed_and_read_alike():
    pytest.importorskip("transformers", minversion="5")
    from moecast.torch_hugging_face import EXPERTS, KINDS, execute, make_block

    layer = {"hidden": 64, "width": 96, "experts": 8, "top_k": 2, "tokens": 5}
    for kind in KINDS:
        for experts in EXPERTS:
            architecture, rows, seconds, _ = execute(kind, layer, experts, torch.float32, 0.01)
            assert sum(rows) == 10 and seconds > 0
            block = make_block(kind, layer, experts)
            matrices = sum(p.numel() for p in block.parameters() if p.ndim >= 2)
            assert architecture.total_parameters == matrices + 2 * 64  # two norms
    with pytest.raises(moecast.UsageError, match="write one of mixtral"):
        make_block("mixtrla", layer)


def test_whole_models_of_transformers_are_read_through_their_wrappers():
    transformers = pytest.importorskip("transformers", minversion="5")
    config = transformers.MixtralConfig(
        hidden_size=64,
        intermediate_size=96,
        num_local_experts=4,
        num_experts_per_tok=2,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=100,
    )
    model = transformers.MixtralForCausalLM(config)
    for whole in (model, nn.Sequential(model), nn.DataParallel(model)):
        assert moecast.from_torch(whole).total_parameters == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    "words, code, said",
    [
        (["--seed", "-1"], 2, "error: --seed: -1 is out of range"),
        (["--threads", "0"], 2, "error: --threads: 0 is out of range"),
        (["--gemms", "x"], 2, "error: --gemms: invalid int value"),
        (["--dtype", "fp7"], 2, "error: --dtype: invalid choice"),
    ],
)
def test_wrong_words_of_the_profile_are_wrong_usage(capsys, words, code, said):
    from moecast.torch_profile import run

    assert run(["--backend", "torch", *words]) == code
    assert capsys.readouterr().err.startswith(said)


def test_a_profile_without_the_program_is_a_device_that_is_missing(capsys, monkeypatch):
    from moecast import torch_profile

    def missing(*_args, **_fields):
        raise moecast.DeviceError("moecast: the program is missing (install the package again)")

    monkeypatch.setattr(torch_profile, "profile", missing)
    assert torch_profile.run(["--backend", "torch"]) == 4
    assert capsys.readouterr().err == "error: moecast: the program is missing\nhint: install the package again\n"
