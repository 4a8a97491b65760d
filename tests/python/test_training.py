"""Backward over forward: predicted, and measured with PyTorch in the same run (Debian's python3-torch)."""

import json
import os
import statistics
import subprocess
import time
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

ROOT = Path(__file__).resolve().parents[2]
MOECAST = Path(os.environ.get("MOECAST", ROOT / "build/release/moecast"))
if not MOECAST.exists():
    pytest.skip(f"{MOECAST} is not built", allow_module_level=True)

ROUNDS = 15
# Measured on an AMD EPYC: 2.10, 2.24 and 2.49 of the three shapes against 1.98, 1.97 and 1.97. What the plan of a step
# does not know is PyTorch's own: gradients of weights go to memory that is allocated, and touched first, in every pass.
# 30 % leaves room for that and for another CPU of the kind; without gradients of weights the ratio is half of it.
TOLERANCE = 0.30


class Block(torch.nn.Module):
    """A router and gated experts over the rows of each, one expert after another."""

    def __init__(self, hidden, width, experts, top_k):
        super().__init__()
        self.router = torch.nn.Linear(hidden, experts, bias=False)
        self.gate_up = torch.nn.ModuleList(torch.nn.Linear(hidden, 2 * width, bias=False) for _ in range(experts))
        self.down = torch.nn.ModuleList(torch.nn.Linear(width, hidden, bias=False) for _ in range(experts))
        self.top_k = top_k

    def forward(self, x):
        gates, chosen = torch.topk(torch.softmax(self.router(x), -1), self.top_k, dim=-1)
        result = torch.zeros_like(x)
        for index, (gate_up, down) in enumerate(zip(self.gate_up, self.down)):
            token, rank = torch.where(chosen == index)
            if len(token) == 0:
                continue
            gate, up = gate_up(x[token]).chunk(2, -1)
            y = down(torch.nn.functional.silu(gate) * up)
            result = result.index_add(0, token, y * gates[token, rank].unsqueeze(-1))
        return result


def seconds(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measured_ratio(block, x, upstream, inputs):
    """Median over rounds of backward / forward, both timed in the same round."""

    def both():
        y = block(x)
        torch.autograd.grad(y, inputs, upstream)

    for _ in range(3):
        both()
    ratios = []
    for _ in range(ROUNDS):
        forward = min(seconds(lambda: block(x)) for _ in range(2))
        whole = min(seconds(both) for _ in range(2))
        ratios.append(whole / forward - 1)
    return statistics.median(ratios)


def predicted_ratio(hidden, width, experts, top_k, tokens, *flags):
    words = [
        "predict",
        "--hw",
        "amd-epyc-2cpu",
        "--backend",
        "openblas",
        "--threads",
        1,
        "--strategy",
        "per-expert-loop",
        "--phase",
        "train",
        "--hidden",
        hidden,
        "--width",
        width,
        "--experts",
        experts,
        "--top-k",
        top_k,
        "--tokens",
        tokens,
        *flags,
        "--format",
        "json",
    ]
    done = subprocess.run([MOECAST, *map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["status"] == "ok", answer["reason"]
    phases = {phase["name"]: phase["latency_s"] for phase in answer["training"]["phases"]}
    assert sum(phases.values()) == pytest.approx(answer["latency_s"], rel=1e-9)
    return phases["backward"] / phases["forward"]


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("shape", [(512, 1024, 8, 2, 512), (768, 1536, 4, 2, 256), (1024, 1024, 8, 1, 512)])
def test_backward_over_forward_is_that_of_pytorch_a19(shape):
    hidden, width, experts, top_k, tokens = shape
    torch.manual_seed(1)
    block = Block(hidden, width, experts, top_k)
    x = torch.randn(tokens, hidden, requires_grad=True)
    upstream = torch.randn(tokens, hidden)
    everything = measured_ratio(block, x, upstream, [x, *block.parameters()])
    assert predicted_ratio(*shape, "--input-gradient") == pytest.approx(everything, rel=TOLERANCE)


def test_frozen_experts_and_attacks_save_what_pytorch_saves_c14_a15():
    shape = hidden, width, experts, top_k, tokens = 512, 1024, 8, 2, 512
    torch.manual_seed(1)
    block = Block(hidden, width, experts, top_k)
    x = torch.randn(tokens, hidden, requires_grad=True)
    upstream = torch.randn(tokens, hidden)
    attack = measured_ratio(block.requires_grad_(False), x, upstream, [x])
    assert predicted_ratio(*shape, "--attack", "fgsm") == pytest.approx(attack, rel=TOLERANCE)
    block.router.requires_grad_(True)
    frozen = measured_ratio(block, x, upstream, [x, block.router.weight])
    assert predicted_ratio(*shape, "--input-gradient", "--freeze", "experts") == pytest.approx(frozen, rel=TOLERANCE)
