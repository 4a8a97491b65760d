"""Families of architectures: which fields a space of them may have, and the blocks that the values make.

Dimensions (count, arch, routing, capacity, fairness, robustness) follow the published methods: a space of a family
refuses fields of a dimension that its method does not search.
"""

import functools
import json

from moecast._core import Architecture, InputError

_COMMON = {
    "vocabulary": 32768,
    "tied_embeddings": True,
    "dtype": "fp32",
    "head_dim": 64,
    "activation": "relu",
    "gated": False,
}
_MOE = {"experts": 1, "expert_width": None, "top_k": 1, "identity_experts": 0}
_BLOCK = {
    "hidden": None,
    "layers": None,
    "heads": None,
    "width": None,
    **_MOE,
    "capacity_factor": None,
    "routing": "token-choice",
    "qkv_dim": None,
}


def _stack(name, **others):
    """Fields of a stack with their defaults."""
    return {f"{name}.{field}": default for field, default in {**_BLOCK, **others}.items()}


def _feed_forward(v):
    """A dense network, or experts where there is more than one (AutoMoE: 1 = dense)."""
    expert = {"gated": v["gated"], "bias": True, "activation": v["activation"]}
    count = v["experts"]
    if count <= 1 and not v["identity_experts"]:
        return {"type": "ffn", "ffn": {**expert, "width": v["width"]}}
    widths = v["expert_width"] if v["expert_width"] is not None else v["width"]
    widths = list(widths[:count]) if isinstance(widths, tuple) else [widths] * count
    groups = []
    for width in sorted(widths, reverse=True):
        if groups and groups[-1]["expert"]["width"] == width:
            groups[-1]["count"] += 1
        else:
            groups.append({"count": 1, "expert": {**expert, "width": width}})
    if v["identity_experts"]:
        groups.append({"count": v["identity_experts"], "expert": {"kind": "identity"}})
    block = {"type": "moe", "experts": groups, "router": _router(v)}
    if v.get("capacity_factor") is not None:
        block["capacity"] = {"eval_factor": v["capacity_factor"]}
    if v.get("shared_experts"):
        block["shared"] = {
            "count": v["shared_experts"],
            "expert": {**expert, "width": v.get("shared_width") or widths[0]},
        }
    return block


@functools.lru_cache(maxsize=4096)
def _split(block, parts):
    """A MoE block, as JSON, whose experts are each cut into so many, of which as many more are used."""
    text = f'{{"moecast_architecture":1,"hidden":64,"decoder":[{{"blocks":[{block}]}}]}}'
    try:
        split = Architecture.from_text(text, "granularity").split_experts(parts)
    except InputError as error:
        raise InputError(f"granularity: {error}") from None
    (block,) = split.to_dict()["blocks"].values()
    return json.dumps(block)


def _router(v):
    routing = v.get("routing", "token-choice")
    if routing == "expert-choice":
        return {"kind": "expert-choice", "top_k": v["top_k"]}
    if routing.startswith("top-"):
        return {"top_k": int(routing[4:])}
    return {"top_k": v["top_k"]}


def _attention(v, **more):
    heads = v["heads"]
    # qkv_dim: all heads together have this width, whatever their number (HAT).
    size = v["qkv_dim"] // heads if v.get("qkv_dim") else v["head_dim"]
    kv_heads = v.get("kv_heads") or heads
    return {"type": "attention", "heads": heads, "kv_heads": min(kv_heads, heads), "head_dim": size, **more}


class Family:
    """Fields by stack with their defaults; None as a default of a required field is refused while a space is read."""

    stacks = ()
    required = ()
    fields = {}

    def frame(self, v):
        """The model without its layers. `v(field)`: the value of a field."""
        raise NotImplementedError

    def blocks(self, stack, v):
        """Blocks of a layer from its values."""
        raise NotImplementedError

    def check(self, fields, where):
        """Raises InputError where choices of the Fields make no architecture together."""


