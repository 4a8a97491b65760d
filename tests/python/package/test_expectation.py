"""Differentiable expectation of latency (A10)."""

import moecast
import numpy
import pytest


def test_gradient_equals_finite_differences_A10(predictor):
    choices = [[moecast.Architecture.moe_layer(256, w, e, 2) for e in (4, 8) for w in (256, 512)] for _ in range(3)]
    expected = moecast.ExpectedLatency.of_layers(predictor, choices, tokens=32)
    p = numpy.random.default_rng(1).dirichlet(numpy.ones(4), 3)
    gradient = expected.gradient(p)
    for i in numpy.ndindex(p.shape):
        up = p.copy()
        up[i] += 1e-4
        assert (expected(up) - expected(p)) / 1e-4 == pytest.approx(gradient[i], rel=1e-4)


def test_one_hot_gives_the_discrete_latency_exactly_A10(predictor):
    options = [moecast.Architecture.moe_layer(256, 512, e, 2) for e in (4, 8, 16)]
    expected = moecast.ExpectedLatency.of_layers(predictor, [options], tokens=32)
    for i, architecture in enumerate(options):
        assert expected(numpy.eye(3)[i]) == predictor.predict(architecture, tokens=32).latency_s
    value, gradient = moecast.expected_latency([0, 1, 0], [1.0, 2.0, 3.0])
    assert value == 2.0 and list(gradient) == [1, 2, 3]


@pytest.mark.parametrize("p", [[0.5, float("nan")], [1.5, -0.5], [1, 0, 0]])
def test_bad_probabilities(p):
    with pytest.raises(moecast.InputError):
        moecast.ExpectedLatency([1.0, 2.0])(p)


def test_torch_differentiates_it_A10():
    torch = pytest.importorskip("torch")
    from moecast.torch_expectation import expected_latency

    logits = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    expected = moecast.ExpectedLatency([[1.0, 2.0, 4.0], [3.0, 3.0, 9.0]])
    seconds = expected_latency(torch.softmax(logits, 1), expected)
    seconds.backward()
    assert seconds.item() == pytest.approx(7 / 3 + 5)
    assert torch.autograd.gradcheck(lambda x: expected_latency(torch.softmax(x, 1), expected), (logits,))
