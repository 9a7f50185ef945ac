"""`dan-ros train`: train DAN by a recipe, stop at any time, go on exactly."""

import shlex
import sys
from pathlib import Path

import click

from dan_ros.cli.common import TRAINING_MODULES, need


@click.command('train')
@click.argument('recipe')
@click.option(
    '--data', type=click.Path(path_type=Path), required=True, help="The data set's folder."
)
@click.option(
    '--out', type=click.Path(path_type=Path), required=True, help='Folder for weights and log.'
)
@click.option('--resume', is_flag=True, help='Go on from the last epoch in --out.')
@click.option(
    '--start',
    type=click.Path(path_type=Path),
    help='Weights to start from: a DAN, or a ResNet-18 of ImageNet or MS-Celeb-1M.',
)
@click.option('--device', help='cpu, cuda or cuda:N; by default a GPU where there is one.')
def command(
    recipe: str, data: Path, out: Path, resume: bool, start: Path | None, device: str | None
) -> None:
    """Train DAN by RECIPE: a YAML file, or ferplus, rafdb, affectnet7, affectnet8 or sfew.

    Every epoch is judged on the validation faces; the best weights are OUT/best.safetensors, which
    `dan-ros evaluate` and `dan-ros convert` take. Stopped or killed, it loses at most the epoch it
    is in: the same command with --resume goes on as if nothing had happened,
    with a warning where the faces in --data are not as many of each class as before.
    """
    if resume and start:
        raise click.UsageError('--resume goes on from --out; --start is for a new training')
    need(*TRAINING_MODULES)
    from dan_ros.train.recipe import find_recipe, load_recipe
    from dan_ros.train.trainer import train

    chosen = load_recipe(find_recipe(recipe))
    try:
        best = train(chosen, data, out, start=start, resume=resume, device=device)
    except KeyboardInterrupt:
        click.echo(f'Stopped; {_how_to_go_on(out)}', err=True)
        sys.exit(130)
    weights = out / 'best.safetensors'
    click.echo(f'best: {best["accuracy"]:.2%} in epoch {best["epoch"]}, {weights}')
    judge = ('dan-ros', 'evaluate', data, weights, '--dataset', chosen.dataset)
    convert = ('dan-ros', 'convert', weights, '--fp16', '-o', out / 'model.onnx')
    click.echo(f'next: {shlex.join(map(str, judge))}\n      {shlex.join(map(str, convert))}')


def _how_to_go_on(out: Path) -> str:
    if (out / 'last.pt').is_file():
        return 'the same command with --resume goes on from the last whole epoch'
    return 'no epoch was finished, nothing is kept'
