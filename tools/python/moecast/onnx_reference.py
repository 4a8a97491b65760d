"""MoE layers as onnxruntime's operator com.microsoft.MoE executes them on this CPU. Needs onnx and onnxruntime."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from moecast._core import Architecture
from moecast.accuracy import judged, report
from moecast.execution import draw_layers, measure
from moecast.predictor import Predictor


def model_of(layer: dict[str, int], generator: numpy.random.Generator) -> tuple[Any, numpy.ndarray]:
    """(model, router): an ONNX model of a layer with random weights, and its router's matrix.

    `layer`: hidden, width, experts, top_k. Rows `x` of [tokens, hidden] go through a router (a MatMul) and SwiGLU
    experts whose weights of the top k add up to 1.
    """
    hidden, width, experts = layer["hidden"], layer["width"], layer["experts"]

    def weights(*shape):
        return generator.standard_normal(shape, numpy.float32) / numpy.float32(numpy.sqrt(shape[-1]))

    router = weights(hidden, experts)
    initializers = {
        "router": router,
        "gate_up": weights(experts, 2 * width, hidden),
        "down": weights(experts, hidden, width),
    }
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "router"], ["scores"]),
            helper.make_node(
                "MoE",
                ["x", "scores", "gate_up", "", "down"],
                ["y"],
                domain="com.microsoft",
                k=layer["top_k"],
                activation_type="swiglu",
                swiglu_fusion=1,
                activation_alpha=1.0,  # x * sigmoid(alpha x), times the other half plus beta
                activation_beta=0.0,
                normalize_routing_weights=1,
            ),
        ],
        "moe",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["tokens", hidden])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["tokens", hidden])],
        [numpy_helper.from_array(values, name) for name, values in initializers.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9), router


def execute(
    layer: dict[str, int], seed: int, *, threads: int = 1, least_s: float = 0.3
) -> tuple[list[int], float, float]:
    """(rows of each expert, seconds, noise) of `layer["tokens"]` tokens through the layer."""
    generator = numpy.random.default_rng(seed)
    model, router = model_of(layer, generator)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    x = generator.standard_normal((layer["tokens"], layer["hidden"]), numpy.float32)
    chosen = numpy.argsort(-(x @ router), axis=1)[:, : layer["top_k"]]
    rows = numpy.bincount(chosen.reshape(-1), minlength=layer["experts"]).tolist()
    seconds, noise = measure(lambda: session.run(None, {"x": x}), least_s=least_s)
    return rows, seconds, noise


def validate(
    hw: Any,
    *,
    cases: int = 40,
    taught: int = 20,
    seed: int = 1,
    threads: int = 1,
    backend: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, float]:
    """Executes `taught` layers, which teach a profile of this machine how onnxruntime differs; judges `cases` others.

    `hw`: a profile of this machine; `backend` of it (default: its first). Returns what `judged` does.
    """
    predictor = Predictor(hw, backend=backend, threads=threads, strategy="per-expert-loop", dtype="fp32")
    names = ("compute_s", "memory_bandwidth_s", "routing_overhead_s")
    columns = {name: [] for name in ("latency_s", *names, "calls", "total_parameters")}
    seconds, noises = [], []
    layers = draw_layers(taught + cases, seed)
    for number, layer in enumerate(layers):
        rows, time, noise = execute(layer, seed + number, threads=threads)
        architecture = Architecture.moe_layer(layer["hidden"], layer["width"], layer["experts"], layer["top_k"])
        answer = predictor.predict(architecture, tokens=layer["tokens"], rows=rows)
        columns["latency_s"].append(answer.latency_s)
        for name in names:
            columns[name].append(answer.factors[name])
        columns["calls"].append(sum(r > 0 for r in rows))
        columns["total_parameters"].append(answer.total_parameters)
        seconds.append(time)
        noises.append(noise)
        if progress:
            progress(number + 1, len(layers))
    table = {name: numpy.array(values, float) for name, values in columns.items()}
    return judged(table, numpy.array(seconds), noises, taught)[0]


def main() -> int:
    """Executes layers, predicts them, prints the table."""
    import argparse
    import sys

    parser = argparse.ArgumentParser(prog="python -m moecast.onnx_reference", description=__doc__)
    parser.add_argument("--hw", default="this-machine", help="a profile of this machine (default this-machine)")
    parser.add_argument("--backend", default="", help="of the profile (default: its first)")
    parser.add_argument("--cases", type=int, default=40)
    parser.add_argument("--taught", type=int, default=20, help="layers that teach how onnxruntime differs")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()

    def show(done, of):
        print(f"\r{done}/{of} ", end="" if done < of else "\n", file=sys.stderr, flush=True)

    result = validate(
        options.hw,
        cases=options.cases,
        taught=options.taught,
        seed=options.seed,
        threads=options.threads,
        backend=options.backend,
        progress=show if sys.stderr.isatty() else None,
    )
    print(report(result, f"onnxruntime {onnxruntime.__version__} com.microsoft.MoE, fp32, {options.threads} threads"))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
