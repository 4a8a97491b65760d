"""PyTorch modules as architectures, read from their tree without running them (torch itself is not imported)."""

import json

from moecast._core import Architecture, InputError

_GATES = ("gate", "router", "wg", "gating", "gate_proj_router", "switch")
_EXPERTS = ("experts", "expert_list", "mlp_experts")
_TOP_K = ("top_k", "num_experts_per_tok", "k", "topk", "num_selected_experts", "moe_top_k", "top_k_experts")
_SHARED = ("shared_experts", "shared_expert", "shared_mlp")
_ACTIVATIONS = {
    "relu": "relu",
    "gelu": "gelu",
    "newgeluactivation": "gelu",
    "gelutanh": "gelu",
    "silu": "silu",
    "siluactivation": "silu",
    "swish": "silu",
    "identity": "identity",
}


def from_torch(module, example_inputs=None, *, name=None):
    """An Architecture of a module tree.

    Whole Hugging Face models are read from their configuration; MoE blocks (Mixtral, Qwen-MoE, OLMoE, DeepSeek: experts
    as a list or as fused parameters) and plain networks of experts and a gate from the shapes of their weights. A
    container of MoE blocks becomes a model with a layer for each.

    `example_inputs`: not run; where given, its last dimension is checked against the width of a token.
    Raises InputError that names the module that is not understood.
    """
    if not hasattr(module, "named_modules"):
        raise InputError(f"module: a {type(module).__name__} is no torch.nn.Module")
    config = getattr(module, "config", None)
    if hasattr(config, "to_dict") and getattr(config, "model_type", "") and _is_model(module):
        architecture = Architecture.from_text(json.dumps(config.to_dict(), default=str), name or config.model_type)
    else:
        blocks = list(_find(module, ""))
        if not blocks:
            raise InputError(f"{type(module).__name__}: holds no experts beside a gate that could be read")
        architecture = _assemble(module, blocks, name)
    width = getattr(example_inputs, "shape", None)
    if width is not None and architecture.vocabulary == 0 and width[-1] != architecture.hidden:
        raise InputError(f"example_inputs: end in {width[-1]}, the module takes {architecture.hidden}")
    return architecture


def _is_model(module):
    """A model rather than one of its blocks: it has token or patch embeddings, or it says so."""
    return any(hasattr(module, word) for word in ("get_input_embeddings", "generate", "base_model_prefix"))


def _assemble(module, blocks, name):
    hidden = {h for _, h, _ in blocks}
    if len(hidden) != 1:
        raise InputError(f"{type(module).__name__}: its MoE blocks are {sorted(hidden)} wide, expected one width")
    dtypes = {str(p.dtype).removeprefix("torch.") for p in module.parameters()}
    dtype = (
        {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}.get(min(dtypes), "fp32")
        if len(dtypes) == 1
        else "fp32"
    )
    return Architecture.from_text(
        json.dumps(
            {
                "moecast_architecture": 1,
                "name": name or type(module).__name__,
                "hidden": hidden.pop(),
                "vocabulary": 0,
                "dtype": dtype,
                "decoder": [{"blocks": [block]} for _, _, block in blocks],
            }
        ),
        type(module).__name__,
    )


def _find(module, path):
    """(path, hidden, block) of every MoE block, outermost first."""
    block = _moe(module, path)
    if block is not None:
        yield (path, *block)
        return
    for name, child in module.named_children():
        yield from _find(child, f"{path}.{name}" if path else name)


def _attribute(module, names):
    for name in names:
        if getattr(module, name, None) is not None:
            return getattr(module, name)
    return None


def _moe(module, path):
    experts = _attribute(module, _EXPERTS)
    gate = _attribute(module, _GATES)
    if experts is None and hasattr(module, "gate_up_proj") and hasattr(module, "down_proj"):
        return None  # the fused experts alone: their parent has the gate
    if experts is None or gate is None or isinstance(gate, (int, str)):
        return None
    where = path or type(module).__name__
    weight = _gate_weight(gate)
    if weight is None:
        raise InputError(f"{where}: its gate ({type(gate).__name__}) has no matrix of a row for each expert")
    count, hidden = (int(n) for n in weight.shape)
    block = {
        "type": "moe",
        "experts": _groups(experts, count, hidden, where),
        "router": {"top_k": _top_k(module, gate, experts, count, where)},
    }
    shared = _attribute(module, _SHARED)
    if shared is not None and hasattr(shared, "named_modules"):
        many = len(shared) if hasattr(shared, "__len__") else 1
        first = shared[0] if hasattr(shared, "__len__") else shared
        block["shared"] = {
            "count": many,
            "expert": _expert(first, hidden, f"{where}.shared"),
            "gate": hasattr(module, "shared_expert_gate"),
        }
    return hidden, block


def _gate_weight(gate):
    """The last matrix of a gate: [experts, hidden]."""
    weights = [p for n, p in gate.named_parameters() if getattr(p, "ndim", 0) == 2]
    return weights[-1] if weights else None


def _top_k(module, gate, experts, count, where):
    for owner in (module, gate, experts, getattr(module, "config", None)):
        for name in _TOP_K:
            value = getattr(owner, name, None)
            if isinstance(value, int) and not isinstance(value, bool):
                if not 1 <= value <= count:
                    raise InputError(f"{where}: {name} = {value} of {count} experts")
                return value
    raise InputError(f"{where}: does not say how many experts a token uses (an attribute such as top_k)")


def _groups(experts, count, hidden, where):
    if hasattr(experts, "gate_up_proj") and hasattr(experts, "down_proj"):
        return [{"count": count, "expert": _fused(experts, count, hidden, where)}]
    children = [child for _, child in experts.named_children()]
    if len(children) != count:
        raise InputError(f"{where}: has {len(children)} experts, its gate chooses among {count}")
    groups = []
    for i, child in enumerate(children):
        expert = _expert(child, hidden, f"{where}.experts.{i}")
        if groups and groups[-1]["expert"] == expert:
            groups[-1]["count"] += 1
        else:
            groups.append({"count": 1, "expert": expert})
    return groups


def _fused(experts, count, hidden, where):
    """gate_up [E, 2 I, H] or [E, H, 2 I], down [E, H, I] or [E, I, H]."""
    up, down = (tuple(int(n) for n in getattr(experts, n).shape) for n in ("gate_up_proj", "down_proj"))
    if len(up) != 3 or up[0] != count or hidden not in up[1:] or hidden not in down[1:]:
        raise InputError(f"{where}: fused experts of shapes {up} and {down} do not fit {count} experts of {hidden}")
    width = up[1] * up[2] // hidden // 2
    return {"width": width, "gated": True, "activation": _activation(experts)}


def _expert(module, hidden, where):
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
    expert = {"width": ups[0][0], "gated": len(ups) == 2, "activation": _activation(module)}
    if out[0][0] != hidden:
        expert["output"] = out[0][0]
    if any(getattr(p, "ndim", 0) == 1 for _, p in module.named_parameters()):
        expert["bias"] = True
    return expert


def _activation(module):
    for child in module.modules():
        word = _ACTIVATIONS.get(type(child).__name__.lower())
        if word:
            return word
    function = _attribute(module, ("act_fn", "act", "activation", "hidden_act"))
    word = function if isinstance(function, str) else getattr(function, "__name__", "")
    return _ACTIVATIONS.get(str(word).lower(), "silu")
