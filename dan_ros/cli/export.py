"""`dan-ros export`: a model file is written again in another form."""

from pathlib import Path

import click

from dan_ros import model_store
from dan_ros.cli.needs import need


@click.command('export')
@click.argument('model', default=model_store.DEFAULT_MODEL)
@click.option(
    '-o', '--output', type=click.Path(path_type=Path), required=True, help='The ONNX file to write.'
)
@click.option('--fp16/--fp32', default=False, help='Precision of the stored weights; fp32.')
@click.option(
    '--batch', type=click.IntRange(1, 1024), help='Fix the batch, for tools that need it.'
)
def command(model: str, output: Path, fp16: bool, batch: int | None) -> None:
    """Write MODEL, a known name or an ONNX file of this package, to another ONNX file.

    For runtimes that want full-precision weights or a fixed batch. Metadata is kept.
    """
    need('torch', 'safetensors', 'onnx')
    from dan_ros.network.export import export_onnx, read_fused

    file = model_store.read_model(model)
    fused, info = read_fused(file.content, str(file.path))
    output.parent.mkdir(parents=True, exist_ok=True)
    export_onnx(fused, info, output, fp16, batch)
    precision = 'fp16' if fp16 else 'fp32'
    shape = f'[{batch or "N"}, {info.input_size[0]}, {info.input_size[1]}, 3]'
    click.echo(f'{output}: uint8 faces {shape}, {precision} weights')
