"""Steps and loads of real servers: bars of docs/accuracy.md, where the public measurements are at hand."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MOECAST = Path(os.environ.get("MOECAST", ROOT / "build/release/moecast"))
DATA = ROOT.parent / "shared/measurements"
MODEL = "qwen3.6-35b-a3b"
LOG = f"{MODEL}.b300_sxm.vllm-0.20.1"

needs_data = pytest.mark.skipif(not DATA.exists(), reason=f"{DATA} is not there")


def run(*arguments):
    done = subprocess.run([MOECAST, *map(str, arguments), "--format", "json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def steps(name, tp, ep, dp, *more):
    return run("validate", "steps", "--model", MODEL, "--dtype", "bf16", "--hw", "b300-sxm", "--backend", "vllm-0.24.0",
               "--tp", tp, "--ep", ep, "--dp", dp, "--table", DATA / f"steps/{LOG}.{name}.csv.gz", *more)


def strata(report):
    return {stratum["name"]: stratum for stratum in report["strata"]}


@needs_data
@pytest.mark.parametrize("name,tp,ep,dp,decode,mixed,prefill,run_time", [
    ("tp.tp1_ep1", 1, 1, 1, 0.035, 0.08, 0.15, 0.02),  # the constants are fitted here
    ("tp.tp2_ep2", 2, 2, 1, 0.03, 0.08, 0.15, 0.02),
    ("tp.tp4_ep4", 4, 4, 1, 0.03, 0.08, 0.15, 0.02),
    ("dp.tp1_ep4", 1, 4, 4, 0.065, 0.20, 0.18, 0.15)])
def test_steps_of_a_server(name, tp, ep, dp, decode, mixed, prefill, run_time):
    report = steps(name, tp, ep, dp)
    found = strata(report)
    assert found["decode"]["mape"] < decode
    assert found["mixed"]["mape"] < mixed
    assert found["prefill"]["mape"] < prefill
    assert found["all"]["n"] == found["decode"]["n"] + found["mixed"]["n"] + found["prefill"]["n"]
    assert not report["not_executed"]
    assert abs(report["segment_ratios"]["real"] - 1) < run_time  # what is served; prompts after idling are the rest
    assert set(report["segment_ratios"]) == {"real", "sweep"}


@needs_data
def test_another_model_of_the_engine():
    """Host constants of Qwen3.6-35B-A3B's steps, kernels of tables, and nothing of a served load: Llama-3.1-70B."""
    found = strata(run("validate", "serving", "--table", DATA / "serving/aggregated_ttft_tpot.csv.gz",
                       "--step-law", "host"))
    assert found["tpot engine vllm"]["n"] == 225
    assert found["tpot engine vllm"]["mape"] < 0.15
    assert 0.86 < found["tpot engine vllm"]["coverage_90_ratio"] < 0.96
    for words in (["--fit"], ["--leave-out", "model"]):
        done = subprocess.run([MOECAST, "validate", "serving", "--table", "x", "--step-law", "host", *words],
                              capture_output=True, text=True)
        assert done.returncode == 2 and "--step-law" in done.stderr


@needs_data
def test_steps_stand_beside_trivial_predictors():
    """Half of the roofline's error and less than the nearest step of the deployment that constants were fitted to."""
    report = steps("tp.tp2_ep2", 2, 2, 1, "--reference", DATA / f"steps/{LOG}.tp.tp1_ep1.csv.gz")
    for name in ("decode", "mixed"):
        stratum = strata(report)[name]
        assert stratum["mape"] < stratum["baselines"]["roofline"] / 2
        assert stratum["mape"] < stratum["baselines"]["nearest"]
    assert strata(steps("tp.tp2_ep2", 2, 2, 1))["decode"]["baselines"]["nearest"] is None


@needs_data
def test_the_host_constants_are_those_of_one_deployment():
    """A fit to tp1_ep1 that starts at the shipped constants stays there."""
    report = steps("tp.tp1_ep1", 1, 1, 1, "--fit")
    engine = json.loads((ROOT / "models/plan/engines/vllm.json").read_text())
    for name in ("layer_kernels_s", "prepare_s", "eager_launch_s", "piece_launch_s"):
        assert report["host"][name] == pytest.approx(engine["host"][name]["value"], rel=0.05)


