# SPDX-License-Identifier: Apache-2.0
"""`dan-ros explain`: draw where in a face each attention head looks."""

from pathlib import Path

import click
import numpy as np

from dan_ros import labels
from dan_ros.backends import Backend
from dan_ros.cli.common import (
    PATH,
    detector_option,
    labels_option,
    need,
    open_torch_model,
    probability_options,
    warn,
)
from dan_ros.detect import open_detector
from dan_ros.errors import DanError
from dan_ros.faces.crop import crop_face
from dan_ros.images.files import open_picture, write_encoded
from dan_ros.model import store
from dan_ros.pipeline import ExpressionPipeline
from dan_ros.probabilities import Calibration, Calibrator, Prior
from dan_ros.types import Frame

FIGURE_SUFFIXES = ('.png', '.jpg', '.jpeg', '.pdf', '.svg')


@click.command('explain')
@click.argument('image', type=PATH)
@click.option(
    '--out', type=PATH, help='Output image; default IMAGE_explained.png in the current folder.'
)
@click.option(
    '--model',
    default=store.FLOAT_MODEL,
    show_default=True,
    help='Known model or ONNX file with float weights, or a checkpoint.',
)
@labels_option
@detector_option
@click.option('--whole', is_flag=True, help='IMAGE is a cropped face: do not run the detector.')
@click.option(
    '--max-faces',
    default=6,
    show_default=True,
    type=click.IntRange(1, 32),
    help='Number of faces, the largest first.',
)
@probability_options
def command(
    image: Path,
    out: Path | None,
    model: str,
    label_set: str | None,
    detector: str,
    whole: bool,
    max_faces: int,
    prior: Prior,
    calibration: Calibration | None,
) -> None:
    """Draw where each of the network's attention heads looks in the faces of IMAGE.

    One row per face: the face, one attention map per head with its maximum in yellow, as
    large as the face, and the probabilities.
    """
    need('torch', 'safetensors', 'onnx', 'matplotlib')
    from dan_ros.plots.evaluation import draw_attention
    from dan_ros.plots.style import encode

    out = out or Path(f'{image.stem}_explained.png')
    if out.suffix.lower() not in FIGURE_SUFFIXES:
        raise DanError(f'--out {out}: unknown image format; use a name such as {out}.png')
    if out.exists() and image.exists() and out.samefile(image):
        raise DanError(f'--out {out} is the image itself: give another name')
    frame = Frame(open_picture(image))
    backend = open_torch_model(model, label_set)
    if whole:
        boxes = [np.array([0, 0, *frame.size], np.float32)]
    else:
        boxes = _face_boxes(frame, backend, detector, max_faces)
    if not boxes:
        raise DanError(f'{image}: no face is found; if the image is a cropped face, use --whole')
    # Only a detected face is cropped by the model's rule.
    scale = 1.0 if whole else backend.model.crop_scale
    faces = np.empty((len(boxes), *backend.model.input_size, 3), np.uint8)
    for face, box in zip(faces, boxes, strict=True):
        crop_face(frame, box, scale, face)
    calibrator = Calibrator.create(backend.model, calibration)
    probabilities = calibrator.probabilities(backend.infer(faces), prior)
    figure = draw_attention(faces, backend.attend(faces), probabilities, labels.CANONICAL)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_encoded(out, encode(figure, out.suffix.lower().removeprefix('.')))
    for box, row in zip(boxes, probabilities, strict=True):
        place = ' '.join(str(round(float(value))) for value in box)
        click.echo(f'face at {place}: {labels.CANONICAL[row.argmax()]} {row.max():.0%}')
    click.echo(f'figure: {out}')


def _face_boxes(frame: Frame, backend: Backend, detector: str, max_faces: int) -> list[np.ndarray]:
    """Detect faces and return the boxes of the largest ones, in descending size."""
    found = open_detector(detector)
    warn(found.warning)
    faces = ExpressionPipeline(found, backend).find_faces(frame)
    return [face.box_xyxy for face in faces[:max_faces]]
