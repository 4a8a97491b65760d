"""moecast.Predictor, HardwareAwareMoE: values, columns, errors, threads."""

import concurrent.futures
import json
import pathlib
import pickle
import subprocess
import threading

import moecast
import numpy
import pytest
from moecast.program import program


def columns(n, seed=1):
    g = numpy.random.default_rng(seed)
    return {
        "hidden": g.integers(4, 16, n, dtype=numpy.int32) * 64,
        "width": g.integers(4, 32, n, dtype=numpy.int32) * 64,
        "experts": g.choice(numpy.array([4, 8, 16, 32], numpy.int32), n),
        "top_k": g.choice(numpy.array([1, 2, 4], numpy.int32), n),
        "tokens": g.choice(numpy.array([1, 7, 64, 300], numpy.int32), n),
    }


def test_says_what_the_command_line_says(predictor, layer):
    said = subprocess.run(
        [
            program(),
            "predict",
            "--hw",
            "amd-epyc-2cpu",
            "--threads",
            "1",
            "--hidden",
            "512",
            "--width",
            "1024",
            "--experts",
            "8",
            "--top-k",
            "2",
            "--tokens",
            "64",
            "--dtype",
            "fp32",
            "--format",
            "json",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    said = json.loads(said.stdout)
    mine = json.loads(predictor.predict(layer, tokens=64).to_text())
    for key in ("status", "latency_s", "latency_low_s", "latency_high_s", "factors", "memory_per_rank", "bottleneck"):
        assert mine[key] == said[key], key
    assert set(mine) == set(said)


def test_a_whole_model_and_its_explanation(predictor):
    model = moecast.Architecture.load("granite-3-1b-a400m")
    answer = predictor.predict(model, batch=1, context=128)
    assert answer.status == "ok" and answer.latency_low_s < answer.latency_s < answer.latency_high_s
    explained = predictor.explain(model, batch=1, context=128)
    assert explained["latency_s"] == answer.latency_s
    assert all(t <= answer.latency_s for t in explained["latency_without_s"].values())


def test_a_gpu_step():
    gpu = moecast.Predictor("h200-sxm")
    assert gpu.gpu
    answer = gpu.predict(moecast.Architecture.load("qwen3-30b-a3b"), batch=16, context=2048, tp=2, ep=2)
    assert answer.status == "ok"
    batch = gpu.predict_batch([moecast.Architecture.load("qwen3-30b-a3b")] * 2, batch=16, context=2048)
    assert batch["latency_s"][0] == batch["latency_s"][1] > 0


def test_columns_of_layers_agree_with_single_answers(predictor):
    layers = columns(60)
    batch = predictor.predict_batch(layers)
    for i in range(60):
        c = {name: int(v[i]) for name, v in layers.items()}
        architecture = moecast.Architecture.moe_layer(c["hidden"], c["width"], c["experts"], c["top_k"])
        one = predictor.predict(architecture, tokens=c["tokens"])
        assert batch["latency_s"][i] == pytest.approx(one.latency_s, rel=0.03)
    single = predictor.layers().one(*(int(layers[n][3]) for n in ("hidden", "width", "experts", "top_k", "tokens")))
    assert single[0] == pytest.approx(batch["latency_s"][3], rel=1e-6)


def test_whole_models_agree_with_single_answers(predictor):
    space = moecast.load_space("llm-moe")
    models = [space.architecture(g) for g in space.random(12, 5)]
    for workload in (moecast.Workload(batch=2, context=300), moecast.Workload("prefill", prompt=70)):
        batch = predictor.predict_batch(models, workload)
        for i, model in enumerate(models):
            one = predictor.predict(model, workload)
            assert batch["latency_s"][i] == pytest.approx(one.latency_s, rel=0.01)
            assert batch["latency_high_s"][i] == pytest.approx(one.latency_high_s, rel=0.015)
            assert batch["memory_bytes"][i] == pytest.approx(one.memory["total_bytes"], rel=1e-3)
            assert batch["total_parameters"][i] == pytest.approx(one.total_parameters)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"hidden": numpy.array([1.5] * 4)}, "dtype float64"),
        ({"hidden": numpy.array([[64] * 4])}, "2 dimensions"),
        ({"tokens": numpy.array([1, 2, 3])}, "tokens has 3 rows"),
        ({"top_k": numpy.array([1, 1, 99, 1])}, "row 2"),
        ({"experts": numpy.array([4, 4, 4, 2**40])}, "row 3"),
        ({"capacity_factor": numpy.array([1, numpy.nan, 1, 1], numpy.float32)}, "row 1"),
        ({"heads": numpy.array([1] * 4)}, "heads: is no column"),
    ],
)
def test_bad_columns_name_the_fault(predictor, change, message):
    with pytest.raises(moecast.InputError, match=message):
        predictor.predict_batch({**columns(4), **change})


