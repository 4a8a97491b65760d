"""ExpectedLatency of tensors. The only file of it that needs torch."""

from __future__ import annotations

import torch

from moecast.expectation import ExpectedLatency


def expected_latency(probabilities: torch.Tensor, expectation: ExpectedLatency) -> torch.Tensor:
    """Seconds as a tensor that can be differentiated, by torch.func too; at least float32.

    `probabilities`: of the shape of the expectation's table, any floating format. Raises InputError as the expectation
    does; inside of torch.func's transforms, which show no numbers, the shape alone is checked.
    """
    expectation.check_shape(probabilities.shape)
    precise = probabilities.to(torch.float64)
    try:
        values = precise.detach().cpu().numpy()
    except RuntimeError:  # inside of a transform
        values = None
    if values is not None:
        expectation.checked(values)
    table = torch.as_tensor(expectation.table, device=probabilities.device)
    of_layers = (precise.reshape(table.shape) * table).sum(1)
    seconds = torch.cumsum(of_layers, 0)[-1] + expectation.fixed_s
    return seconds.to(torch.promote_types(probabilities.dtype, torch.float32))
