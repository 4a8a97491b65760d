"""MoE blocks of Hugging Face transformers with random weights, as references. Needs torch and transformers 5."""

from __future__ import annotations

import importlib
from typing import Any

import torch

from moecast._core import DeviceError, UsageError
from moecast.torch_import import from_torch
from moecast.torch_reference import measure, quick_weights

#: Kind -> module of transformers, its configuration, its block.
_KINDS = {
    "mixtral": ("mixtral", "MixtralConfig", "MixtralSparseMoeBlock"),
    "qwen3-moe": ("qwen3_moe", "Qwen3MoeConfig", "Qwen3MoeSparseMoeBlock"),
    "olmoe": ("olmoe", "OlmoeConfig", "OlmoeSparseMoeBlock"),
    "deepseek-v3": ("deepseek_v3", "DeepseekV3Config", "DeepseekV3MoE"),
}
KINDS = tuple(_KINDS)
#: How transformers executes experts -> the strategy that predicts it.
EXPERTS = {"eager": "per-expert-loop", "grouped_mm": "sorted-grouped"}


def make_block(
    kind: str, layer: dict[str, Any], experts: str = "eager", dtype: torch.dtype = torch.float32
) -> torch.nn.Module:
    """The block of a dict of hidden, width, experts, top_k. Raises UsageError or DeviceError."""
    if kind not in _KINDS or experts not in EXPERTS:
        raise UsageError(f"{kind}, {experts}: write one of {', '.join(KINDS)}, and one of {', '.join(EXPERTS)}")
    module, config_name, block_name = _KINDS[kind]
    try:
        models = importlib.import_module(f"transformers.models.{module}")
        modeling = importlib.import_module(f"transformers.models.{module}.modeling_{module}")
    except ImportError as error:
        raise DeviceError(f"transformers: {error} (pip install 'transformers>=5')") from None
    width = "intermediate_size" if kind in ("mixtral", "olmoe") else "moe_intermediate_size"
    count = "num_local_experts" if kind == "mixtral" else "n_routed_experts" if kind == "deepseek-v3" else "num_experts"
    fields = {
        "hidden_size": layer["hidden"],
        width: layer["width"],
        count: layer["experts"],
        "num_experts_per_tok": layer["top_k"],
        "norm_topk_prob": True,
    }
    if kind == "deepseek-v3":
        fields.update(n_group=1, topk_group=1, n_shared_experts=1)
    config = getattr(models, config_name)(**fields)
    config._experts_implementation = experts
    with quick_weights():
        block = getattr(modeling, block_name)(config)
    for parameter in block.parameters():  # experts are made without numbers
        torch.nn.init.uniform_(parameter[..., :1], -0.05, 0.05)
        parameter.data.copy_(parameter.data[..., :1].expand_as(parameter))
    return block.to(dtype).eval()


@torch.no_grad()
def execute(kind, layer, experts, dtype, least_s):
    """(architecture, rows of each expert, seconds, noise) of one block on `layer["tokens"]` tokens."""
    block = make_block(kind, layer, experts, dtype)
    gate = next(p for n, p in block.gate.named_parameters() if p.ndim == 2)
    gate.data.copy_(torch.randn_like(gate) * 0.05)
    x = torch.randn(1, layer["tokens"], layer["hidden"], dtype=dtype)
    chosen = _chosen(block, x)
    rows = torch.bincount(chosen.reshape(-1), minlength=layer["experts"]).tolist()
    seconds, noise = measure(lambda: block(x), least_s=least_s)
    return from_torch(block, x), rows, seconds, noise


def _chosen(block, x):
    """Experts of each token: the answer of the gate that holds whole numbers."""
    answers = block.gate(x if type(block).__name__ == "DeepseekV3MoE" else x.view(-1, x.shape[-1]))
    return next(a for a in answers if a.dtype in (torch.int64, torch.int32))