class EncoderDecoder(Family):
    """Translation with experts (AutoMoE, microsoft/AutoMoE e75bd33; HAT without experts)."""

    stacks = ("encoder", "decoder")
    required = (
        "encoder.hidden",
        "encoder.layers",
        "encoder.heads",
        "encoder.width",
        "decoder.hidden",
        "decoder.layers",
        "decoder.heads",
        "decoder.width",
    )
    fields = {
        **_COMMON,
        **_stack("encoder", qkv_dim=512, drop_attention=False, drop_ffn=False),
        **_stack("decoder", qkv_dim=512, drop_attention=False, drop_ffn=False),
        "decoder.cross_heads": None,
        "decoder.source_layers": 1,
    }

    def frame(self, v):
        return {
            "hidden": v("decoder.hidden"),
            "encoder_hidden": v("encoder.hidden"),
            "vocabulary": v("vocabulary"),
            "tied_embeddings": v("tied_embeddings"),
            "dtype": v("dtype"),
        }

    def blocks(self, stack, v):
        blocks = []
        if not v["drop_attention"]:
            blocks.append(_attention(v, causal=stack == "decoder", bias_qkv=True, bias_out=True))
        if stack == "decoder":
            cross = {**v, "heads": v["cross_heads"] or v["heads"]}
            blocks.append(
                _attention(
                    cross, kind="cross", causal=False, bias_qkv=True, bias_out=True, source_layers=v["source_layers"]
                )
            )
        if not v["drop_ffn"]:
            blocks.append(_feed_forward(v))
        return blocks


class ArchitectureMixture(EncoderDecoder):
    """Mixture-of-Supernets: a router of architectures weighs `mixture_experts` sets of weights of one sub-network; all
    tokens use the same ones. `mix`: weights (merged once) or outputs (top-k whole passes). No capacity, no token
    routing."""

    fields = {
        name: default
        for name, default in EncoderDecoder.fields.items()
        if name.rpartition(".")[2]
        not in {"capacity_factor", "routing", "experts", "expert_width", "top_k", "identity_experts"}
    }
    fields = {**fields, "mixture_experts": 2, "mixture_top_k": 2, "mix": "weights"}

    def blocks(self, stack, v):
        return super().blocks(stack, {**v, **_MOE})


class Vision(Family):
    """Vision transformers whose feed-forward networks may become Switch layers (MoENAS): experts of a layer, sizes of
    each expert, pruning."""

    stacks = ("encoder",)
    required = ("encoder.hidden", "encoder.layers", "encoder.heads", "encoder.width")
    fields = {
        **_COMMON,
        "vocabulary": 0,
        "activation": "gelu",
        **_stack("encoder"),
    }

    def frame(self, v):
        return {"hidden": v("encoder.hidden"), "vocabulary": v("vocabulary"), "dtype": v("dtype")}

    def blocks(self, stack, v):
        return [_attention(v, causal=False, bias_qkv=True, bias_out=True), _feed_forward(v)]


class Decoder(Family):
    """Decoder-only language models: layers, hidden, experts, top-k, shared experts, granularity, router."""

    stacks = ("decoder",)
    required = ("decoder.hidden", "decoder.layers", "decoder.heads", "decoder.width")
    fields = {
        **_COMMON,
        "activation": "silu",
        "gated": True,
        "tied_embeddings": False,
        "granularity": 1,
        **{
            f"decoder.{name}": default
            for name, default in {
                "hidden": None,
                "layers": None,
                "heads": None,
                "kv_heads": None,
                "width": None,
                **_MOE,
                "capacity_factor": None,
                "routing": "token-choice",
                "shared_experts": 0,
                "shared_width": None,
                "qkv_dim": None,
            }.items()
        },
    }

    def frame(self, v):
        return {
            "hidden": v("decoder.hidden"),
            "vocabulary": v("vocabulary"),
            "dtype": v("dtype"),
            "tied_embeddings": v("tied_embeddings"),
        }

    def blocks(self, stack, v):
        block = _feed_forward(v)
        if v["granularity"] > 1 and block["type"] == "moe":
            block = json.loads(_split(json.dumps(block), v["granularity"]))
            if block.get("shared") and v["shared_width"] is None:  # of the size of the fine ones
                block["shared"]["expert"]["width"] = block["experts"][0]["expert"]["width"]
        return [_attention(v), block]

    def check(self, fields, where):
        own, dense = fields["decoder.expert_width"].choices, fields["decoder.width"].choices
        widths = {width for width in own if width is not None} | (set(dense) if None in own else set())
        if max(fields["decoder.experts"].choices) == 1 and not any(fields["decoder.identity_experts"].choices):
            return
        for parts in fields["granularity"].choices:
            odd = [width for width in widths if width % parts]
            if odd:
                raise InputError(
                    f"{where}: /fields/granularity: {parts} parts do not divide an expert of width {min(odd)}"
                )


FAMILIES = {
    "encoder-decoder": EncoderDecoder(),
    "architecture-mixture": ArchitectureMixture(),
    "vision": Vision(),
    "decoder": Decoder(),
}
