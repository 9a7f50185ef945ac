# SPDX-License-Identifier: Apache-2.0
"""`dan-ros convert`: convert a DAN checkpoint to a model file."""

from pathlib import Path
from typing import Any

import click

from dan_ros.cli.common import (
    PATH,
    check_is_other_file,
    model_options,
    need,
    output_option,
    with_probabilities,
)
from dan_ros.errors import count_of
from dan_ros.labels import LABEL_SETS
from dan_ros.model.metadata import DEFAULT_CROP_SCALE, MAX_INPUT_PX, MIN_INPUT_PX


@click.command('convert')
@click.argument('checkpoint', type=PATH)
@click.option(
    '--labels',
    'label_set',
    type=click.Choice(list(LABEL_SETS)),
    help='Class order of the checkpoint.',
)
@output_option
@click.option('--fp16', is_flag=True, help='Store the weights in fp16, which halves the file.')
@click.option(
    '--input-size',
    type=click.IntRange(MIN_INPUT_PX, MAX_INPUT_PX),
    help='Side of the input in pixels; default 224.',
)
@click.option('--mean', nargs=3, type=float, help='RGB mean in 0 .. 1; default: ImageNet.')
@click.option('--std', nargs=3, type=float, help='RGB standard deviation; default: ImageNet.')
@click.option(
    'grey',
    '--gray/--color',
    '--grey/--colour',
    default=None,
    help='Kind of training images; default color.',
)
@click.option(
    '--crop-scale',
    default=DEFAULT_CROP_SCALE,
    show_default=True,
    help="Side of the square crop as a multiple of the face box's longer side.",
)
@click.option('--source', default='', help='Training data, accuracy, license.')
@model_options
def command(
    checkpoint: Path,
    label_set: str | None,
    output: Path,
    fp16: bool,
    temperature: float | None,
    shares: tuple[float, ...],
    strength: float | None,
    **notes: Any,  # the other arguments of fuse_checkpoint
) -> None:
    """Convert CHECKPOINT, an official DAN .pth or a .safetensors file, to an ONNX file.

    Checkpoints of `dan-ros train` need no options. Other files need --labels, and the defaults of
    the other options fit the official checkpoints. The ONNX file contains everything that the node
    needs: set the parameter model.file to its path.
    """
    need('torch', 'safetensors', 'onnx')
    from dan_ros.network.checkpoint import fuse_checkpoint
    from dan_ros.network.export import export_onnx

    check_is_other_file(output, checkpoint)
    labels = LABEL_SETS[label_set] if label_set else None
    fused, info = fuse_checkpoint(checkpoint, labels=labels, **notes)
    info = with_probabilities(info, temperature, shares, strength)
    output.parent.mkdir(parents=True, exist_ok=True)
    export_onnx(fused, info, output, fp16)
    size_mb = output.stat().st_size / 1e6
    classes = count_of(len(info.labels), 'class', 'classes')
    click.echo(f'{output}: {classes}, {info.input_size[0]} px, {size_mb:.1f} MB')
