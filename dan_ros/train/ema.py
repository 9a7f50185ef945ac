# SPDX-License-Identifier: Apache-2.0
"""Exponential moving average of the weights, which generalizes better than the last weights."""

from functools import partial

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel


class ModelEma(AveragedModel):
    """Exponential moving average of a model's parameters and BatchNorm statistics.

    `module` is the averaged copy, in evaluation mode; `update_parameters(model)` takes one step:
    average = past * average + (1 - past) * model. `past` grows with the number of steps n, so that
    the random initial weights are forgotten: min(decay, (1 + n) / (10 + n)).

    Args:
        model: the model to average; its current state is the first average.
        decay: upper limit of `past`, [0, 1); averages over about 1 / (1 - decay) steps.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, multi_avg_fn=partial(_average, decay), use_buffers=True)
        self.eval().requires_grad_(False)
        self.n_averaged += 1  # the copy of the model is the first average

    @property
    def steps(self) -> int:
        """Number of steps taken."""
        return int(self.n_averaged) - 1

    @steps.setter
    def steps(self, steps: int) -> None:
        self.n_averaged.fill_(steps + 1)


@torch.no_grad()
def _average(
    decay: float, averages: list[torch.Tensor], values: list[torch.Tensor], steps: torch.Tensor
) -> None:
    """Update tensors of one dtype in place; integer tensors (BatchNorm's counters) are copied."""
    past = min(decay, (1 + int(steps)) / (10 + int(steps)))
    weight = 1 - past if averages[0].is_floating_point() else 1
    if weight == 1:
        torch._foreach_copy_(averages, values)
    else:
        torch._foreach_lerp_(averages, values, weight)
