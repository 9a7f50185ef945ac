# SPDX-License-Identifier: Apache-2.0
"""Optimizer and learning rate schedule of a recipe."""

import math
from collections.abc import Iterable

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from dan_ros.train.recipe import Recipe

MIN_WARMUP_EPOCHS = 0.01  # progress assumed for the first step of a warm-up, so that its rate > 0


def learning_rate_factor(recipe: Recipe, epoch: float) -> float:
    """Return the learning rate after `epoch` epochs, as a share of the recipe's `learning_rate`.

    `step` multiplies by gamma every `step_epochs`, `exponential` every epoch; both change only
    between epochs, as in the official training. `cosine` falls from 1 to 0 (Loshchilov and Hutter
    2017, https://arxiv.org/abs/1608.03983, one cycle). All start with a linear warm-up.

    Args:
        recipe: defines the schedule.
        epoch: [0, recipe.epochs], may be fractional.

    >>> recipe = Recipe(schedule='step', step_epochs=10, gamma=0.1)
    >>> [learning_rate_factor(recipe, epoch) for epoch in (0, 9.9, 10)]
    [1.0, 1.0, 0.1]
    """
    if epoch < recipe.warmup_epochs:
        return max(epoch, MIN_WARMUP_EPOCHS) / recipe.warmup_epochs
    if recipe.schedule == 'step':
        return recipe.gamma ** (int(epoch) // recipe.step_epochs)
    if recipe.schedule == 'exponential':
        return recipe.gamma ** int(epoch)
    done = (epoch - recipe.warmup_epochs) / (recipe.epochs - recipe.warmup_epochs)
    return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def build_scheduler(optimizer: Optimizer, recipe: Recipe, epoch: int, steps: int) -> LambdaLR:
    """Build the scheduler for one epoch of `steps` steps; it keeps no state between epochs.

    A recipe's `stages` and the data may change when a training run resumes, and both change the
    schedule. So the rate is a function of the progress, not of saved state.
    """
    for group in optimizer.param_groups:
        group['initial_lr'] = recipe.learning_rate

    def factor(step: int) -> float:
        return learning_rate_factor(recipe, step / steps)

    return LambdaLR(optimizer, factor, last_epoch=epoch * steps - 1)


def build_optimizer(recipe: Recipe, modules: Iterable[nn.Module]) -> Optimizer:
    """Build the recipe's optimizer over all parameters of `modules`.

    SGD and Adam decay every parameter, as the official training does. AdamW decays only kernels and
    matrices, not biases and BatchNorm parameters.
    """
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    rate, decay = recipe.learning_rate, recipe.weight_decay
    if recipe.optimizer == 'sgd':
        return SGD(parameters, rate, momentum=recipe.momentum, weight_decay=decay)
    if recipe.optimizer == 'adam':
        return Adam(parameters, rate, weight_decay=decay)
    groups = [
        {'params': [p for p in parameters if p.ndim > 1], 'weight_decay': decay},
        {'params': [p for p in parameters if p.ndim <= 1], 'weight_decay': 0.0},
    ]
    return AdamW(groups, rate, fused=True)
