"""`dan-ros convert`: a DAN checkpoint becomes a model file."""

from pathlib import Path

import click

from dan_ros.cli.common import need
from dan_ros.labels import LABEL_SETS
from dan_ros.model.metadata import DEFAULT_CROP_SCALE, MAX_INPUT_PX, MIN_INPUT_PX


@click.command('convert')
@click.argument('checkpoint', type=click.Path(path_type=Path))
@click.option(
    '--labels',
    'label_set',
    type=click.Choice(list(LABEL_SETS)),
    help='Order of the classes the checkpoint was trained with.',
)
@click.option(
    '-o', '--output', type=click.Path(path_type=Path), required=True, help='The ONNX file to write.'
)
@click.option('--fp16', is_flag=True, help='Store the weights in half precision: half the size.')
@click.option(
    '--input-size',
    type=click.IntRange(MIN_INPUT_PX, MAX_INPUT_PX),
    help='Side of a face, pixels; 224.',
)
@click.option('--mean', nargs=3, type=float, help='Of RGB in 0 .. 1; that of ImageNet.')
@click.option('--std', nargs=3, type=float, help='Likewise.')
@click.option('--grey/--colour', default=None, help='What the network was trained on; colour.')
@click.option(
    '--crop-scale',
    default=DEFAULT_CROP_SCALE,
    show_default=True,
    help="Side of the square crop over the longer side of the face's box.",
)
@click.option('--source', default='', help='What it was trained on, accuracy, licence.')
def command(
    checkpoint: Path,
    label_set: str | None,
    output: Path,
    fp16: bool,
    input_size: int | None,
    mean: tuple[float, float, float] | None,
    std: tuple[float, float, float] | None,
    grey: bool | None,
    crop_scale: float,
    source: str,
) -> None:
    """Turn CHECKPOINT, an official DAN .pth or a .safetensors file, into an ONNX file.

    What `dan-ros train` wrote says itself what it needs. For other files --labels is needed, and
    the other defaults are those of the official checkpoints. The written file holds everything
    the node needs: point the parameter model.file at it.
    """
    need('torch', 'safetensors', 'onnx')
    from dan_ros.network.checkpoint import fuse_checkpoint
    from dan_ros.network.export import export_onnx

    fused, info = fuse_checkpoint(
        checkpoint,
        labels=LABEL_SETS[label_set] if label_set else None,
        input_size=input_size,
        mean=mean,
        std=std,
        grey=grey,
        crop_scale=crop_scale,
        source=source,
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    export_onnx(fused, info, output, fp16)
    size_mb = output.stat().st_size / 1e6
    click.echo(f'{output}: {len(info.labels)} classes, {info.input_size[0]} px, {size_mb:.1f} MB')
