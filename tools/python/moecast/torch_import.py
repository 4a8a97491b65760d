"""PyTorch modules as architectures, read from their tree without running them (torch itself is not imported)."""

from __future__ import annotations

import itertools
import json
import operator
from collections.abc import Mapping
from typing import Any

from moecast._core import Architecture, InputError

_GATES = ("gate", "router", "wg", "gating", "gate_proj_router", "switch")
_EXPERTS = ("experts", "expert_list", "mlp_experts")
_TOP_K = ("top_k", "num_experts_per_tok", "k", "topk", "num_selected_experts", "moe_top_k", "top_k_experts")
_SHARED = ("shared_experts", "shared_expert", "shared_mlp")
_LISTS = ("ModuleList", "ModuleDict")
_ACTIVATIONS = {
    "relu": "relu",
    "gelu": "gelu",
    "newgeluactivation": "gelu",
    "gelutanh": "gelu",
    "geluactivation": "gelu",
    "fastgeluactivation": "gelu",
    "quickgeluactivation": "gelu",
    "relusquaredactivation": "relu-squared",
    "silu": "silu",
    "siluactivation": "silu",
    "swish": "silu",
    "identity": "identity",
}
#: Modules without weights that are no activation.
_PASSIVE = ("dropout", "identity", "flatten", "unflatten")


def from_torch(
    module: Any,
    example_inputs: Any = None,
    *,
    name: str | None = None,
    top_k: int | None = None,
    experts_only: bool = False,
) -> Architecture:
    """An Architecture of a module tree.

    Whole Hugging Face models are read from their configuration; MoE blocks (Mixtral, Qwen-MoE, OLMoE, DeepSeek: experts
    as a list or as fused parameters) and plain networks of experts and a gate from the shapes of their weights. A
    container of MoE blocks becomes a model with a layer for each; what only wraps another module is looked through.

    `example_inputs`: not run; the last dimension of the first tensor (of a tuple, list or dict) is checked against the
    width of a token. `top_k`: experts a token uses, where no attribute of the module says it. `experts_only`: leave out
    weights that lie outside of the MoE blocks, and say so in `notes`; else they are an error. An activation that only
    the code of `forward` names is taken for silu, which `notes` say too.
    Raises InputError that names the module that is not understood.
    """
    if not hasattr(module, "named_modules") or isinstance(module, type):
        raise InputError(f"module: a {type(module).__name__} is no torch.nn.Module")
    module = _unwrapped(module)
    if _is_configured(module):
        config = module.config
        architecture = Architecture.from_text(json.dumps(config.to_dict(), default=str), name or config.model_type)
    else:
        found = _Blocks(top_k)
        found.search(module, "")
        if not found.blocks:
            raise InputError(f"{type(module).__name__}: holds no experts beside a gate that could be read")
        architecture = _assemble(module, found, name, experts_only)
    width = _width_of(example_inputs)
    if width is not None and architecture.vocabulary == 0 and width != architecture.hidden:
        raise InputError(f"example_inputs: end in {width}, the module takes {architecture.hidden}")
    return architecture


def _unwrapped(module):
    """What is left when modules that hold nothing but one other are taken away."""
    while not _is_configured(module):
        children = [child for _, child in module.named_children()]
        if len(children) != 1 or any(True for _ in module.parameters(recurse=False)):
            break
        module = children[0]
    return module


def _is_configured(module):
    config = getattr(module, "config", None)
    return hasattr(config, "to_dict") and bool(getattr(config, "model_type", "")) and _is_model(module)


def _width_of(inputs):
    """The last dimension of the first tensor; None where there is none."""
    if isinstance(inputs, Mapping):
        inputs = list(inputs.values())
    if isinstance(inputs, (list, tuple)):
        inputs = next((value for value in inputs if hasattr(value, "shape")), None)
    shape = getattr(inputs, "shape", None)
    if shape is None:
        return None
    if len(shape) == 0:
        raise InputError("example_inputs: are a single number, expected a tensor that ends in the width of a token")
    return int(shape[-1])


def _is_model(module):
    """A model rather than one of its blocks: it has token or patch embeddings, or it says so."""
    return any(hasattr(module, word) for word in ("get_input_embeddings", "generate", "base_model_prefix"))


