"""One epoch of training, and one look at how good the network is."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from dan_ros.datasets.faces import Faces
from dan_ros.errors import TrainingError
from dan_ros.network.dan import DAN
from dan_ros.train.data_loader import plain_batches, steps_per_epoch, training_batches
from dan_ros.train.losses import AffinityLoss, PartitionLoss
from dan_ros.train.optimizer import learning_rate
from dan_ros.train.recipe import Recipe

AUTOCAST_TYPES = {'bf16': torch.bfloat16, 'fp16': torch.float16}


class Objective(nn.Module):
    """What training makes small: cross-entropy, plus the paper's two losses.

    Where faces are mixed, a face counts for the affinity loss as the class it has most of.
    """

    def __init__(self, recipe: Recipe, num_class: int) -> None:
        super().__init__()
        self.recipe = recipe
        self.affinity = AffinityLoss(num_class)
        self.partition = PartitionLoss()

    def forward(
        self, outputs: tuple[torch.Tensor, torch.Tensor, torch.Tensor], targets: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Give `loss` and its unweighted parts, scalars; `targets` is float [B, C]."""
        logits, features, heads = (tensor.float() for tensor in outputs)
        smoothing = self.recipe.label_smoothing
        entropy = functional.cross_entropy(logits, targets, label_smoothing=smoothing)
        parts = {'loss': entropy, 'cross_entropy': entropy}
        if self.recipe.affinity_weight:
            parts['affinity'] = self.affinity(features, targets.argmax(dim=1))
            parts['loss'] = parts['loss'] + self.recipe.affinity_weight * parts['affinity']
        if self.recipe.partition_weight:
            parts['partition'] = self.partition(heads)
            parts['loss'] = parts['loss'] + self.recipe.partition_weight * parts['partition']
        return parts


@dataclass
class Learner:
    """All that changes while training.

    Attributes:
        dan, objective: modules with parameters.
        optimizer: over both.
        scaler: keeps fp16 gradients in range; does nothing in other precisions.
        after_step: called after every step, with the network.
    """

    dan: DAN
    objective: Objective
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    after_step: list[Callable[[DAN], None]] = field(default_factory=list)


def train_epoch(
    learner: Learner,
    faces: Faces,
    recipe: Recipe,
    epoch: int,
    *,
    device: torch.device,
    on_step: Callable[[int, int], None] = lambda step, steps: None,
) -> dict[str, float]:
    """Train on every face once.

    Args:
        learner: changed in place.
        faces: to train on.
        recipe: how.
        epoch: number of the epoch, from 0.
        device: where the learner's modules are.
        on_step: called after each step with its number from 1 on, and how many there are.

    Returns:
        Mean of the loss and its parts, and `train_accuracy`, [0, 1], against the mixed targets.

    Raises:
        TrainingError: the loss is no longer a number.
    """
    steps = steps_per_epoch(faces, recipe)
    sums: dict[str, float] = {}
    learner.dan.train()
    for step, (x, targets) in enumerate(training_batches(faces, recipe, epoch, device)):
        for group in learner.optimizer.param_groups:
            group['lr'] = learning_rate(recipe, epoch + step / steps)
        parts = _train_step(learner, x, targets, recipe)
        if not math.isfinite(parts['loss']):
            raise TrainingError(
                f'the loss became {parts["loss"]} in epoch {epoch + 1}, step {step + 1}; lower '
                'learning_rate, set clip_norm to 1, or use precision fp32'
            )
        for name, value in parts.items():
            sums[name] = sums.get(name, 0.0) + value
        for call in learner.after_step:
            call(learner.dan)
        on_step(step + 1, steps)
    return {name: value / steps for name, value in sums.items()}


def _train_step(
    learner: Learner, x: torch.Tensor, targets: torch.Tensor, recipe: Recipe
) -> dict[str, float]:
    with autocast(recipe, x.device):
        outputs = learner.dan(x)
    parts = learner.objective(outputs, targets)
    learner.optimizer.zero_grad(set_to_none=True)
    learner.scaler.scale(parts['loss']).backward()
    if recipe.clip_norm:
        learner.scaler.unscale_(learner.optimizer)
        nn.utils.clip_grad_norm_(learner.dan.parameters(), recipe.clip_norm)
    learner.scaler.step(learner.optimizer)
    learner.scaler.update()
    hits = outputs[0].argmax(dim=1) == targets.argmax(dim=1)  # [B]
    values = {name: value.item() for name, value in parts.items()}
    return {**values, 'train_accuracy': hits.float().mean().item()}


@torch.inference_mode()
def predict(dan: DAN, faces: Faces, recipe: Recipe, device: torch.device) -> np.ndarray:
    """Logits of all faces in order, float32 [N, C]; `dan` has to be in evaluation mode."""
    logits = []
    for x in plain_batches(faces, recipe, device):
        with autocast(recipe, device):
            logits.append(dan(x)[0].float().cpu().numpy())
    return np.concatenate(logits)


def judge(logits: np.ndarray, faces: Faces) -> dict[str, object]:
    """How good logits [N, C] are: accuracy, balanced accuracy, recall by class, cross-entropy.

    Raises:
        TrainingError: a logit is not a number.
    """
    if not np.isfinite(logits).all():
        raise TrainingError('the network gives logits that are no numbers; lower learning_rate')
    hits = logits.argmax(axis=1) == faces.classes
    recall = {
        label: round(float(hits[faces.classes == index].mean()), 4)
        for index, label in enumerate(faces.labels)
        if (faces.classes == index).any()
    }
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_softmax = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return {
        'accuracy': float(hits.mean()),
        'balanced_accuracy': float(np.mean(list(recall.values()))),
        'recall': recall,
        'valid_cross_entropy': float(-(faces.targets * log_softmax).sum(axis=1).mean()),
    }


def autocast(recipe: Recipe, device: torch.device) -> torch.autocast:
    """The recipe's mixed precision, as a context."""
    dtype = AUTOCAST_TYPES.get(recipe.precision)
    return torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None)
