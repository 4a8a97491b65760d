"""onnxruntime's MoE operator: what we build is a MoE layer, and it is timed and judged."""

import numpy
import pytest

pytest.importorskip("onnx", reason="onnx is not installed (tools/dev/validate-onnxruntime installs it)")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

from moecast import onnx_reference  # noqa: E402

LAYER = {"hidden": 32, "width": 48, "experts": 6, "top_k": 2, "tokens": 20}


def test_the_operator_computes_a_moe_layer():
    model, router = onnx_reference.model_of(LAYER, numpy.random.default_rng(3))
    weights = {i.name: numpy.array(onnx_reference.numpy_helper.to_array(i)) for i in model.graph.initializer}
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    x = numpy.random.default_rng(4).standard_normal((20, 32), numpy.float32)
    (got,) = session.run(None, {"x": x})
    scores = x @ router
    expected = numpy.zeros_like(x)
    for token in range(20):
        chosen = numpy.argsort(-scores[token])[:2]
        share = numpy.exp(scores[token, chosen] - scores[token].max())
        for expert, weight in zip(chosen, share / share.sum()):
            inner = weights["gate_up"][expert] @ x[token]
            gate, up = inner[0::2], inner[1::2]
            expected[token] += weight * (weights["down"][expert] @ (gate / (1 + numpy.exp(-gate)) * up))
    numpy.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_layers_are_executed_and_judged(predictor):
    result = onnx_reference.validate(predictor.hw, cases=4, taught=3, seed=2)
    assert result["n"] == 4 and result["mape"] > 0