@needs_data
def test_loads_of_services():
    table = DATA / "serving/aggregated_ttft_tpot.csv.gz"
    report = run("validate", "serving", "--table", table, "--leave-out", "model,system")
    found = strata(report)
    assert found["tpot"]["n"] == 852
    assert found["tpot"]["median_ape"] < 0.07
    assert found["tpot"]["mape"] < 0.09
    assert found["tpot every row"]["mape"] < 0.115
    assert found["ttft"]["median_ape"] < 0.20
    assert found["tpot guessed tokens"]["n"] == 52
    kinds = [found["tpot " + kind] for kind in ("other releases", "replaced releases", "reported defects")]
    assert sum(kind["n"] for kind in kinds) == found["tpot"]["n"]
    assert kinds[0]["median_ape"] < 0.06
    assert kinds[0]["mape"] < 0.075
    assert any("no benchmark that is known" in note for note in report["notes"])
    assert 0.86 < found["tpot"]["coverage_90_ratio"] < 0.94
    shipped = strata(run("validate", "serving", "--table", table))
    assert shipped["tpot"]["median_ape"] < found["tpot"]["median_ape"]
    ranked = run("validate", "serving", "--table", table, "--leave-out", "model")
    every = {ranking["model"]: ranking for ranking in ranked["rankings"]}
    comparable = {ranking["model"]: ranking for ranking in ranked["rankings_comparable"]}
    assert comparable["all"]["pairs"] > 0.85 * every["all"]["pairs"]
    assert comparable["all"]["kendall_tau"] > 0.87
    assert all(ranking["kendall_tau"] > 0.8 for ranking in comparable.values())
    assert every["all"]["kendall_tau"] >= 0.85


def test_an_all_reduce_that_norms_takes_less():
    def step(*more):
        return predict("--model", "llama-3.1-70b", "--hw", "b200-sxm", "--tp", 8, "--dtype", "fp8", "--batch", 16,
                       *more)

    usual, fused = step(), step("--all-reduce", "trtllm")
    small = [next(op["latency_s"] for op in answer["operators"] if op["name"].startswith("norms"))
             for answer in (usual, fused)]
    assert small[1] == pytest.approx(small[0] * 3 / 5)
    assert fused["latency_s"] < 0.8 * usual["latency_s"]
    assert fused["inputs"]["all_reduce"] == "trtllm"
    for words in (["predict", "--tp", "8", "--all-reduce", "other"], ["recommend", "--all-reduce", "other"],
                  ["serve", "--rate", "1", "--all-reduce", "other"]):
        done = subprocess.run([MOECAST, words[0], "--model", "llama-3.1-70b", "--hw", "b200-sxm", *words[1:]],
                              capture_output=True, text=True)
        assert done.returncode == 2 and "--all-reduce" in done.stderr, done.stderr


def test_a_profile_without_a_memory_capacity_is_said(tmp_path):
    data = tmp_path / "data"
    shutil.copytree(ROOT / "hwprofiles/h100-sxm", data / "hwprofiles/h100-sxm")
    (data / "models").symlink_to(ROOT / "models")
    path = data / "hwprofiles/h100-sxm/profile.json"
    profile = json.loads(path.read_text())
    del profile["quantities"]["memory_capacity"]
    path.write_text(json.dumps(profile))
    table = tmp_path / "services.csv"
    table.write_text("id,silicon_data_source,backend,backend_version,model_path,system,precision,mode,isl,osl,"
                     "gemm_quant_mode,moe_quant_mode,batch_size,tp_size,pp_size,attention_dp_size,moe_tp_size,"
                     "moe_ep_size,silicon_ttft_ms,silicon_tpot_ms\n"
                     "a,x,vllm,0.13,meta-llama/Llama-3.1-70B,h100_sxm,fp8,agg,1024,1024,fp8,fp8,4,4,1,1,1,1,80,12\n")
    done = subprocess.run([MOECAST, "validate", "serving", "--table", table, "--data", data], capture_output=True,
                          text=True)
    assert done.returncode == 3, done.stderr
    assert "memory_capacity" in done.stderr