def test_bad_arguments_raise_what_the_command_line_says(predictor, layer):
    with pytest.raises(moecast.UsageError, match='did you mean "h200-sxm"'):
        moecast.Predictor("h200-smx")
    with pytest.raises(moecast.UsageError, match="zipf"):
        predictor.predict(layer, batch=1, load="zipf")
    with pytest.raises(moecast.UsageError, match="memory"):
        predictor.predict(layer, tokens=4, without=["memory"])
    with pytest.raises(moecast.UsageError, match="tokens: 0"):
        predictor.predict(layer, tokens=0)
    with pytest.raises(moecast.UsageError, match="batch"):
        predictor.predict(layer, batch=0)
    with pytest.raises(moecast.UsageError, match="bacth"):
        predictor.predict(layer, bacth=1)
    with pytest.raises(moecast.UsageError, match="top-k"):
        moecast.Architecture.moe_layer(64, 64, 4, 8)
    with pytest.raises(ValueError, match='did you mean "hidden"'):
        moecast.Architecture.from_dict({"moecast_architecture": 1, "hiden": 4, "decoder": []})
    with pytest.raises(moecast.Error):
        moecast.Architecture.load("no-such-model")


def test_degrees_of_a_deployment_are_those_of_the_command_line(predictor):
    gpu = moecast.Predictor("h200-sxm", backend="vllm")
    model = moecast.Architecture.load("qwen3-30b-a3b")
    step = moecast.Workload("prefill", batch=8, prompt=2048)
    stages = gpu.predict(model, step, pp=2, micro_batches=8)
    assert stages.latency_s < gpu.predict(model, step, pp=2, micro_batches=1).latency_s
    assert gpu.predict(model, step, cp=2).latency_s < gpu.predict(model, step).latency_s
    copies = gpu.predict(model, step, tp=1, dp=4, ep=4, redundant_experts=4)
    assert copies.memory["weights_bytes"] > gpu.predict(model, step, tp=1, dp=4, ep=4).memory["weights_bytes"]
    with pytest.raises(moecast.InputError, match="cp"):
        predictor.predict(model, batch=1, cp=2)


def test_the_cache_has_a_format_and_the_model_a_longest_context(predictor):
    gpu = moecast.Predictor("h200-sxm", backend="vllm")
    model = moecast.Architecture.load("qwen3-30b-a3b")
    step = moecast.Workload("decode", batch=32, context=4096)
    usual = gpu.predict(model, step)
    small = gpu.predict(model, step, kv_dtype="fp8")
    assert small.memory["kv_cache_bytes"] == usual.memory["kv_cache_bytes"] / 2
    assert small.latency_s < usual.latency_s
    assert moecast.Predictor("h200-sxm", backend="vllm", kv_dtype="fp8").predict(model, step).memory == small.memory
    assert gpu.predict(model, step, max_context=4000).status == "outside_range"
    batch = gpu.predict_batch([model], step, kv_dtype="fp8")
    assert batch["latency_s"][0] == small.latency_s
    layer = moecast.Architecture.moe_layer(256, 512, 8, 2)
    for ask in (predictor.predict, lambda layer, **fields: predictor.predict_batch([layer], **fields)):
        with pytest.raises(moecast.UsageError, match="kv_dtype"):
            ask(layer, tokens=4, kv_dtype="fp8")
    with pytest.raises(moecast.InputError, match="kv_dtype"):
        predictor.predict(model, step, kv_dtype="fp8")
    with pytest.raises(moecast.UsageError, match="kv_dtype"):
        gpu.predict(model, step, kv_dtype="fp9")


def test_an_all_reduce_that_norms_is_part_of_a_deployment(predictor):
    gpu = moecast.Predictor("b200-sxm", backend="vllm")
    model = moecast.Architecture.load("llama-3.1-70b")
    step = moecast.Workload("decode", batch=16, context=1024)
    fused = gpu.predict(model, step, tp=8, all_reduce="trtllm")
    assert fused.latency_s < gpu.predict(model, step, tp=8).latency_s
    same = moecast.Predictor("b200-sxm", backend="vllm", tp=8, all_reduce="trtllm")
    assert same.predict(model, step).latency_s == fused.latency_s
    for asked, error in ((gpu, moecast.UsageError), (predictor, moecast.InputError)):
        with pytest.raises(error, match="all_reduce"):
            asked.predict(model, step, all_reduce="other" if asked is gpu else "trtllm")
    with pytest.raises(moecast.UsageError, match="all_reduce"):
        predictor.predict(moecast.Architecture.moe_layer(256, 512, 8, 2), tokens=4, all_reduce="trtllm")


