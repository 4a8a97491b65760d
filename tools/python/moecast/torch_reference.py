"""References that PyTorch executes: modules of an architecture with random weights, and their times. Needs torch."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from moecast import execution
from moecast._core import InputError

#: Formats of weights and activations that are executed.
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_ACTIVATIONS = {"relu": nn.functional.relu, "gelu": nn.functional.gelu, "silu": nn.functional.silu}


class Expert(nn.Module):
    """A feed-forward network, gated or not; gate and up are one matrix, as in transformers 5."""

    def __init__(self, hidden, spec):
        super().__init__()
        width, bias = spec["width"], spec.get("bias", False)
        self.gated = spec.get("gated", True)
        self.up = nn.Linear(hidden, width * (1 + self.gated), bias=bias)
        self.down = nn.Linear(width, hidden, bias=bias)
        self.function = _ACTIVATIONS[spec.get("activation", "silu")]

    def forward(self, x):
        inner = self.up(x)
        if not self.gated:
            return self.down(self.function(inner))
        gate, up = inner.chunk(2, dim=-1)
        return self.down(self.function(gate) * up)


class MoE(nn.Module):
    """A router and a loop over experts, as Mixtral's eager block in transformers executes them."""

    def __init__(self, hidden, block):
        super().__init__()
        experts = [group["expert"] for group in block["experts"] for _ in range(group["count"])]
        router = block.get("router", {})
        if router.get("kind", "token-choice") != "token-choice" or block.get("capacity"):
            raise InputError("torch reference: only token choice without a capacity is executed")
        self.top_k = router.get("top_k", 1)
        self.router = nn.Linear(hidden, len(experts), bias=False)
        self.experts = nn.ModuleList(Expert(hidden, spec) for spec in experts)
        shared = block.get("shared", {})
        self.shared = nn.ModuleList(Expert(hidden, shared["expert"]) for _ in range(shared.get("count", 0)))
        self.draws = None

    def forward(self, x):
        scores = torch.softmax(self.router(x).float(), dim=-1)
        weights, chosen = torch.topk(scores, self.top_k, dim=-1)
        if self.draws is not None:
            chosen = torch.rand(scores.shape, generator=self.draws).topk(self.top_k, dim=-1).indices
        weights = (weights / weights.sum(dim=-1, keepdim=True)).to(x.dtype)
        out = torch.zeros_like(x)
        mask = nn.functional.one_hot(chosen, len(self.experts)).permute(2, 1, 0)
        for number, expert in enumerate(self.experts):
            place, tokens = torch.where(mask[number])
            if len(tokens) == 0:
                continue
            out.index_add_(0, tokens, expert(x[tokens]) * weights[tokens, place, None])
        for expert in self.shared:
            out = out + expert(x)
        return out


class Attention(nn.Module):
    """Grouped-query attention over a cache that is there already; cross attention over encoded tokens."""

    def __init__(self, hidden, block, source_hidden):
        super().__init__()
        self.heads, self.kv_heads, self.size = block["heads"], block["kv_heads"], block["head_dim"]
        self.cross = block.get("kind") == "cross"
        self.causal = block.get("causal", True)
        self.sources = block.get("source_layers", 1)
        self.q = nn.Linear(hidden, self.heads * self.size)
        self.kv = nn.Linear(source_hidden if self.cross else hidden, 2 * self.kv_heads * self.size)
        self.out = nn.Linear(self.heads * self.size, hidden)
        self.cache = None

    def keys_values(self, x):
        kv = self.kv(x).view(*x.shape[:2], 2, self.kv_heads, self.size)
        return kv[:, :, 0].transpose(1, 2), kv[:, :, 1].transpose(1, 2)

    def fill(self, batch, context, dtype):
        shape = (batch, self.kv_heads, context, self.size)
        self.cache = torch.randn(shape, dtype=dtype), torch.randn(shape, dtype=dtype)

    def forward(self, x, encoded=None):
        batch, new, _ = x.shape
        q = self.q(x).view(batch, new, self.heads, self.size).transpose(1, 2)
        if self.cross:
            if self.cache is None:
                self.cache = self.keys_values(encoded)
            k, v = self.cache
        else:
            k, v = self.keys_values(x)
            if self.cache is not None:
                k, v = torch.cat([self.cache[0], k], dim=2), torch.cat([self.cache[1], v], dim=2)
        if self.kv_heads != self.heads:
            k, v = (t.repeat_interleave(self.heads // self.kv_heads, dim=1) for t in (k, v))
        scores = q @ k.transpose(-1, -2) / math.sqrt(self.size)
        if self.causal and not self.cross and new > 1:
            scores = scores + torch.full((new, k.shape[2]), float("-inf"), dtype=x.dtype).triu(k.shape[2] - new + 1)
        mixed = torch.softmax(scores, dim=-1) @ v
        return self.out(mixed.transpose(1, 2).reshape(batch, new, -1))


class Block(nn.Module):
    """A norm, a block and the residual addition."""

    def __init__(self, hidden, block, source_hidden):
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.kind = block["type"]
        if self.kind == "attention":
            self.inner = Attention(hidden, block, source_hidden)
        elif self.kind == "moe":
            self.inner = MoE(hidden, block)
        elif self.kind == "ffn":
            self.inner = Expert(hidden, block["ffn"])
        else:
            raise InputError(f"torch reference: no {self.kind} block is executed")

    def forward(self, x, encoded):
        y = self.norm(x)
        if self.kind == "attention":
            return x + self.inner(y, encoded)
        return x + self.inner(y.reshape(-1, y.shape[-1])).view_as(x)


def expanded(stack, named):
    """Layers one by one, each a list of blocks."""
    layers = []
    for run in stack:
        if "layers" in run:
            inner = expanded(run["layers"], named)
        else:
            inner = [[named[b] if isinstance(b, str) else b for b in run["blocks"]]]
        layers += inner * run.get("repeat", 1)
    return layers


class Stack(nn.Module):
    """Embedding and layers of an encoder or a decoder."""

    def __init__(self, hidden, vocabulary, layers, source_hidden):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, hidden)
        self.blocks = nn.ModuleList(Block(hidden, b, source_hidden) for layer in layers for b in layer)
        self.norm = nn.LayerNorm(hidden)

    def attentions(self):
        return [b.inner for b in self.blocks if b.kind == "attention"]

    def forward(self, tokens, encoded=None):
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x, encoded)
        return self.norm(x)