def _assemble(module, found, name, experts_only):
    hidden = {width for width, _ in found.blocks}
    if len(hidden) != 1:
        raise InputError(f"{type(module).__name__}: its MoE blocks are {sorted(hidden)} wide, expected one width")
    outside = [(n, p) for n, p in module.named_parameters() if id(p) not in found.read and getattr(p, "ndim", 0) > 1]
    if outside:
        count = sum(int(p.numel()) for _, p in outside)
        what = f"{count} weights outside of its MoE blocks ({outside[0][0]} the first) are not read"
        if not experts_only:
            hint = "give the whole Hugging Face model, a MoE block, or experts_only=True"
            raise InputError(f"{type(module).__name__}: {what} ({hint})")
        found.notes.append(what)
    dtypes = {str(p.dtype).removeprefix("torch.") for p in module.parameters()}
    known = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
    description = {
        "moecast_architecture": 1,
        "name": name or type(module).__name__,
        "hidden": hidden.pop(),
        "vocabulary": 0,
        "dtype": known.get(min(dtypes), "fp32") if len(dtypes) == 1 else "fp32",
        "decoder": [{"blocks": [block]} for _, block in found.blocks],
        "notes": sorted(set(found.notes)),
    }
    return Architecture.from_text(json.dumps(description), type(module).__name__)


def _attribute(module, names):
    for name in names:
        if getattr(module, name, None) is not None:
            return getattr(module, name)
    return None


class _Blocks:
    """The MoE blocks of a tree, outermost first."""

    def __init__(self, top_k):
        self.top_k = top_k
        self.blocks = []  #: (hidden, the block in the own schema)
        self.read = set()  #: ids of the parameters that they are made of
        self.notes = []

    def search(self, module, path):
        parts = _parts(module)
        if parts is None:
            for name, child in module.named_children():
                self.search(child, f"{path}.{name}" if path else name)
            return
        self.blocks.append(self._block(module, *parts, path or type(module).__name__))
        self.read.update(id(p) for p in module.parameters())

    def _block(self, module, experts, gate, where):
        router, hidden, count = _router(gate, _count(experts), where)
        router["top_k"] = self._top_k(module, gate, experts, count, where)
        block = {"type": "moe", "experts": self._groups(experts, count, hidden, where), "router": router}
        shared = _attribute(module, _SHARED)
        if shared is not None and hasattr(shared, "named_modules"):
            many = len(shared) if hasattr(shared, "__len__") else 1
            first = shared[0] if hasattr(shared, "__len__") else shared
            block["shared"] = {
                "count": many,
                "expert": self._expert(first, hidden, f"{where}.shared"),
                "gate": hasattr(module, "shared_expert_gate"),
            }
        return hidden, block

    def _top_k(self, module, gate, experts, count, where):
        said = None
        for owner in (module, gate, experts, getattr(module, "config", None)):
            for name in _TOP_K:
                value = _whole(getattr(owner, name, None))
                said = (name, value) if said is None and value is not None else said
        if said is None and self.top_k is None:
            raise InputError(f"{where}: does not say how many experts a token uses (give from_torch top_k=...)")
        name, value = said or ("top_k", _whole(self.top_k))
        if self.top_k is not None and value != self.top_k:
            raise InputError(f"{where}: {name} = {value}, but top_k={self.top_k!r} was given")
        if not 1 <= value <= count:
            raise InputError(f"{where}: {name} = {value} of {count} experts")
        return value

    def _groups(self, experts, count, hidden, where):
        if _is_fused(experts):
            return [{"count": count, "expert": self._fused(experts, count, hidden, where)}]
        children = [child for _, child in experts.named_children()]
        if len(children) != count:
            raise InputError(f"{where}: has {len(children)} experts, its gate chooses among {count}")
        groups = []
        for i, child in enumerate(children):
            expert = self._expert(child, hidden, f"{where}.experts.{i}")
            if groups and groups[-1]["expert"] == expert:
                groups[-1]["count"] += 1
            else:
                groups.append({"count": 1, "expert": expert})
        return groups

    def _fused(self, experts, count, hidden, where):
        """gate_up [E, 2 I, H] or [E, H, 2 I], down [E, H, I] or [E, I, H]."""
        up, down = (tuple(int(n) for n in getattr(experts, n).shape) for n in ("gate_up_proj", "down_proj"))
        if len(up) != 3 or up[0] != count or hidden not in up[1:] or hidden not in down[1:]:
            raise InputError(f"{where}: fused experts of shapes {up} and {down} do not fit {count} experts of {hidden}")
        width = up[1] * up[2] // hidden // 2
        return {"width": width, "gated": True, "activation": self._activation(experts, where)}

    def _expert(self, module, hidden, where):
        matrices = [(n, p) for n, p in module.named_parameters() if getattr(p, "ndim", 0) == 2]
        if not matrices:
            if not list(module.parameters()):
                return {"kind": "identity"}
            raise InputError(f"{where}: a {type(module).__name__} has no matrices")
        shapes = [tuple(int(n) for n in p.shape) for _, p in matrices]
        ups = [s for s in shapes if s[1] == hidden and s[0] != hidden] or [s for s in shapes[:-1] if s[1] == hidden]
        downs = len(shapes) - len(ups)
        if len(ups) not in (1, 2) or downs != 1 or len(set(ups)) != 1:
            raise InputError(f"{where}: matrices of {shapes} are no feed-forward network from and to {hidden}")
        out = [s for s in shapes if s not in ups] or [shapes[-1]]
        activation = self._activation(module, where)
        expert = {"width": ups[0][0], "gated": len(ups) == 2, "activation": activation}
        if out[0][0] != hidden:
            expert["output"] = out[0][0]
        if _has_bias(module):
            expert["bias"] = True
        return expert

    def _activation(self, module, where):
        for child in module.modules():
            kind = type(child).__name__
            if kind.lower() in _ACTIVATIONS:
                return _ACTIVATIONS[kind.lower()]
            leaf = not any(True for _ in child.children()) and not any(True for _ in child.parameters())
            if leaf and child is not module and not kind.lower().startswith(_PASSIVE):
                raise InputError(f"{where}: a {kind} is no activation that is known ({', '.join(_known())})")
        function = _attribute(module, ("act_fn", "act", "activation", "hidden_act"))
        word = function if isinstance(function, str) else getattr(function, "__name__", "")
        if not word:
            self.notes.append("silu was assumed where no module says its activation")
            return "silu"
        if word.lower() not in _ACTIVATIONS:
            raise InputError(f"{where}: {word!r} is no activation that is known ({', '.join(_known())})")
        return _ACTIVATIONS[word.lower()]