def test_a_prefix_is_attended_to_and_costs_no_compute_c22(predictor):
    gpu = moecast.Predictor("h200-sxm", backend="vllm")
    space = moecast.load_space("llm-moe")
    small = space.architecture(space.random(1, 5)[0])
    for machine, model in ((gpu, moecast.Architecture.load("olmoe-1b-7b")), (predictor, small)):
        cold, warm, whole = (
            machine.predict(model, phase="prefill", batch=1, prompt=prompt, prefix=prefix).latency_s
            for prompt, prefix in ((256, 0), (256, 512), (768, 0))
        )
        assert cold < warm < whole
    batch = [predictor.predict_batch([small], phase="prefill", prompt=256, prefix=p)["latency_s"][0] for p in (0, 512)]
    assert batch[0] < batch[1]
    with pytest.raises(moecast.UsageError, match="prefix"):
        predictor.predict(small, phase="decode", prefix=16)


def test_guessed_tokens_make_a_token_cheaper():
    gpu = moecast.Predictor("h200-sxm", backend="vllm")
    model = moecast.Architecture.load("glm-4.5-air")
    plain = gpu.predict(model, batch=8, tp=4)
    guessed = gpu.predict(model, batch=8, tp=4, draft_tokens=1, acceptance=0.8)
    assert plain.tpot_s == plain.latency_s
    assert guessed.tpot_s == pytest.approx(guessed.latency_s / 1.8, rel=1e-12)
    assert plain.latency_s < guessed.latency_s < 1.8 * plain.latency_s
    with pytest.raises(moecast.InputError, match="acceptance"):
        gpu.predict(model, batch=8, tp=4, draft_tokens=1)
    with pytest.raises(moecast.InputError, match="draft_tokens"):
        gpu.predict(moecast.Architecture.load("mixtral-8x7b"), batch=8, tp=4, draft_tokens=1, acceptance=0.8)


def test_does_not_fit_is_an_answer(predictor):
    answer = predictor.predict(moecast.Architecture.load("deepseek-v3"), batch=1)
    assert answer.status == "does_not_fit" and answer.latency_s is None and "too much" in answer.reason
    columns_ = predictor.predict_batch([moecast.Architecture.load("mixtral-8x22b")], batch=1)
    assert columns_["status"][0] == 1 and numpy.isnan(columns_["latency_s"][0])


def test_threads_share_a_predictor_and_processes_get_a_copy(predictor):
    layers = columns(500)
    expected = predictor.predict_batch(layers)["latency_s"]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for got in pool.map(lambda _: predictor.predict_batch(layers)["latency_s"], range(16)):
            numpy.testing.assert_array_equal(got, expected)
    again = pickle.loads(pickle.dumps(predictor))
    numpy.testing.assert_allclose(again.predict_batch(layers)["latency_s"], expected, rtol=1e-6)
    model = moecast.Architecture.load("olmoe-1b-7b")
    assert pickle.loads(pickle.dumps(model)) == model


def test_the_data_folder_may_be_set_while_others_read_it():
    """Predictors are made without Python's lock, so nothing of Python's guards the folder."""
    folder = pathlib.Path(moecast.profile_folder("h200-sxm")).parents[1]
    before = str(folder) if moecast._data.SHARE.exists() else ""
    done = threading.Event()

    def keep_setting():
        while not done.is_set():
            for path in (str(folder), str(folder) + "/." * 20):  # of different lengths, so that the text moves
                moecast._core.set_data_folder(path)

    setter = threading.Thread(target=keep_setting)
    setter.start()
    try:
        for _ in range(100):
            moecast.Predictor("amd-epyc-2cpu")
    finally:
        done.set()
        setter.join()
        moecast._core.set_data_folder(before)


