# SPDX-License-Identifier: Apache-2.0
"""A recipe for training runs of seconds, and a network for runs of milliseconds."""

import sys
from pathlib import Path

import torch
from rich.console import Console
from torch import nn

from dan_ros.train import trainer
from dan_ros.train.recipe import Augmentation, Recipe

torch.set_num_threads(1)  # test processes that run in parallel share the cores

RECIPE = Recipe(
    dataset='ferplus',
    stages=((2, 32), (1, 40)),
    num_head=2,
    grey=True,
    mean=(0.5,) * 3,
    std=(0.25,) * 3,
    batch_size=6,
    optimizer='adamw',
    learning_rate=1e-3,
    schedule='cosine',
    warmup_epochs=0.5,
    clip_norm=1.0,
    average_decay=0.9,
    precision='bf16',
    workers=0,
    augmentation=Augmentation(affine_chance=1.0, noise_chance=0.5, mixup_chance=0.5),
)
SHORT = {'stages': ((1, 32),), 'average_decay': 0.0}  # changes of `RECIPE` for a single epoch


class TinyDan(nn.Module):
    """A network with DAN's interface and 0.1 M parameters."""

    def __init__(self, num_class: int, num_head: int) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 512, 8, 8, bias=False), nn.BatchNorm2d(512))
        self.heads = nn.Parameter(torch.randn(num_head, 512))
        self.fc = nn.Linear(512, num_class)
        self.bn = nn.BatchNorm1d(num_class)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        features = self.features(x).relu()
        heads = (features.mean(dim=(2, 3))[:, None] * self.heads).log_softmax(dim=1)
        return self.bn(self.fc(heads.sum(dim=1))), features, heads


def run(folder: Path, name: str, recipe: Recipe = RECIPE, **options: object) -> dict:
    """Train on the data in `folder`, with output in its subfolder `name`."""
    console = Console(file=sys.stderr, width=200)
    return trainer.train(recipe, folder, folder / name, device='cpu', console=console, **options)


def change(recipe: Recipe = RECIPE, **settings: object) -> Recipe:
    """A copy of a recipe with other settings."""
    return Recipe.model_validate({**dict(recipe), **settings})


def assert_same(one: object, two: object, where: str = '') -> None:
    """Check that two checkpoints are bitwise equal, except their times."""
    assert type(one) is type(two), where
    if isinstance(one, dict):
        assert one.keys() == two.keys(), where
        for key in one.keys() - {'seconds', 'faces_per_s'}:
            assert_same(one[key], two[key], f'{where}/{key}')
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(two), where
        for index, (a, b) in enumerate(zip(one, two, strict=True)):
            assert_same(a, b, f'{where}/{index}')
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, two), where
    else:
        assert one == two, where
