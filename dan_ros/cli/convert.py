"""`dan-ros convert`: a DAN checkpoint becomes a model file."""

import hashlib
from pathlib import Path

import click

from dan_ros.errors import DanError, ModelError
from dan_ros.labels import LABEL_SETS
from dan_ros.model_info import DEFAULT_CROP_SCALE, ModelInfo


@click.command('convert')
@click.argument('checkpoint', type=click.Path(path_type=Path))
@click.option(
    '--labels',
    'label_set',
    type=click.Choice(list(LABEL_SETS)),
    required=True,
    help='Order of the classes the checkpoint was trained with.',
)
@click.option(
    '-o', '--output', type=click.Path(path_type=Path), required=True, help='The ONNX file to write.'
)
@click.option('--fp16', is_flag=True, help='Store the weights in half precision: half the size.')
@click.option('--input-size', default=224, show_default=True, help='Side of a face, pixels.')
@click.option(
    '--mean', nargs=3, type=float, help='Of RGB in [0, 1]; the default is that of ImageNet.'
)
@click.option('--std', nargs=3, type=float, help='Likewise.')
@click.option('--grey', is_flag=True, help='The network was trained on grey faces.')
@click.option(
    '--crop-scale',
    default=DEFAULT_CROP_SCALE,
    show_default=True,
    help="Side of the square crop over the longer side of the face's box.",
)
@click.option('--source', default='', help='What it was trained on, accuracy, licence.')
def command(
    checkpoint: Path,
    label_set: str,
    output: Path,
    fp16: bool,
    input_size: int,
    mean: tuple[float, float, float] | None,
    std: tuple[float, float, float] | None,
    grey: bool,
    crop_scale: float,
    source: str,
) -> None:
    """Turn CHECKPOINT, an official DAN .pth or a .safetensors file, into an ONNX file.

    The defaults are those of the official checkpoints (224 px, ImageNet normalisation). The written
    file holds everything the node needs: point the parameter model.file at it.
    """
    import_torch_or_explain()
    from dan_ros.network import fuse
    from dan_ros.network.checkpoint import load_dan
    from dan_ros.network.export import export_onnx

    dan = load_dan(checkpoint)
    labels = LABEL_SETS[label_set]
    if dan.fc.out_features != len(labels):
        raise ModelError(
            f'{checkpoint} has {dan.fc.out_features} classes, the label set {label_set} has '
            f'{len(labels)}; choose the one it was trained with: {", ".join(LABEL_SETS)}'
        )
    info = ModelInfo(
        labels=labels,
        input_size=(input_size, input_size),
        crop_scale=crop_scale,
        source=source or f'{checkpoint.name}, label set {label_set}',
        source_sha256=hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
    )
    try:
        fused = fuse.fuse(dan, mean or fuse.IMAGENET_MEAN, std or fuse.IMAGENET_STD, grey)
    except ValueError as error:
        raise DanError(f'--mean, --std, --grey: {error}') from None
    output.parent.mkdir(parents=True, exist_ok=True)
    export_onnx(fused, info, output, fp16)
    size_mb = output.stat().st_size / 1e6
    click.echo(f'{output}: {len(labels)} classes, {input_size} px, {size_mb:.1f} MB')


def import_torch_or_explain() -> None:
    """Raise a DanError that says what to install where torch or onnx is missing."""
    try:
        import onnx  # noqa: F401
        import torch  # noqa: F401
    except ModuleNotFoundError as error:
        raise DanError(
            f'this command needs the Python package {error.name!r}: '
            '`pip install torch safetensors onnx` brings all it takes'
        ) from None