class TestHardwareAwareMoE:
    """The literal interface (A24) and its four factors (A25)."""

    CONFIG = {"hidden": 512, "width": 1024, "experts": 8, "top_k": 2, "tokens": 64}

    def test_estimates_latency_A24(self):
        estimate = moecast.HardwareAwareMoE("amd-epyc-2cpu").estimate_latency(self.CONFIG)
        assert estimate["status"] == "ok" and estimate["latency_s"] > 0
        named = moecast.HardwareAwareMoE("h200-sxm").estimate_latency(
            moecast.Architecture.load("qwen3-30b-a3b"), batch=8, context=512
        )
        assert named["latency_s"] > 0
        with pytest.raises(moecast.UsageError, match="hidden: None is not a whole number"):
            moecast.HardwareAwareMoE("amd-epyc-2cpu").estimate_latency({**self.CONFIG, "hidden": None})
        with pytest.raises(moecast.InputError, match="moe_config"):
            moecast.HardwareAwareMoE("amd-epyc-2cpu").estimate_latency({"decoder": {1}})
        with pytest.raises(moecast.UsageError, match="top_k"):
            moecast.HardwareAwareMoE("amd-epyc-2cpu").estimate_latency({"hidden": 1, "width": 1, "experts": 1})

    def test_exactly_four_factors_and_compute_A25(self):
        estimate = moecast.HardwareAwareMoE("amd-epyc-2cpu").estimate_latency(self.CONFIG)
        factors = estimate["factors"]
        assert set(factors) == {
            "all_to_all_s",
            "memory_bandwidth_s",
            "routing_overhead_s",
            "compute_s",
            "expert_parallel_efficiency_ratio",
        }
        assert factors["all_to_all_s"] == 0 and factors["expert_parallel_efficiency_ratio"] == 1
        assert sum(v for k, v in factors.items() if k.endswith("_s")) <= estimate["latency_s"] * (1 + 1e-9)

    @pytest.mark.parametrize(
        "hw, config, workload",
        [
            ("amd-epyc-2cpu", CONFIG, {}),
            ("h200-sxm", "qwen3-30b-a3b", {"batch": 32, "context": 1024, "ep": 8, "dp": 8}),
        ],
    )
    def test_removing_a_factor_never_slows_A25(self, hw, config, workload):
        aware = moecast.HardwareAwareMoE(hw)
        config = moecast.Architecture.load(config) if isinstance(config, str) else config
        whole = aware.estimate_latency(config, **workload)
        assert whole["status"] == "ok"
        ratio = whole["factors"]["expert_parallel_efficiency_ratio"]
        assert 0 < ratio <= 1
        for factor in aware.FACTORS:
            assert (
                aware.estimate_latency(config, without=[factor], **workload)["latency_s"] <= whole["latency_s"]
            ), factor

    @pytest.mark.parametrize(
        "degrees", [{"ep": 8, "dp": 8}, {"ep": 8, "tp": 8}, {"ep": 4, "tp": 2, "dp": 2}, {"ep": 8}]
    )
    def test_efficiency_is_one_device_over_all_of_them_whoever_said_them_A25(self, degrees):
        model = moecast.Architecture.load("qwen3-30b-a3b")
        step = {"batch": 64, "context": 1024}
        devices = max(degrees["ep"], degrees.get("tp", 1) * degrees.get("dp", 1))
        alone = moecast.Predictor("h200-sxm").predict(model, **step).latency_s
        by_call = moecast.HardwareAwareMoE("h200-sxm").estimate_latency(model, **step, **degrees)
        by_predictor = moecast.HardwareAwareMoE("h200-sxm", **degrees).estimate_latency(model, **step)
        assert by_call == by_predictor
        ratio = by_call["factors"]["expert_parallel_efficiency_ratio"]
        assert ratio == pytest.approx(alone / (devices * by_call["latency_s"]), rel=1e-12) and ratio <= 1
        perfect = moecast.HardwareAwareMoE("h200-sxm", **degrees).estimate_latency(
            model, without="expert-parallel-efficiency", **step
        )
        assert perfect["latency_s"] == pytest.approx(alone / devices, rel=1e-12)

    def test_efficiency_of_a_request_is_that_of_all_its_steps_A25(self):
        model = moecast.Architecture.load("qwen3-30b-a3b")
        request = moecast.Request(batch=16, prompt=512, target=64)
        alone = moecast.Predictor("h200-sxm").predict(model, request)
        spread = moecast.Predictor("h200-sxm", ep=4, dp=4).predict(model, request)
        ratio = spread.factors["expert_parallel_efficiency_ratio"]
        assert ratio == pytest.approx(alone.latency_s / (4 * spread.latency_s), rel=1e-9)