def test_formats_of_services_are_known_or_said(tmp_path):
    """A label that nobody knows is no reason to take another format: the row is left out, with its reason."""
    table = tmp_path / "services.csv"
    columns = ("id,silicon_data_source,backend,backend_version,model_path,system,precision,mode,isl,osl,"
               "gemm_quant_mode,moe_quant_mode,batch_size,tp_size,pp_size,attention_dp_size,moe_tp_size,moe_ep_size,"
               "silicon_ttft_ms,silicon_tpot_ms")
    row = "{},x,vllm,0.13,openai/gpt-oss-120b,b200_sxm,fp4,agg,1024,1024,bfloat16,{},16,1,1,1,1,1,60,6"
    table.write_text("\n".join([columns, row.format("a", "w4a8_mxfp4_mxfp8"), row.format("b", "w9a9")]) + "\n")
    report = run("validate", "serving", "--table", table)
    assert strata(report)["tpot"]["n"] == 1
    table.write_text("\n".join([columns, row.format("a", "")]) + "\n")
    assert strata(run("validate", "serving", "--table", table))["tpot"] == strata(report)["tpot"]  # the checkpoint's
    assert any("w9a9" in why for why in report["not_judged"])


def predict(*arguments):
    return run("predict", *arguments)


def test_a_whole_step_on_a_gpu():
    answer = predict("--model", MODEL, "--hw", "b300-sxm", "--batch", 8, "--context", 2048)
    assert answer["status"] == "ok"
    assert 0.004 < answer["latency_s"] < 0.007
    assert answer["latency_low_s"] < answer["latency_s"] < answer["latency_high_s"]
    factors = answer["factors"]
    parts = [factors[name] for name in ("all_to_all_s", "memory_bandwidth_s", "compute_s", "routing_overhead_s")]
    assert sum(parts) == pytest.approx(answer["latency_s"], rel=1e-6)
    assert sum(op["latency_s"] for op in answer["operators"]) == pytest.approx(answer["latency_s"], rel=0.02)


def test_removing_a_factor_never_slows():
    whole = predict("--model", "qwen3-235b-a22b", "--hw", "h200-sxm", "--tp", 8, "--batch", 32)["latency_s"]
    for factor in ("all-to-all", "memory-bandwidth", "routing-overhead", "imbalance"):
        without = predict("--model", "qwen3-235b-a22b", "--hw", "h200-sxm", "--tp", 8, "--batch", 32, "--without",
                          factor)["latency_s"]
        assert without <= whole * (1 + 1e-9)


def test_more_work_takes_longer_and_elsewhere_is_less_sure():
    last = 0
    for batch in (1, 8, 64, 128):
        answer = predict("--model", "qwen3-30b-a3b", "--hw", "h100-sxm", "--batch", batch, "--context", 128)
        assert answer["latency_s"] > last
        last = answer["latency_s"]
    known = predict("--model", MODEL, "--hw", "b300-sxm", "--batch", 8)
    other = predict("--model", "qwen3-30b-a3b", "--hw", "b300-sxm", "--batch", 8)
    assert other["latency_high_s"] / other["latency_s"] > 1.2 * known["latency_high_s"] / known["latency_s"]


@pytest.mark.parametrize("arguments,code,words", [
    (["--model", MODEL, "--hw", "b300-sxm", "--backend", "vlm"], 2, "--backend"),
    (["--model", MODEL, "--hw", "b300-sxm", "--tp", "3"], 2, "--tp"),
    (["--model", "nllb-moe-54b", "--hw", "b300-sxm", "--pp", "2"], 2, "encoder"),
    (["--model", MODEL, "--hw", "b300-sxm", "--tp", "4", "--dp", "2", "--ep", "4", "--moe-tp", "4"], 2,
     "tp x dp x cp = 8"),
    (["--model", MODEL, "--hw", "b300-sxm", "--micro-batches", "2"], 2, "--micro-batches")])
def test_what_cannot_be_asked(arguments, code, words):
    done = subprocess.run([MOECAST, "predict", *arguments], capture_output=True, text=True)
    assert done.returncode == code
    assert words in done.stderr


def test_what_does_not_fit_or_is_not_known_is_an_answer():
    assert predict("--model", "mixtral-8x7b", "--hw", "a100-sxm")["status"] == "does_not_fit"
    assert predict("--model", "jamba", "--hw", "b200-sxm", "--cp", 8, "--tp", 1)["status"] == "outside_range"


@pytest.mark.parametrize("content,words", [
    ("", "no row"),
    ("phase,counter_id\ndecode,1\n", "ctx_tokens"),
    ("\x00\x01\x02", "")])
def test_broken_logs(tmp_path, content, words):
    path = tmp_path / "steps.csv"
    path.write_text(content)
    for command in (["steps", "--model", MODEL, "--hw", "b300-sxm", "--backend", "vllm-0.24.0"], ["serving"]):
        done = subprocess.run([MOECAST, "validate", *command, "--table", path], capture_output=True, text=True)
        assert done.returncode == 3
        assert words in done.stderr or command[0] == "serving"
