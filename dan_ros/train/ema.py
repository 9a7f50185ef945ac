"""A running average of the weights, which generalises better than the last ones.

Polyak averaging with exponential decay. The BatchNorm statistics that belong to averaged weights
are averaged alike; for another input size they have to be measured anew.
"""

import copy
from collections.abc import Iterable
from typing import Any, Generic, TypeVar

import torch
from torch import nn

Network = TypeVar('Network', bound=nn.Module)


class ModelEma(Generic[Network]):
    """Exponential moving average of a model's parameters and BatchNorm statistics.

    Args:
        model: what to follow; its present state is the start of the average.
        decay: weight of the past at each step, [0, 1); the average reaches back about
            1 / (1 - decay) steps, and less in the first of them.
    """

    def __init__(self, model: Network, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.model = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: Network) -> None:
        """Take one step towards `model`."""
        self.steps += 1
        past = min(self.decay, (1 + self.steps) / (10 + self.steps))
        mine, theirs = self.model.state_dict(), model.state_dict()
        floats = [name for name, tensor in mine.items() if tensor.is_floating_point()]
        torch._foreach_lerp_([mine[n] for n in floats], [theirs[n] for n in floats], 1 - past)
        for name in mine.keys() - set(floats):  # BatchNorm's counters
            mine[name].copy_(theirs[name])

    def state_dict(self) -> dict[str, Any]:
        """Everything `load_state_dict` needs to go on."""
        return {'steps': self.steps, 'model': self.model.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.steps = state['steps']
        self.model.load_state_dict(state['model'])


@torch.no_grad()
def measure_batchnorm(
    model: nn.Module, batches: Iterable[torch.Tensor], precision: torch.autocast
) -> None:
    """Replace the BatchNorm statistics by their mean over `batches`; leaves evaluation mode.

    Args:
        model: changed in place.
        batches: normalised faces, float [B, 3, H, W] each, of the size it will be used at.
        precision: the autocast to run under.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's word for a plain mean over all batches
    model.train()
    for faces in batches:
        with precision:
            model(faces)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()
