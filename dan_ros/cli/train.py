# SPDX-License-Identifier: Apache-2.0
"""`dan-ros train`: train DAN with a recipe."""

import json
import shlex
import sys
from pathlib import Path

import click

from dan_ros.cli.common import PATH, TRAINING_MODULES, need
from dan_ros.storage.atomic import atomic_write_bytes


@click.command('train')
@click.argument('recipe')
@click.option('--data', type=PATH, required=True, help="The data set's folder.")
@click.option('--out', type=PATH, required=True, help='Folder for weights and log.')
@click.option('--resume', is_flag=True, help='Continue the training run in --out.')
@click.option(
    '--start',
    type=PATH,
    help='Checkpoint to start from: a DAN, or a ResNet-18 of ImageNet or MS-Celeb-1M.',
)
@click.option('--device', help='cpu, cuda or cuda:N; the default is a GPU if there is one.')
def command(
    recipe: str, data: Path, out: Path, resume: bool, start: Path | None, device: str | None
) -> None:
    """Train DAN with RECIPE: a YAML file, or the name of a recipe listed in docs/models.md.

    Each epoch is validated. The best weights are saved as OUT/best.safetensors, for `dan-ros
    evaluate` and `dan-ros convert`. OUT/training.png shows accuracy and loss by epoch.

    If the training is stopped or killed, only the current epoch is lost. The same command with
    --resume continues it; the result is the same as without an interruption. It warns if the number
    of faces per class has changed.
    """
    if resume and start:
        raise click.UsageError(
            '--resume continues the training run in --out; --start is for a new one'
        )
    need(*TRAINING_MODULES, 'matplotlib')
    from dan_ros.train.recipe import find_recipe, load_recipe
    from dan_ros.train.trainer import train

    chosen = load_recipe(find_recipe(recipe))
    try:
        best = train(chosen, data, out, start=start, resume=resume, device=device)
    except KeyboardInterrupt:
        click.echo(f'Stopped; {_how_to_resume(out)}', err=True)
        sys.exit(130)
    _draw(out, f'{recipe}, best {best["accuracy"]:.2%} in epoch {best["epoch"]}')
    weights = out / 'best.safetensors'
    click.echo(f'best: {best["accuracy"]:.2%} in epoch {best["epoch"]}, {weights}')
    evaluate = ('dan-ros', 'evaluate', data, weights, '--dataset', chosen.dataset)
    convert = ('dan-ros', 'convert', weights, '--fp16', '-o', out / 'model.onnx')
    click.echo(f'next: {shlex.join(map(str, evaluate))}\n      {shlex.join(map(str, convert))}')


def _draw(out: Path, title: str) -> None:
    from dan_ros.plots.style import encode
    from dan_ros.plots.training import draw_training

    log = (out / 'log.jsonl').read_text(encoding='utf-8')
    history = [json.loads(line) for line in log.splitlines()]
    atomic_write_bytes(out / 'training.png', encode(draw_training(history, title)))


def _how_to_resume(out: Path) -> str:
    if (out / 'last.pt').is_file():
        return 'the same command with --resume continues after the last complete epoch'
    return 'no epoch was completed, so nothing is saved'
