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


def test_one_hot_of_many_layers_is_the_sum_layer_after_layer_A10(predictor):
    options = [moecast.Architecture.moe_layer(256, w, e, 2) for w in (256, 512, 768) for e in (4, 8)]
    latencies = [predictor.predict(a, tokens=16).latency_s for a in options]
    expected = moecast.ExpectedLatency.of_layers(predictor, [options] * 12, tokens=16)
    for chosen in numpy.random.default_rng(1).integers(0, 6, (100, 12)):
        seconds = 0.0
        for choice in chosen:
            seconds += latencies[choice]
        assert expected(numpy.eye(6)[chosen]) == seconds


def test_choices_are_asked_for_a_request_too(predictor):
    model = moecast.load_space("llm-moe").architecture(moecast.load_space("llm-moe").random(1, 1)[0])
    request = moecast.Request(prompt=8, target=4)
    expected = moecast.ExpectedLatency.of_layers(predictor, [[model]], request)
    assert expected([1.0]) == predictor.predict(model, request).latency_s


@pytest.mark.parametrize("p", [[0.5, float("nan")], [1.5, -0.5], [1, 0, 0], [0.5, 0.5 + 0j], ["a", "b"], None, 1.0])
def test_bad_probabilities(p):
    with pytest.raises(moecast.InputError):
        moecast.ExpectedLatency([1.0, 2.0])(p)


def test_shapes_are_not_guessed():
    expected = moecast.ExpectedLatency(numpy.ones((2, 3)))
    for shape in ((3, 2), (6,), (1, 6), (2, 3, 1)):
        for asked in (expected, expected.gradient, lambda p: moecast.expected_latency(p, numpy.ones((2, 3)))):
            with pytest.raises(moecast.InputError, match="shape"):
                asked(numpy.full(shape, 0.5))
    assert moecast.expected_latency([0.5, 0.5], [1.0, 3.0])[0] == 2.0


@pytest.mark.parametrize("fixed", [float("nan"), -1.0, float("inf"), "1", [1.0]])
def test_bad_fixed_parts(fixed):
    with pytest.raises(moecast.InputError, match="fixed_s"):
        moecast.ExpectedLatency([1.0, 2.0], fixed_s=fixed)


def test_torch_differentiates_it_A10():
    torch = pytest.importorskip("torch")
    from moecast.torch_expectation import expected_latency

    logits = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    expected = moecast.ExpectedLatency([[1.0, 2.0, 4.0], [3.0, 3.0, 9.0]])
    seconds = expected_latency(torch.softmax(logits, 1), expected)
    seconds.backward()
    assert seconds.item() == pytest.approx(7 / 3 + 5)
    assert torch.autograd.gradcheck(lambda x: expected_latency(torch.softmax(x, 1), expected), (logits,))
    with pytest.raises(moecast.InputError, match="shape"):
        expected_latency(torch.zeros(3, 2), expected)
    with pytest.raises(moecast.InputError, match="negative"):
        expected_latency(-torch.ones(2, 3), expected)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_torch_takes_every_format(dtype):
    torch = pytest.importorskip("torch")
    from moecast.torch_expectation import expected_latency

    p = torch.tensor([0.25, 0.75], dtype=getattr(torch, dtype), requires_grad=True)
    seconds = expected_latency(p, moecast.ExpectedLatency([1.0, 2.0]))
    seconds.backward()
    assert seconds.item() == 1.75 and seconds.dtype == torch.float32
    assert p.grad.tolist() == [1.0, 2.0] and p.grad.dtype == p.dtype


def test_torch_transforms_it():
    torch = pytest.importorskip("torch", minversion="2")
    from moecast.torch_expectation import expected_latency

    expected = moecast.ExpectedLatency([[1.0, 2.0], [3.0, 5.0]])

    def seconds(p):
        return expected_latency(p, expected)

    one = torch.full((2, 2), 0.5)
    assert torch.equal(torch.func.grad(seconds)(one), torch.tensor([[1.0, 2.0], [3.0, 5.0]]))
    assert torch.func.vmap(seconds)(torch.stack([one, 2 * one])).tolist() == [5.5, 11.0]
    assert torch.func.vmap(torch.func.grad(seconds))(torch.stack([one, one])).shape == (2, 2, 2)
