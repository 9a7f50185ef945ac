# SPDX-License-Identifier: Apache-2.0
"""`dan-ros export`: write a model file in another precision or with a fixed batch."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
from rich.table import Table

from dan_ros.backends import open_backend
from dan_ros.calibrate.trade import MIN_FACES, MIN_NEUTRAL, LabeledLogits, measure_prior
from dan_ros.cli.common import (
    PATH,
    dataset_option,
    model_options,
    need,
    open_faces,
    output_option,
    print_summary,
    print_table,
    progress_bar,
    with_probabilities,
)
from dan_ros.datasets.faces import TRAIN, VALID, Faces
from dan_ros.model import store
from dan_ros.model.metadata import ModelInfo, Strength

CALIBRATION_BATCH = 32
AS_IS = 'as-is'
NO_STRENGTH = (
    f'every strength gains nothing or leaves fewer than {MIN_NEUTRAL:.0%} of the neutral faces '
    f'neutral, or no other class has {MIN_FACES} faces'
)
SHOWN_STRENGTHS = (0.0, 0.3, 0.5, 1.0)


@click.command('export')
@click.argument('model', default=store.FLOAT_MODEL)
@output_option
@click.option(
    '--fp32', 'precision', flag_value='fp32', default=True, help='fp32 weights (default).'
)
@click.option('--fp16', 'precision', flag_value='fp16', help='fp16 weights: half the size.')
@click.option('--int8', 'precision', flag_value='int8', help='Fast on CPUs; needs --calibrate.')
@click.option(
    '--as-is',
    'precision',
    flag_value=AS_IS,
    help='Keep the graph, its opset and the weights as they are.',
)
@click.option(
    '--calibrate',
    'data',
    type=PATH,
    help='Data set whose training faces define the ranges of int8 activations.',
)
@dataset_option('--calibrate or --fit-prior')
@click.option(
    '--faces',
    default=1024,
    show_default=True,
    type=click.IntRange(1),
    help='Number of faces for --calibrate.',
)
@click.option(
    '--batch', type=click.IntRange(1, 1024), help='Fixed batch size, for tools that need one.'
)
@click.option(
    '--fit-prior',
    'prior_data',
    type=PATH,
    help='Measure the prior on the validation faces of this data set, and choose its strength.',
)
@model_options
@click.option('--like', help='Model from which temperature, prior and strength are taken.')
def command(
    model: str,
    output: Path,
    precision: str,
    data: Path | None,
    dataset: str,
    faces: int,
    batch: int | None,
    prior_data: Path | None,
    temperature: float | None,
    shares: tuple[float, ...],
    strength: float | None,
    like: str | None,
) -> None:
    """Write MODEL, a known model or an ONNX file of this package, to another ONNX file.

    This is useful for runtimes that need full-precision weights or a fixed batch, and for CPUs,
    which run int8 several times faster. Metadata is kept, except for the values of --temperature,
    --prior, --fit-prior, --strength and --like.
    """
    if (precision == 'int8') != (data is not None):
        raise click.UsageError('--int8 and --calibrate DATA must be used together')
    if prior_data and shares:
        raise click.UsageError('--fit-prior measures the prior, so leave out --prior')
    if precision in ('int8', AS_IS) and batch:
        raise click.UsageError('--batch is for --fp32 and --fp16')
    need('torch', 'safetensors', 'onnx')
    from dan_ros.model.onnx_file import parse_onnx
    from dan_ros.model.onnx_writer import save_model
    from dan_ros.network.export import export_onnx, read_fused

    file = store.read_model(model)
    where = str(file.path)
    info = ModelInfo.from_onnx(file.content, where)
    fused = None if precision == AS_IS else read_fused(file.content, where)[0]
    if like:
        other = store.read_model(like)
        info = _copy_probabilities(info, ModelInfo.from_onnx(other.content, str(other.path)))
    info = with_probabilities(info, temperature, shares, None)
    if prior_data:
        info = _fit_prior(model, info, prior_data, dataset, strength)
    info = with_probabilities(info, None, (), strength)
    output.parent.mkdir(parents=True, exist_ok=True)
    if fused is None:
        save_model(parse_onnx(file.content, where), info, output)
    elif data is not None:
        need('onnxruntime')
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
    chosen = np.random.default_rng(0).permutation(len(faces))[:count]
    with progress_bar() as bar:
        for start in bar.track(
            range(0, len(chosen), CALIBRATION_BATCH), description='calibrating, batch'
        ):
            yield faces.read_rgb(chosen[start : start + CALIBRATION_BATCH], info.side)


def _copy_probabilities(info: ModelInfo, other: ModelInfo) -> ModelInfo:
    if other.labels != info.labels:
        raise click.UsageError(f'--like: that model has the classes {", ".join(other.labels)}')
    return replace(
        info,
        temperature=other.temperature,
        log_prior=other.log_prior,
        prior_strength=other.prior_strength,
    )


def _fit_prior(
    model: str, info: ModelInfo, data: Path, dataset: str, given: float | None
) -> ModelInfo:
    """Measure the prior that a model learned, choose its strength, and print what it costs.

    `given` is the strength that the user chose; None to choose it.
    """
    name, faces = open_faces(data, dataset, VALID, info.labels)
    print_summary(name, VALID, faces, full_list='', err=False)
    infer = open_backend('auto', model).infer
    scored = LabeledLogits.compute(faces, info.labels, info.side, infer)
    scored = replace(scored, logits=scored.logits / info.temperature)
    log_prior, strength = measure_prior(scored)
    if given is not None:
        strength = (given,) * len(strength)
    shares = ', '.join(
        f'{n} {share:.1%}' for n, share in zip(info.labels, np.exp(log_prior), strict=True)
    )
    click.echo(f'the model learned to expect {shares}')
    table = Table('strength', box=None)
    for column in ('accuracy', 'balanced', 'neutral', 'others', 'false alarms per hour'):
        table.add_column(column, justify='right')
    rows: dict[str, Strength] = {f'{shown:g}': shown for shown in SHOWN_STRENGTHS}
    rows['chosen'] = strength
    for title, shown in rows.items():
        trade = scored.trade(log_prior, shown)
        parts = (trade.accuracy, trade.balanced, trade.neutral, trade.others)
        cells = [f'{part:.1%}' for part in parts]
        table.add_row(title, *cells, f'{trade.false_alarms:.0f}')
    print_table(table)
    chosen = ', '.join(f'{n} {s:g}' for n, s in zip(info.labels, strength, strict=True))
    click.echo(f'chosen: {chosen}')
    if given is None and not any(strength):
        click.echo(f'no prior is subtracted by default: {NO_STRENGTH}')
    return replace(info, log_prior=tuple(log_prior.tolist()), prior_strength=strength)
