"""`dan-ros explain`: where in a face each attention head looks."""

from pathlib import Path

import click
import numpy as np

from dan_ros import labels
from dan_ros.backends import Backend
from dan_ros.cli.common import need, open_torch_model
from dan_ros.detect import DETECTORS, open_detector
from dan_ros.errors import DanError
from dan_ros.faces.crop import crop_face
from dan_ros.images.files import open_picture, write_encoded
from dan_ros.labels import logits_to_probabilities
from dan_ros.model import store
from dan_ros.pipeline import ExpressionPipeline
from dan_ros.types import Frame

PICTURE_SUFFIXES = ('.png', '.jpg', '.jpeg', '.pdf', '.svg')


@click.command('explain')
@click.argument('image', type=click.Path(path_type=Path))
@click.option(
    '--out',
    type=click.Path(path_type=Path),
    help='The picture to write; IMAGE_explained.png in the current folder by default.',
)
@click.option(
    '--model',
    default=store.FLOAT_MODEL,
    show_default=True,
    help='A model file with float weights, or a checkpoint.',
)
@click.option(
    '--labels',
    'label_set',
    type=click.Choice(list(labels.LABEL_SETS)),
    help='Order of the classes of an official checkpoint.',
)
@click.option('--detector', default='auto', show_default=True, type=click.Choice(DETECTORS))
@click.option('--whole', is_flag=True, help='IMAGE is a face already: look for none in it.')
@click.option(
    '--max-faces', default=6, show_default=True, type=click.IntRange(1, 32), help='The largest.'
)
def command(
    image: Path,
    out: Path | None,
    model: str,
    label_set: str | None,
    detector: str,
    whole: bool,
    max_faces: int,
) -> None:
    """Draw where each of the network's attention heads looks in the faces of IMAGE.

    A row a face, a picture a head, the place it looks at most in red, as in the paper's figures;
    beside them the probabilities.
    """
    need('torch', 'safetensors', 'onnx', 'matplotlib')
    from dan_ros.evaluate.plots import draw_attention, encode

    out = out or Path(f'{image.stem}_explained.png')
    if out.suffix.lower() not in PICTURE_SUFFIXES:
        raise DanError(f'--out {out}: give the name of a picture, such as {out}.png')
    picture = open_picture(image)
    backend = open_torch_model(model, label_set)
    boxes = [_whole_box(picture)] if whole else _face_boxes(picture, backend, detector, max_faces)
    if not boxes:
        raise DanError(f'{image}: no face is found; if it is a face all over, say --whole')
    # A whole face is taken as it is, a found one is framed by the model's rule.
    scale = 1.0 if whole else backend.model.crop_scale
    faces = np.empty((len(boxes), *backend.model.input_size, 3), np.uint8)
    for face, box in zip(faces, boxes, strict=True):
        crop_face(Frame(picture), box, scale, face)
    probabilities = logits_to_probabilities(backend.infer(faces), backend.model.labels)
    figure = draw_attention(faces, backend.attend(faces), probabilities, labels.CANONICAL)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_encoded(out, encode(figure, out.suffix.lower().removeprefix('.')))
    for box, row in zip(boxes, probabilities, strict=True):
        place = ' '.join(str(round(float(value))) for value in box)
        click.echo(f'face at {place}: {labels.CANONICAL[row.argmax()]} {row.max():.0%}')
    click.echo(f'picture: {out}')


def _whole_box(picture: np.ndarray) -> np.ndarray:
    height, width = picture.shape[:2]
    return np.array([0, 0, width, height], np.float32)


def _face_boxes(
    picture: np.ndarray, backend: Backend, detector: str, max_faces: int
) -> list[np.ndarray]:
    """Boxes of the largest faces, the largest first."""
    found = open_detector(detector)
    if found.warning:
        click.echo(f'Warning: {found.warning}', err=True)
    faces = ExpressionPipeline(found, backend).find_faces(Frame(picture))
    return [face.box_xyxy for face in faces[:max_faces]]