def _known():
    return sorted(set(_ACTIVATIONS.values()))


def _whole(value):
    """The value as an int; None for what is no whole number."""
    try:
        return None if isinstance(value, bool) else operator.index(value)
    except (TypeError, ValueError, RuntimeError):
        return None


def _is_fused(experts):
    return hasattr(experts, "gate_up_proj") and hasattr(experts, "down_proj")


def _count(experts):
    return int(experts.gate_up_proj.shape[0]) if _is_fused(experts) else len(list(experts.named_children()))


def _parts(module):
    """(experts, gate) of a MoE block; None for other modules."""
    experts, gate = _attribute(module, _EXPERTS), _attribute(module, _GATES)
    if experts is None and gate is None:
        children = [child for _, child in module.named_children()]
        lists = [child for child in children if type(child).__name__ in _LISTS]
        if len(children) != 2 or len(lists) != 1:
            return None
        experts = lists[0]
        gate = next(child for child in children if child is not experts)
        matrices = _matrices(gate)
        return (experts, gate) if matrices and int(matrices[-1].shape[0]) == _count(experts) else None
    if not all(hasattr(part, "named_parameters") for part in (experts, gate)):
        return None
    return experts, gate


def _matrices(module):
    return [p for _, p in module.named_parameters() if getattr(p, "ndim", 0) == 2]


def _has_bias(module):
    """Whether a matrix of the module has one; norms do not count."""
    return any(
        getattr(getattr(child, "bias", None), "ndim", 0) == 1
        and getattr(getattr(child, "weight", None), "ndim", 0) == 2
        for child in module.modules()
    )


def _router(gate, count, where):
    """(router in the own schema less its top-k, width of a token, experts that it chooses among)."""
    shapes = [tuple(int(n) for n in p.shape) for p in _matrices(gate)]
    if not shapes:
        raise InputError(f"{where}: its gate ({type(gate).__name__}) has no matrix of a row for each expert")
    chained = all(after[1] == before[0] for before, after in itertools.pairwise(shapes))
    if not chained or shapes[-1][0] != count:
        raise InputError(f"{where}: matrices of {shapes} are no gate that chooses among {count} experts")
    router = {"linear_bias": True} if _has_bias(gate) else {}
    if len(shapes) > 1:
        router.update(network="mlp", mlp_widths=[rows for rows, _ in shapes[:-1]])
    return router, shapes[0][1], count
