"""ExpectedLatency as a torch.autograd.Function. The only file that needs torch."""

import torch


class _Expected(torch.autograd.Function):
    @staticmethod
    def forward(ctx, probabilities, expectation):
        values = probabilities.detach().cpu().numpy()
        ctx.save_for_backward(
            torch.as_tensor(
                expectation.gradient(values), dtype=probabilities.dtype, device=probabilities.device
            ).reshape(probabilities.shape)
        )
        return probabilities.new_tensor(expectation(values))

    @staticmethod
    def backward(ctx, upstream):
        (gradient,) = ctx.saved_tensors
        return upstream * gradient, None


def expected_latency(probabilities, expectation):
    """Seconds as a tensor that can be differentiated. `expectation`: a moecast.ExpectedLatency."""
    return _Expected.apply(probabilities, expectation)
