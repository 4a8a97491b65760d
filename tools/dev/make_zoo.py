#!/usr/bin/env python3
"""Writes models/zoo/*.json from published configurations and from a table of facts about older models.

usage: tools/dev/make_zoo.py MOECAST FACTS.jsonl CONFIG_FOLDER
  MOECAST        the program; its importer does the work (`moecast describe`)
  FACTS.jsonl    one model a line: sizes, published totals, sources
  CONFIG_FOLDER  Hugging Face config.json files, named ORGANISATION--MODEL.config.json
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ZOO = Path(__file__).resolve().parents[2] / "models" / "zoo"

# Facts whose name has no configuration of its own: another one with the same shape, or a family and further fields.
SAME_SHAPE = {
    "Qwen3.5-397B-A17B": "Qwen3.5-397B-A17B-NVFP4",
    "DeepSeek-V3.2": "DeepSeek-V3.2-NVFP4",
    "Kimi-K2.5": "Kimi-K2.5-NVFP4",
}
FAMILIES = {
    "Qwen3-Coder": ("qwen3_moe", {}),
    "Qwen3-Next": ("qwen3_next", {"full_attention_interval": 4}),
    "Qwen1.5": ("qwen2_moe", {}),
    "Qwen2-57B": ("qwen2_moe", {}),
    "DeepSeek-V2": ("deepseek_v2", {}),
    "DeepSeekMoE": ("deepseek", {}),
    "Kimi-K2-": ("kimi_k2", {"topk_method": "noaux_tc"}),
    "GLM-4.5": ("glm4_moe", {"attention_bias": True, "topk_method": "noaux_tc"}),
    "MiniMax-Text": ("minimax_text_01", {"attn_type_list": ([0] * 7 + [1]) * 10}),
    "MiniMax-M1": ("minimax_m1", {"attn_type_list": ([0] * 7 + [1]) * 10}),
    "OLMoE": ("olmoe", {}),
    "granite": ("granitemoe", {}),
    "Phi": ("phimoe", {"attention_bias": True}),
    "DBRX": ("dbrx", {}),
    "Grok": ("grok-1", {"hidden_act": "gelu"}),
    "Jamba": ("jamba", {"expert_layer_period": 2, "expert_layer_offset": 1, "attn_layer_period": 8,
                        "attn_layer_offset": 4}),
    "snowflake": ("arctic", {"moe_train_capacity_factor": 1, "moe_eval_capacity_factor": 1}),
    "Hunyuan": ("hunyuan", {}),
    "ERNIE-4.5-VL": ("ernie4_5_moe_vl", {"tie_word_embeddings": True}),
    "ERNIE": ("ernie4_5_moe", {}),
    "OpenMoE": ("openmoe", {"moe_layer_interval": 6, "router_capacity_factor_train": 1.25,
                            "router_capacity_factor_eval": 2.0}),
    "switch-base": ("switch_transformers", {"num_layers": 12, "num_decoder_layers": 12, "num_sparse_encoder_layers": 6,
                                            "num_sparse_decoder_layers": 6, "dense_act_fn": "relu"}),
    # All layers are sparse: the paper's 1571 B; the published config.json counts half of them.
    "switch-c": ("switch_transformers", {"num_layers": 15, "num_decoder_layers": 15, "num_sparse_encoder_layers": 15,
                                         "num_sparse_decoder_layers": 15, "dense_act_fn": "relu"}),
    "NLLB": ("nllb-moe", {"encoder_layers": 24, "decoder_layers": 24, "encoder_sparse_step": 4,
                          "decoder_sparse_step": 4, "activation_function": "relu"}),
}
# Where nobody published what the layers are; others are written by hand in the zoo.
NO_LAYERS = {"ST-MoE-32B"}
BY_HAND = {"GLaM-64B/64E", "GShard-600B", "LIMoE-H/14", "AutoMoE supernet (WMT)"}


def short_name(name: str) -> str:
    name = re.sub(r"\(.*\)|NVIDIA-|-BF16|-FP8|-v0\.1|-Instruct|/64E", "", name)
    name = {"ERNIE-4.5-VL-28B-A3B": name, "granite-3.x-1b-a400m": "granite-3-1b-a400m"}.get(name, name)
    name = re.sub(r"-(17B-16E|17B-128E)$", "", name.strip())
    return re.sub(r"[ /]+", "-", name).lower()


def amount(text: str | None) -> float | None:
    """"46.7B (excl. embeddings)" -> 46.7e9."""
    found = re.match(r"([\d.]+)\s*([MBT])", text or "")
    return float(found[1]) * {"M": 1e6, "B": 1e9, "T": 1e12}[found[2]] if found else None


def config_of(facts: dict) -> dict:
    """A Hugging Face configuration with the sizes of one line of facts."""
    family, extra = next(value for key, value in FAMILIES.items() if facts["name"].startswith(key))
    config = {
        "model_type": family, "hidden_size": facts["hidden_size"], "num_hidden_layers": facts["num_layers"],
        "num_experts": facts["num_experts"], "num_experts_per_tok": facts["top_k"],
        "moe_intermediate_size": facts["expert_intermediate_size"],
        "intermediate_size": facts["dense_intermediate_size"], "num_attention_heads": facts["heads"],
        "num_key_value_heads": facts["kv_heads"], "head_dim": facts["head_dim"], "vocab_size": facts["vocab"],
        "tie_word_embeddings": facts["tied_embeddings"], "torch_dtype": (facts["dtype"] or "bfloat16").split()[0],
    }
    if config["torch_dtype"] == "bf16":
        config["torch_dtype"] = "bfloat16"
    routing = facts["router_extra"] or {}
    keep = ("norm_topk_prob", "n_group", "topk_group", "topk_method", "routed_scaling_factor", "expert_capacity",
            "router_jitter_noise", "use_residual", "moe_min_capacity", "num_nextn_predict_layers",
            "router_min_capacity")
    config |= {k: v for k, v in routing.items() if k in keep or k.startswith(("linear_", "mamba_"))}
    if facts["mla"]:
        mla = facts["mla"]
        config |= {"q_lora_rank": mla["q_lora_rank"], "kv_lora_rank": mla["kv_lora_rank"],
                   "qk_nope_head_dim": mla["qk_nope"], "qk_rope_head_dim": mla["qk_rope"], "v_head_dim": mla["v"]}
    if first := re.match(r"(\d+)\.\.", str(facts["moe_layers"])):
        config["first_k_dense_replace"] = int(first[1])
    shared, width = facts["shared_experts"], facts["shared_intermediate_size"]
    if shared and not routing.get("use_residual"):
        config["n_shared_experts"] = shared
        if family in ("qwen2_moe", "qwen3_next"):
            config["shared_expert_intermediate_size"] = width
    return {k: v for k, v in (config | extra).items() if v is not None}


#: Formats of released checkpoints (quantization_config of their config.json) that the sources above leave out.
RELEASED_FORMATS = {
    "deepseek-v3.2": {"dtype": "fp8_block"},
    "kimi-k2": {"dtype": "fp8_block"},
    "kimi-k2.5": {"expert_dtype": "int4"},
}


def describe(program: str, config: Path) -> dict:
    done = subprocess.run([program, "describe", str(config)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{config}: {done.stderr}")
    return json.loads(done.stdout)


def vision(facts: dict) -> dict:
    """V-MoE: a vision transformer, experts in every second block or in the last two odd ones."""
    layers = facts["num_layers"]
    width = {"width": facts["expert_intermediate_size"], "gated": False, "bias": True, "activation": "gelu"}
    heads = facts["heads"]
    attention = {"type": "attention", "heads": heads, "kv_heads": heads, "head_dim": facts["head_dim"],
                 "bias_qkv": True, "bias_out": True, "causal": False}
    experts = facts["num_experts"] or 32
    moe = {"type": "moe", "experts": [{"count": experts, "expert": width}],
           "router": {"top_k": facts["top_k"], "noise": "gaussian", "noise_strength": 1 / experts},
           "capacity": {"train_factor": 1.05, "eval_factor": (facts["capacity_factor"] or {}).get("eval", 1.05)}}
    sparse = {i for i in range(1, layers, 2)}
    if "Last2" in facts["name"]:
        sparse = set(sorted(sparse)[-2:])
    encoder = [{"blocks": ["attention", "moe" if i in sparse else "ffn"]} for i in range(layers)]
    notes = ["patch embedding, position embedding and classifier are left out"]
    if not facts["num_experts"]:
        notes.append("32 experts as the paper says; the configuration was not found")
    return {"moecast_architecture": 1, "name": "", "hidden": facts["hidden_size"], "notes": notes,
            "blocks": {"attention": attention, "moe": moe, "ffn": {"type": "ffn", "ffn": width}}, "encoder": encoder}


def main() -> None:
    program, facts_file, folder = sys.argv[1:4]
    configs = {path.name.split("--")[1].removesuffix(".config.json"): path for path in Path(folder).glob("*.json")}
    for line in Path(facts_file).read_text().splitlines():
        facts = json.loads(line)
        name = facts["name"]
        if name in NO_LAYERS | BY_HAND:
            continue
        known = configs.get(SAME_SHAPE.get(name, name))
        with tempfile.TemporaryDirectory() as scratch:
            own = Path(scratch) / "model.json"
            own.write_text(json.dumps(vision(facts) if name.startswith("V-MoE") else {} if known else config_of(facts)))
            model = describe(program, known or own)
        if known and name in SAME_SHAPE:
            model.pop("expert_dtype", None)
            model.pop("kv_dtype", None)
        model |= RELEASED_FORMATS.get(short_name(name), {})
        published = {"total": amount(facts["total_params"]), "active": amount(facts["active_params"]),
                     "source": facts["params_source"]}
        head = {"moecast_architecture": model.pop("moecast_architecture"), "name": short_name(name),
                "source": re.sub(r" \(index file.*?\)|; index file.*| \+ index file.*", "", facts["source"]),
                "published": {k: v for k, v in published.items() if v is not None}}
        model.pop("name", None)
        if not published["total"] and not published["active"]:
            head.pop("published")
        (ZOO / f"{short_name(name)}.json").write_text(json.dumps(head | model, indent=2) + "\n")


if __name__ == "__main__":
    main()
