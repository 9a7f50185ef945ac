# SPDX-License-Identifier: Apache-2.0
"""The ablation of the DAN paper, on FER+: without each loss, and with one to four heads.

    python3 benchmarks/ablation.py DATA [--epochs 6] [--start WEIGHTS] [--only NAME] [--out FOLDER]

Every variant is trained with the recipe `ferplus`, shortened to `--epochs` epochs of 64 pixels, and
with one seed, so small differences are not significant: the standard error of an accuracy on the
validation faces is 0.6 percentage points.

The script can be stopped and started again: finished variants are kept, and an unfinished one
resumes. It prints a Markdown table for docs/paper.md of the variants that are finished.
"""

import json
from pathlib import Path
from typing import Any

import click

from dan_ros.train.recipe import Recipe, find_recipe, load_recipe
from dan_ros.train.trainer import train

SIDE_PX = 64  # side of the input
# Changes of the recipe per variant.
VARIANTS: dict[str, dict[str, Any]] = {
    'full': {},
    'without affinity loss': {'affinity_weight': 0.0},
    'without partition loss': {'partition_weight': 0.0},
    'without both losses': {'affinity_weight': 0.0, 'partition_weight': 0.0},
    '1 head': {'num_head': 1},
    '2 heads': {'num_head': 2},
    '3 heads': {'num_head': 3},
}


def recipe_of(variant: str, epochs: int, seed: int) -> Recipe:
    """Return the shortened recipe of a variant; 'full' has the loss weights of the paper."""
    base = load_recipe(find_recipe('ferplus'))
    changes = {
        'stages': ((epochs, SIDE_PX),),
        'warmup_epochs': 0.5,
        'precision': 'fp32',  # fp32 gives the same result on every machine
        'affinity_weight': 1.0,
        'partition_weight': 1.0,
        'seed': seed,
        **VARIANTS[variant],
    }
    return Recipe.model_validate({**dict(base), **changes})


def read_log(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of a training log; [] if there is none."""
    path = folder / 'log.jsonl'
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


def table(out: Path, epochs: int, seed: int) -> str:
    """Return a Markdown table with the scores of each finished variant's last epoch, in percent."""
    lines = ['| variant | accuracy | balanced accuracy | cross-entropy |', '|---|---|---|---|']
    for variant in VARIANTS:
        log = read_log(out / folder_of(variant, epochs, seed))
        if len(log) < epochs:
            lines.append(f'| {variant} | not run | | |')
            continue
        last = log[-1]
        lines.append(
            f'| {variant} | {100 * last["accuracy"]:.2f} | {100 * last["balanced_accuracy"]:.2f} | '
            f'{last["valid_cross_entropy"]:.3f} |'
        )
    return '\n'.join(lines)


def folder_of(variant: str, epochs: int, seed: int) -> str:
    """Return the name of the folder for a variant with these epochs and this seed."""
    return f'{variant.replace(" ", "_")}_{epochs}_epochs_seed_{seed}'


@click.command()
@click.argument('data', type=click.Path(path_type=Path))
@click.option('--epochs', default=6, show_default=True, type=click.IntRange(1))
@click.option('--start', type=click.Path(path_type=Path), help='A ResNet-18 to start from.')
@click.option('--only', multiple=True, type=click.Choice(list(VARIANTS)), help='Train only these.')
@click.option('--seed', default=0, show_default=True, type=click.IntRange(0))
@click.option('--out', type=click.Path(path_type=Path), default='runs/ablation', show_default=True)
def main(
    data: Path, epochs: int, start: Path | None, only: tuple[str, ...], seed: int, out: Path
) -> None:
    """Train the variants on the FER+ faces in DATA, and print a table."""
    for variant in only or VARIANTS:
        folder = out / folder_of(variant, epochs, seed)
        if len(read_log(folder)) >= epochs:
            click.echo(f'{variant}: finished before', err=True)
            continue
        resume = (folder / 'last.pt').is_file()
        click.echo(f'{variant}: {"resumes" if resume else "starts"}', err=True)
        recipe = recipe_of(variant, epochs, seed)
        train(recipe, data, folder, start=None if resume else start, resume=resume)
    click.echo(table(out, epochs, seed))


if __name__ == '__main__':
    main()
