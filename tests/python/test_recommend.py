"""moecast recommend: goals are met, memory is kept, nothing that dominates is missing."""

import json
import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MOECAST = Path(os.environ.get("MOECAST", ROOT / "build/release/moecast"))


def call(*arguments):
    return subprocess.run([MOECAST, "recommend", *map(str, arguments)], capture_output=True, text=True)


def ask(*arguments):
    done = call("--model", "qwen3-235b-a22b", "--dtype", "fp8_block", "--top", 100000, "--format", "json", *arguments)
    assert done.returncode in (0, 1), done.stderr
    return json.loads(done.stdout)


def test_every_deployment_meets_the_goals():
    answer = ask("--hw", "h200-sxm", "--gpus", "4-8", "--tpot", "20ms", "--ttft", "1s")
    assert answer["deployments"]
    for d in answer["deployments"]:
        assert d["tpot_s"] <= 0.020 and d["ttft_s"] <= 1
        assert d["memory_bytes"] <= 0.9 * 141e9
        assert d["tp"] * d["dp"] * d["pp"] * d["cp"] == d["gpus"] == d["ep"] * d["moe_tp"] * d["pp"]
        assert 4 <= d["gpus"] <= 8
    rates = [d["tokens_per_gpu_s"] for d in answer["deployments"]]
    assert rates == sorted(rates, reverse=True)
    # Little's law: requests in flight are what arrives times how long each stays.
    for d in answer["deployments"]:
        stay = d["ttft_s"] + d["tpot_s"] * 1023
        assert d["tokens_per_s"] / 1024 * stay == pytest.approx(d["concurrency"], rel=1e-6)


def test_requests_that_fit_are_those_that_a_service_holds_at_once():
    load = ["--prompt", "2048", "--output", "512"]
    best = ask("--hw", "h200-sxm", "--gpus", "4", *load)["deployments"][0]
    degrees = [word for name in ("tp", "ep", "dp", "pp", "cp") for word in (f"--{name}", best[name])]
    served = subprocess.run(
        list(map(str, [MOECAST, "serve", "--model", "qwen3-235b-a22b", "--dtype", "fp8_block", "--hw", "h200-sxm",
                       *degrees, *load, "--rate", "0.5", "--requests", "10", "--format", "json"])),
        capture_output=True, text=True, check=True)
    capacity = json.loads(served.stdout)["kv_capacity_tokens"]
    assert best["concurrency"] * (2048 + 512) <= capacity  # a chunk of prompts needs room beside the cache
    assert (best["concurrency"] * 1.1 + 1) * (2048 + 512) > capacity


def test_the_front_is_what_nothing_dominates():
    answer = ask("--hw", "h200-sxm", "--gpus", "4-8")
    everything = answer["deployments"]
    front = [d for d in everything if d["pareto"]]
    assert 0 < len(front) < len(everything)

    def beats(a, b):
        key = [(a["tpot_s"], b["tpot_s"]), (a["gpus"], b["gpus"]), (-a["tokens_per_gpu_s"], -b["tokens_per_gpu_s"])]
        return all(x <= y for x, y in key) and any(x < y for x, y in key)

    for d in front:
        assert not any(beats(other, d) for other in everything)
    for d in everything:
        if not d["pareto"]:
            assert any(beats(other, d) or all(other[k] == d[k] for k in ("tpot_s", "gpus", "tokens_per_gpu_s"))
                       for other in front)


def test_being_sure_costs_deployments():
    some = ask("--hw", "h200-sxm", "--gpus", "8", "--tpot", "20ms")
    sure = ask("--hw", "h200-sxm", "--gpus", "8", "--tpot", "20ms", "--sure")
    assert len(sure["deployments"]) < len(some["deployments"])
    assert all(d["tpot_high_s"] <= 0.020 for d in sure["deployments"])


