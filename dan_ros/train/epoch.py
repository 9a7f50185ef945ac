# SPDX-License-Identifier: Apache-2.0
"""One epoch of training, and the validation after it."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn import functional

from dan_ros.datasets.faces import Faces
from dan_ros.errors import TrainingError
from dan_ros.evaluate.metrics import measure
from dan_ros.network.dan import DAN
from dan_ros.train.data_loader import plain_batches, steps_per_epoch, training_batches
from dan_ros.train.losses import AffinityLoss, PartitionLoss
from dan_ros.train.optimizer import build_scheduler
from dan_ros.train.recipe import Recipe

AUTOCAST_TYPES = {'bf16': torch.bfloat16, 'fp16': torch.float16}


class Objective(nn.Module):
    """The training loss: cross-entropy plus the paper's two losses."""

    def __init__(self, recipe: Recipe, num_class: int) -> None:
        super().__init__()
        self.recipe = recipe
        self.affinity = AffinityLoss(num_class)
        self.partition = PartitionLoss()

    def forward(
        self,
        outputs: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
        targets: torch.Tensor,
        classes: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        """Compute `loss` and its unweighted parts, all scalars.

        Args:
            outputs: outputs of `DAN`.
            targets: float [B, C], of the cross-entropy.
            classes: int64 [B], of the affinity loss.
        """
        logits, features, heads = (tensor.float() for tensor in outputs)
        smoothing = self.recipe.label_smoothing
        entropy = functional.cross_entropy(logits, targets, label_smoothing=smoothing)
        parts = {'loss': entropy, 'cross_entropy': entropy}
        if self.recipe.affinity_weight:
            parts['affinity'] = self.affinity(features, classes)
            parts['loss'] = parts['loss'] + self.recipe.affinity_weight * parts['affinity']
        if self.recipe.partition_weight:
            parts['partition'] = self.partition(heads)
            parts['loss'] = parts['loss'] + self.recipe.partition_weight * parts['partition']
        return parts


@dataclass
class Learner:
    """Everything that changes during training."""

    dan: DAN
    objective: Objective  # also has parameters, the centers of the classes
    optimizer: torch.optim.Optimizer  # optimizer of both
    scaler: torch.amp.GradScaler  # keeps fp16 gradients in range; does nothing in other precisions
    # Functions called with the network after every step.
    after_step: list[Callable[[DAN], None]] = field(default_factory=list)


def train_epoch(
    learner: Learner,
    faces: Faces,
    recipe: Recipe,
    epoch: int,
    *,
    device: torch.device,
    on_progress: Callable[[int, int], None] = lambda step, steps: None,
) -> dict[str, float]:
    """Train on every face once.

    Args:
        learner: changed in place; its modules are on `device`.
        faces, recipe, epoch, device: see `training_batches`.
        on_progress: called after each step with its number, from 1, and the number of steps.

    Returns:
        Means over the epoch: the loss, its parts, and `train_accuracy`, [0, 1], against the mixed
        targets; and the last step's `learning_rate`.

    Raises:
        TrainingError: the loss is not finite.
    """
    steps = steps_per_epoch(faces, recipe)
    scheduler = build_scheduler(learner.optimizer, recipe, epoch, steps)
    sums: dict[str, float] = {}
    learner.dan.train()
    if recipe.frozen_stages:
        learner.dan.freeze(recipe.frozen_stages)
    for step, batch in enumerate(training_batches(faces, recipe, epoch, device), 1):
        rate = float(scheduler.get_last_lr()[0])
        parts = _train_step(learner, *batch, recipe)
        if not math.isfinite(parts['loss']):
            raise TrainingError(
                f'the loss became {parts["loss"]} in epoch {epoch + 1}, step {step}; lower '
                'learning_rate, set clip_norm to 1, or use precision fp32'
            )
        for name, value in parts.items():
            sums[name] = sums.get(name, 0.0) + value
        for call in learner.after_step:
            call(learner.dan)
        scheduler.step()
        on_progress(step, steps)
    return {'learning_rate': rate, **{name: value / steps for name, value in sums.items()}}


def _train_step(
    learner: Learner, x: torch.Tensor, targets: torch.Tensor, classes: torch.Tensor, recipe: Recipe
) -> dict[str, float]:
    with autocast(recipe, x.device):
        outputs = learner.dan(x)
    parts = learner.objective(outputs, targets, classes)
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
def predict_logits(
    dan: nn.Module, faces: Faces, recipe: Recipe, device: torch.device
) -> torch.Tensor:
    """Compute the logits of all faces: float32 [N, C] on the CPU; `dan` is in evaluation mode."""
    logits = []
    for x in plain_batches(faces, recipe, device):
        with autocast(recipe, device):
            logits.append(dan(x)[0].float().cpu())
    return torch.cat(logits)


def validate(logits: torch.Tensor, faces: Faces) -> dict[str, object]:
    """Compute accuracy, balanced accuracy, recall per class and cross-entropy of logits [N, C].

    Raises:
        TrainingError: a logit is not finite.
    """
    if not logits.isfinite().all():
        raise TrainingError('the network computes logits that are not finite; lower learning_rate')
    logits = logits.double()
    scores = measure(logits.softmax(dim=1).numpy(), faces.classes, faces.labels)
    recall = zip(faces.labels, scores.recall, scores.faces, strict=True)
    entropy = functional.cross_entropy(logits, torch.from_numpy(faces.targets).double())
    return {
        'accuracy': scores.accuracy,
        'balanced_accuracy': scores.balanced_accuracy,
        'recall': {label: round(float(value), 4) for label, value, count in recall if count},
        'valid_cross_entropy': entropy.item(),
    }


def autocast(recipe: Recipe, device: torch.device) -> torch.autocast:
    """Return the context manager of the recipe's mixed precision."""
    dtype = AUTOCAST_TYPES.get(recipe.precision)
    return torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None)