class Model(nn.Module):
    """A decoder, or an encoder and a decoder, with random weights."""

    def __init__(self, architecture):
        super().__init__()
        d = json.loads(architecture.to_text())
        named = d.get("blocks", {})
        hidden, vocabulary = d["hidden"], d.get("vocabulary", 0)
        source = d.get("encoder_hidden") or hidden
        self.encoder = Stack(source, vocabulary, expanded(d["encoder"], named), source) if d.get("encoder") else None
        self.decoder = Stack(hidden, vocabulary, expanded(d["decoder"], named), source)
        self.head = nn.Linear(hidden, vocabulary, bias=False)
        self.vocabulary = vocabulary

    def words(self, batch, length):
        return torch.randint(self.vocabulary, (batch, length))

    @torch.no_grad()
    def decode_step(self, batch: int, context: int) -> Callable[[], torch.Tensor]:
        """A callable that executes one decode step after `context` cached tokens."""
        dtype = self.head.weight.dtype
        for attention in self.decoder.attentions():
            attention.fill(batch, context, dtype)
        words = self.words(batch, 1)
        return lambda: self.head(self.decoder(words)[:, -1])

    @torch.no_grad()
    def prefill(self, batch: int, prompt: int) -> Callable[[], torch.Tensor]:
        for attention in self.decoder.attentions():
            attention.cache = None
        words = self.words(batch, prompt)
        return lambda: self.head(self.decoder(words)[:, -1])

    def route_evenly(self, seed: int) -> None:
        """From now on routers compute their scores, but experts are drawn, all alike: a load as predictions take it.

        Random weights choose alike for tokens that are alike: five beams touch one or two of four experts.
        """
        draws = torch.Generator().manual_seed(seed)
        for module in self.modules():
            if isinstance(module, MoE):
                module.draws = draws

    @torch.no_grad()
    def translate(self, source: int, target: int, beams: int) -> Callable[[], Any]:
        """A callable that encodes one sentence and generates `target` tokens for each beam."""

        def run():
            encoded = self.encoder(self.words(1, source)).expand(beams, -1, -1)
            attentions = self.decoder.attentions()
            for attention in attentions:
                attention.cache = None
            words = self.words(beams, 1)
            for _ in range(target):
                logits = self.head(self._step(words, encoded))
                words = logits.argmax(dim=-1, keepdim=True)

        return run

    def _step(self, words, encoded):
        """Keys and values of the new token join the cache, as incremental decoding does."""
        x = self.decoder.embedding(words)
        for block in self.decoder.blocks:
            if block.kind == "attention" and not block.inner.cross:
                y = block.norm(x)
                k, v = block.inner.keys_values(y)
                x = x + block.inner(y)
                old = block.inner.cache
                block.inner.cache = (k, v) if old is None else (torch.cat([old[0], k], 2), torch.cat([old[1], v], 2))
            elif block.kind == "attention" and block.inner.sources > 1 and block.inner.cache is None:
                x = block(x, encoded.repeat(1, block.inner.sources, 1))
            else:
                x = block(x, encoded)
        return self.decoder.norm(x)[:, -1]


@contextlib.contextmanager
def quick_weights():
    """Modules made inside get random numbers that are cheap to draw; how they are distributed changes no time."""
    uniform, kaiming, normal = nn.init.uniform_, nn.init.kaiming_uniform_, nn.init.normal_

    def fill(tensor, *_, **__):
        with torch.no_grad():
            pattern = torch.empty(min(tensor.numel(), 65521)).uniform_(-0.05, 0.05)
            flat = tensor.view(-1)
            whole = len(flat) // len(pattern) * len(pattern)
            flat[:whole].view(-1, len(pattern)).copy_(pattern)
            flat[whole:].copy_(pattern[: len(flat) - whole])
        return tensor

    nn.init.uniform_ = nn.init.kaiming_uniform_ = nn.init.normal_ = fill
    try:
        yield
    finally:
        nn.init.uniform_, nn.init.kaiming_uniform_, nn.init.normal_ = uniform, kaiming, normal


def layer_of(architecture, dtype=torch.float32):
    """The module of a lone MoE layer."""
    d = json.loads(architecture.to_text())
    (blocks,) = expanded(d["decoder"], d.get("blocks", {}))
    return MoE(d["hidden"], blocks[0]).to(dtype).eval()


#: moecast.execution.measure without gradients.
measure = torch.no_grad()(execution.measure)
