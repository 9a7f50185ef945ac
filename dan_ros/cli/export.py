# SPDX-License-Identifier: Apache-2.0
"""`dan-ros export`: write a model file in another precision or with a fixed batch."""

from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np

from dan_ros.cli.common import DATASETS, need, open_faces, print_summary, progress_bar
from dan_ros.datasets.faces import TRAIN, Faces
from dan_ros.model import store
from dan_ros.model.metadata import ModelInfo

CALIBRATION_BATCH = 32
PRECISIONS = ('fp32', 'fp16', 'int8')


@click.command('export')
@click.argument('model', default=store.FLOAT_MODEL)
@click.option(
    '-o', '--output', type=click.Path(path_type=Path), required=True, help='The ONNX file to write.'
)
@click.option(
    '--fp32', 'precision', flag_value='fp32', default=True, help='fp32 weights (default).'
)
@click.option('--fp16', 'precision', flag_value='fp16', help='fp16 weights: half the size.')
@click.option('--int8', 'precision', flag_value='int8', help='Fast on CPUs; needs --calibrate.')
@click.option(
    '--calibrate',
    'data',
    type=click.Path(path_type=Path),
    help='Data set whose training faces define the ranges of int8 activations.',
)
@click.option(
    '--dataset',
    default='auto',
    show_default=True,
    type=click.Choice(DATASETS),
    help='Name of the data set of --calibrate.',
)
@click.option(
    '--faces', default=1024, show_default=True, type=click.IntRange(1), help='Number of faces.'
)
@click.option(
    '--batch', type=click.IntRange(1, 1024), help='Fixed batch size, for tools that need one.'
)
def command(
    model: str,
    output: Path,
    precision: str,
    data: Path | None,
    dataset: str,
    faces: int,
    batch: int | None,
) -> None:
    """Write MODEL, a known model or an ONNX file of this package, to another ONNX file.

    This is useful for runtimes that need full-precision weights or a fixed batch, and for CPUs,
    which run int8 several times faster. Metadata is kept.
    """
    if (precision == 'int8') != (data is not None):
        raise click.UsageError('--int8 and --calibrate DATA must be used together')
    if precision == 'int8' and batch:
        raise click.UsageError('--batch is for float files; an int8 file takes any batch')
    need('torch', 'safetensors', 'onnx')
    from dan_ros.network.export import export_onnx, read_fused

    file = store.read_model(model)
    fused, info = read_fused(file.content, str(file.path))
    output.parent.mkdir(parents=True, exist_ok=True)
    if data is not None:
        from dan_ros.network.quantize import quantize_onnx

        name, training_faces = open_faces(data, dataset, TRAIN, info.labels)
        print_summary(name, TRAIN, training_faces, full_list='', err=False)
        batches = _calibration_batches(training_faces, info, faces)
        quantize_onnx(fused, info, output, batches)
    else:
        export_onnx(fused, info, output, precision == 'fp16', batch)
    shape = f'[{batch or "N"}, {info.input_size[0]}, {info.input_size[1]}, 3]'
    size_mb = output.stat().st_size / 1e6
    click.echo(f'{output}: uint8 faces {shape}, {precision} weights, {size_mb:.1f} MB')


def _calibration_batches(faces: Faces, info: ModelInfo, count: int) -> Iterator[np.ndarray]:
    """Read a fixed random choice of faces: uint8 [B, size, size, 3], RGB."""
    size = info.input_size[0]
    chosen = np.random.default_rng(0).permutation(len(faces))[:count]
    with progress_bar() as bar:
        for start in bar.track(
            range(0, len(chosen), CALIBRATION_BATCH), description='calibrating, batch'
        ):
            yield faces.read_rgb(chosen[start : start + CALIBRATION_BATCH], size)
