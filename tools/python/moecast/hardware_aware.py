"""HardwareAwareMoE: the interface that architecture searches expect, by its usual name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from moecast import _core
from moecast.predictor import Predictor

_LAYER = {
    "hidden",
    "width",
    "experts",
    "top_k",
    "gated",
    "capacity_factor",
    "pad",
    "shared_experts",
    "activation",
    "overflow",
}


class HardwareAwareMoE:
    """Estimates of one machine.

    Parameters
    ----------
    hardware_profile: a Predictor, an AdaptedPredictor, a name of `list_hw()`, or the folder of a profile (CPU or GPU).
    """

    FACTORS = ("all-to-all", "memory-bandwidth", "expert-parallel-efficiency", "routing-overhead")

    def __init__(self, hardware_profile: Any, **setting: Any) -> None:
        made = hasattr(hardware_profile, "predict")
        if made and setting:
            raise _core.UsageError(f"{min(setting)}: a Predictor that was made has its setting already")
        self.predictor = hardware_profile if made else Predictor(hardware_profile, **setting)

    def estimate_latency(
        self, moe_config: Any, *, without: str | Iterable[str] = (), **workload: Any
    ) -> dict[str, Any]:
        """Latency of one configuration, with the four factors and compute.

        `moe_config`: an Architecture, a dict of the own schema or of Hugging Face, or a lone MoE layer as a dict:
        hidden, width, experts, top_k, tokens, and if wanted gated, capacity_factor, pad, shared_experts, activation,
        overflow. `workload`: fields of `Predictor.predict` (batch, context, ep, ...). `without`: names of FACTORS that
        are removed; removing one never slows.

        Returns a dict: latency_s (None unless status is ok), latency_low_s, latency_high_s, status, reason, factors
        (all_to_all_s, memory_bandwidth_s, compute_s, routing_overhead_s, expert_parallel_efficiency_ratio),
        memory_bytes, flops, total_parameters, active_parameters, origin. The efficiency is t(1) / (n t(n)) on the n
        devices of tp, dp, cp, pp and ep, of the call and of the predictor; None where one device cannot be asked.
        Raises InputError, UsageError.
        """
        architecture, workload = self._question(moe_config, workload)
        without = [without] if isinstance(without, str) else list(without)
        unknown = set(without) - set(self.FACTORS) - {"imbalance"}
        if unknown:
            raise _core.UsageError(f"without: {sorted(unknown)[0]!r} is no factor (write {', '.join(self.FACTORS)})")
        removed = [name for name in without if name != "expert-parallel-efficiency"]
        answer = self.predictor.predict(architecture, without=removed, **workload)
        out = {
            "status": answer.status,
            "reason": answer.reason,
            "latency_s": answer.latency_s,
            "latency_low_s": answer.latency_low_s,
            "latency_high_s": answer.latency_high_s,
            "factors": answer.factors,
            "memory_bytes": answer.memory["total_bytes"],
            "flops": answer.flops,
            "total_parameters": answer.total_parameters,
            "active_parameters": answer.active_parameters,
            "origin": answer.origin if answer.latency_s is not None else None,
        }
        if answer.latency_s is not None and "expert-parallel-efficiency" in without:
            self._perfect_parallelism(out, answer.warnings)
        return out

    @staticmethod
    def _perfect_parallelism(out, warnings):
        """What is left when n devices are n times as fast as one, where they are not faster than that."""
        ratio = out["factors"]["expert_parallel_efficiency_ratio"]
        if ratio is None:
            unknown = "expert-parallel efficiency is not known"
            out["status"] = "outside_range"
            out["reason"] = next((text for text in warnings if text.startswith(unknown)), unknown)
            out["latency_s"] = out["latency_low_s"] = out["latency_high_s"] = None
            return
        for name in ("latency_s", "latency_low_s", "latency_high_s"):
            out[name] *= min(1.0, ratio)

    @staticmethod
    def _question(config, workload):
        if isinstance(config, _core.Architecture):
            return config, workload
        if not isinstance(config, dict):
            raise _core.UsageError(f"moe_config: is a {type(config).__name__}, expected an Architecture or a dict")
        if not {"hidden", "experts", "width"} <= set(config) or "decoder" in config:
            return _core.Architecture.from_dict(config, "moe_config"), workload
        layer = dict(config)
        if "tokens" in layer:
            workload = {**workload, "tokens": layer.pop("tokens")}
        unknown = set(layer) - _LAYER
        if unknown:
            raise _core.UsageError(f"moe_config: {sorted(unknown)[0]!r} is no field of a MoE layer")
        sizes = [layer.pop(name, None) for name in ("hidden", "width", "experts", "top_k")]
        if sizes[3] is None:
            raise _core.UsageError("moe_config: top_k is missing")
        return _core.Architecture.moe_layer(*sizes, **layer), workload
