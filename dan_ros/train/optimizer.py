"""The optimizer of a recipe, and its learning rate at any moment, without hidden state."""

import math
from collections.abc import Iterable

import torch
from torch import nn

from dan_ros.train.recipe import Recipe


def learning_rate(recipe: Recipe, epoch: float) -> float:
    """Learning rate after `epoch` epochs, [0, recipe.epochs], fractions included.

    `step`: times gamma every `step_epochs`. `exponential`: times gamma every epoch. Both change
    between epochs only, as in the official training. `cosine`: from the peak to zero (Loshchilov
    and Hutter 2017, https://arxiv.org/abs/1608.03983, one cycle). All begin with a linear warm-up.
    """
    if epoch < recipe.warmup_epochs:
        return recipe.learning_rate * max(epoch, 0.01) / recipe.warmup_epochs
    if recipe.schedule == 'step':
        return recipe.learning_rate * recipe.gamma ** (int(epoch) // recipe.step_epochs)
    if recipe.schedule == 'exponential':
        return recipe.learning_rate * recipe.gamma ** int(epoch)
    done = (epoch - recipe.warmup_epochs) / (recipe.epochs - recipe.warmup_epochs)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def build_optimizer(recipe: Recipe, modules: Iterable[nn.Module]) -> torch.optim.Optimizer:
    """The recipe's optimizer over all parameters of `modules`.

    SGD and Adam decay every parameter, as the official training does; AdamW only kernels and
    matrices, since biases and BatchNorm's scales have nothing to gain from it.
    """
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    rate, decay = recipe.learning_rate, recipe.weight_decay
    if recipe.optimizer == 'sgd':
        return torch.optim.SGD(parameters, rate, momentum=recipe.momentum, weight_decay=decay)
    if recipe.optimizer == 'adam':
        return torch.optim.Adam(parameters, rate, weight_decay=decay)
    groups = [
        {'params': [p for p in parameters if p.ndim > 1], 'weight_decay': decay},
        {'params': [p for p in parameters if p.ndim <= 1], 'weight_decay': 0.0},
    ]
    return torch.optim.AdamW(groups, rate, fused=True)