def test_stages_and_contexts_are_examined():
    answer = ask("--hw", "h200-sxm", "--gpus", "8", "--cp", "1,2,8")
    assert {d["pp"] for d in answer["deployments"]} == {1, 2, 4, 8}
    assert {d["cp"] for d in answer["deployments"]} == {1, 2, 8}
    assert any("no service with them was measured" in note for note in answer["notes"])
    usual = ask("--hw", "h200-sxm", "--gpus", "8", "--pp", "1")
    assert {(d["pp"], d["cp"]) for d in usual["deployments"]} == {(1, 1)}
    assert not any("no service with them" in note for note in usual["notes"])

    def chosen(answer, **degrees):
        return [d for d in answer["deployments"] if all(d[key] == value for key, value in degrees.items())]

    # One request: stages only add transfers and steps of the engine to a token, and halve what a rank holds.
    one = chosen(answer, pp=1, cp=1, tp=4, dp=2, concurrency=2)[0]
    two = chosen(answer, pp=2, cp=1, tp=4, dp=1, concurrency=1)[0]
    assert two["memory_bytes"] < 1.2 * one["memory_bytes"]
    # Context-parallel ranks share a long prompt.
    long = ask("--hw", "h200-sxm", "--gpus", "8", "--prompt", 65536, "--output", 128, "--pp", "1", "--cp", "1-8*2")
    by_cp = {d["cp"]: d for d in chosen(long, tp=2, concurrency=1)}
    if 1 in by_cp and 4 in by_cp:
        assert by_cp[4]["ttft_s"] < by_cp[1]["ttft_s"]


def test_prices_order_by_cost():
    answer = ask("--hw", "h100-sxm,h200-sxm", "--gpus", "8", "--price", "h100-sxm=2,h200-sxm=3")
    costs = [d["cost_per_million_tokens"] for d in answer["deployments"]]
    assert costs == sorted(costs)
    price = {"h100-sxm": 2, "h200-sxm": 3}
    for d in answer["deployments"]:
        assert d["cost_per_million_tokens"] == pytest.approx(price[d["hw"]] / 3600 / d["tokens_per_gpu_s"] * 1e6)


def test_impossible_goals_say_why():
    done = call("--model", "deepseek-v3", "--hw", "h100-sxm", "--gpus", "1-4")
    assert done.returncode == 1
    assert "memory does not fit" in done.stdout
    done = call("--model", "qwen3-30b-a3b", "--hw", "h200-sxm", "--gpus", "1", "--tpot", "10us")
    assert done.returncode == 1
    assert "TPOT too long" in done.stdout


@pytest.mark.parametrize("arguments,words", [
    (["--hw", "h200-sxm"], "--model"),
    (["--model", "qwen3-30b-a3b"], "--hw"),
    (["--model", "qwen3-30b-a3b", "--hw", "h200-sxm", "--gpus", "0"], "--gpus"),
    (["--model", "qwen3-30b-a3b", "--hw", "h200-sxm", "--pp", "0"], "--pp"),
    (["--model", "qwen3-30b-a3b", "--hw", "h200-sxm", "--cp", "two"], "--cp"),
    (["--model", "qwen3-30b-a3b", "--hw", "h200-sxm", "--prompt", "0"], "--prompt"),
    (["--model", "qwen3-30b-a3b", "--hw", "h200-sxm", "--tpot", "5"], "--tpot"),
    (["--model", "qwen3-30b-a3b", "--hw", "h200-sxm", "--tpot", "0ms"], "--tpot"),
    (["--model", "qwen3-30b-a3b", "--hw", "h200-sxm", "--price", "h100-sxm=2"], "--price"),
    (["--model", "qwen3-30b-a3b", "--hw", "h200-sxm,b200-sxm", "--price", "h200-sxm=2"], "b200-sxm"),
    (["--model", "qwen3-30b-a3b", "--hw", "h200-sxm", "--backend", "vlm"], "--backend")])
def test_wrong_flags(arguments, words):
    done = call(*arguments)
    assert done.returncode == 2
    assert words in done.stderr


def test_a_goal_that_is_a_little_tighter_costs_a_little():
    """The largest load that meets a goal is found between doublings too."""

    def cheapest(tpot):
        return ask("--hw", "h200-sxm", "--gpus", "8", "--tpot", tpot, "--price", "h200-sxm=3.5")["deployments"][0]

    loose = cheapest("30ms")
    for share in (0.97, 0.9, 0.8):
        tight = cheapest(f"{30 * share}ms")
        assert tight["tpot_s"] > 0.9 * 0.030 * share
        assert tight["cost_per_million_tokens"] < 1.35 * loose["cost_per_million_tokens"] / share
