# SPDX-License-Identifier: Apache-2.0
"""The ablation of the DAN paper, on FER+: without each loss, and with one to four heads.

    python3 benchmarks/ablation.py DATA [--epochs 6] [--start WEIGHTS] [--only NAME] [--out FOLDER]

Every variant is trained with the recipe `ferplus`, shortened to `--epochs` epochs of 64 pixels, and
with one seed, so small differences are not significant: the standard error of an accuracy on the
validation faces is 0.6 percentage points.

The paper's losses and heads act on the feature map. With `--frozen-stages 3`, only ResNet's last
stage, which computes that map, and the heads are trained, from random weights; the other stages
keep the weights of `--start`, a trained DAN. An epoch then takes about half the time.

The script can be stopped and started again: finished variants are kept, and an unfinished one
resumes. It prints a Markdown table for docs/paper.md of the variants that are finished.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch

from dan_ros.network.checkpoint import read_state
from dan_ros.network.dan import DAN, frozen_layers
from dan_ros.train.checkpoints import save_weights
from dan_ros.train.recipe import Recipe, find_recipe, load_recipe
from dan_ros.train.trainer import train

SIDE_PX = 64  # side of the input
# Changes of the recipe per variant.
VARIANTS: dict[str, dict[str, Any]] = {
    'full': {},
    'without affinity loss': {'affinity_weight': 0.0},
    'without partition loss': {'partition_weight': 0.0},
    '1 head': {'num_head': 1},
    '2 heads': {'num_head': 2},
    '3 heads': {'num_head': 3},
}


@dataclass(frozen=True)
class Setup:
    """What all variants of one table share."""

    epochs: int
    seed: int = 0
    frozen_stages: int = 0

    def folder_of(self, variant: str) -> str:
        """Return the name of the folder of a variant."""
        frozen = f'_frozen_{self.frozen_stages}' if self.frozen_stages else ''
        return f'{variant.replace(" ", "_")}_{self.epochs}_epochs_seed_{self.seed}{frozen}'

    def recipe_of(self, variant: str) -> Recipe:
        """Return the shortened recipe of a variant; 'full' has the loss weights of the paper."""
        base = load_recipe(find_recipe('ferplus'))
        changes = {
            'stages': ((self.epochs, SIDE_PX),),
            'warmup_epochs': 0.5,
            'precision': 'fp32',  # fp32 gives the same result on every machine
            'affinity_weight': 1.0,
            'partition_weight': 1.0,
            'seed': self.seed,
            'frozen_stages': self.frozen_stages,
            **VARIANTS[variant],
        }
        return Recipe.model_validate({**dict(base), **changes})


def write_start(recipe: Recipe, trained: Path, path: Path) -> None:
    """Write weights of a DAN: those of `trained` in the frozen stages, random ones elsewhere."""
    torch.manual_seed(recipe.seed)
    dan = DAN(num_class=8, num_head=recipe.num_head)
    state = read_state(trained)
    for index in range(frozen_layers(recipe.frozen_stages)):
        prefix = f'features.{index}.'
        weights = {n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)}
        dan.features[index].load_state_dict(weights)
    save_weights(path, dan.state_dict(), {})


def read_log(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of a training log; [] if there is none."""
    path = folder / 'log.jsonl'
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


def table(out: Path, setup: Setup) -> str:
    """Return a Markdown table with the scores of each finished variant's last epoch, in percent."""
    lines = ['| variant | accuracy | balanced accuracy | cross-entropy |', '|---|---|---|---|']
    for variant in VARIANTS:
        log = read_log(out / setup.folder_of(variant))
        if len(log) < setup.epochs:
            lines.append(f'| {variant} | not run | | |')
            continue
        last = log[-1]
        lines.append(
            f'| {variant} | {100 * last["accuracy"]:.2f} | {100 * last["balanced_accuracy"]:.2f} | '
            f'{last["valid_cross_entropy"]:.3f} |'
        )
    return '\n'.join(lines)


@click.command()
@click.argument('data', type=click.Path(path_type=Path))
@click.option('--epochs', default=6, show_default=True, type=click.IntRange(1))
@click.option('--start', type=click.Path(path_type=Path), help='A ResNet-18 or DAN to start from.')
@click.option(
    '--frozen-stages',
    default=0,
    show_default=True,
    type=click.IntRange(0, 3),
    help='Stages of ResNet that keep the weights of --start; all others begin random.',
)
@click.option('--only', multiple=True, type=click.Choice(list(VARIANTS)), help='Train only these.')
@click.option('--seed', default=0, show_default=True, type=click.IntRange(0))
@click.option('--out', type=click.Path(path_type=Path), default='runs/ablation', show_default=True)
def main(
    data: Path,
    epochs: int,
    start: Path | None,
    frozen_stages: int,
    only: tuple[str, ...],
    seed: int,
    out: Path,
) -> None:
    """Train the variants on the FER+ faces in DATA, and print a table."""
    if frozen_stages and start is None:
        raise click.UsageError('--frozen-stages needs the weights of a DAN: give --start')
    setup = Setup(epochs, seed, frozen_stages)
    for variant in only or VARIANTS:
        folder = out / setup.folder_of(variant)
        if len(read_log(folder)) >= epochs:
            click.echo(f'{variant}: finished before', err=True)
            continue
        resume = (folder / 'last.pt').is_file()
        click.echo(f'{variant}: {"resumes" if resume else "starts"}', err=True)
        recipe = setup.recipe_of(variant)
        begin = None if resume else start
        if begin and frozen_stages:
            folder.mkdir(parents=True, exist_ok=True)
            begin = folder / 'start.safetensors'
            write_start(recipe, start, begin)
        train(recipe, data, folder, start=begin, resume=resume)
    click.echo(table(out, setup))


if __name__ == '__main__':
    main()
