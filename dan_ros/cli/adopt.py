# SPDX-License-Identifier: Apache-2.0
"""`dan-ros adopt`: make a model file from another ONNX expression classifier."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from dan_ros.backends import Backend, open_backend
from dan_ros.cli.common import (
    PATH,
    check_is_other_file,
    dataset_option,
    evaluate_faces,
    need,
    open_faces,
    output_option,
    print_summary,
    split_option,
    warn,
)
from dan_ros.datasets.faces import Faces
from dan_ros.errors import count_of
from dan_ros.evaluate.evaluator import predict_crops
from dan_ros.faces.crop import crop_face
from dan_ros.labels import label_of, logits_to_probabilities
from dan_ros.model.metadata import ModelInfo
from dan_ros.types import Frame

if TYPE_CHECKING:
    from dan_ros.evaluate.metrics import Scores

MAX_COMPARED = 64  # labeled faces on which the wrapped graph is compared with the original
PORTRAIT_BOX = np.array([178.0, 63.0, 268.0, 176.0])  # face of the astronaut, pixels
MIN_SHARE = 0.5  # share of a column of the confusion matrix that suggests swapped labels


@click.command('adopt')
@click.argument('model', type=PATH)
@click.argument('descriptor')
@output_option
@click.option('--faces', 'data', type=PATH, help='Labeled faces to check the result on.')
@dataset_option('--faces')
@split_option
def command(
    model: Path, descriptor: str, output: Path, data: Path | None, dataset: str, split: str
) -> None:
    """Make a model file for the node from MODEL, any ONNX classifier of facial expressions.

    DESCRIPTOR is a YAML file that describes the inputs and outputs of MODEL, or the name of
    one in this package: hsemotion_b0, hsemotion_b2 or opencv_zoo. docs/models.md describes it.

    The result is compared with the original on noise, and with --faces on labeled faces, whose
    accuracy shows whether color, mean, standard deviation and labels are right.
    """
    need('onnx', 'onnxruntime', 'pydantic', 'yaml')
    from dan_ros.adopt.descriptor import find_descriptor, read_descriptor
    from dan_ros.adopt.wrapper import adopt
    from dan_ros.model.onnx_writer import save_model

    check_is_other_file(output, model)
    described = read_descriptor(find_descriptor(descriptor))
    content = model.read_bytes()
    info = ModelInfo(
        labels=described.expressions,
        input_size=described.size,
        crop_scale=described.crop_scale,
        source=described.source,
        source_sha256=hashlib.sha256(content).hexdigest(),
    )
    height, width = described.size
    faces, examples = None, np.zeros((0, height, width, 3), np.uint8)
    if data is not None:
        name, faces = open_faces(data, dataset, split, described.expressions)
        print_summary(name, split, faces, full_list='', err=True)
        chosen = np.random.default_rng(0).permutation(len(faces))[:MAX_COMPARED]
        examples = faces.read_rgb(chosen, info.side)
    adopted = adopt(content, described, str(model), examples)
    output.parent.mkdir(parents=True, exist_ok=True)
    save_model(adopted.model, info, output)
    backend = open_backend('onnxruntime', str(output))
    size_mb = output.stat().st_size / 1e6
    click.echo(
        f'{output}: {", ".join(info.labels)}; {width}x{height} px, {size_mb:.1f} MB; probabilities '
        f'differ from the original by at most {adopted.difference:.1e}'
    )
    if faces is None:
        _try_portrait(backend)
    else:
        _judge(faces, backend)


def _try_portrait(backend: Backend) -> None:
    """Show the result for one face, if the package with it is installed."""
    try:
        from skimage.data import astronaut
    except ImportError:
        pass
    else:
        portrait = Frame(astronaut(), 'rgb8')  # type: ignore[no-untyped-call]
        face = np.empty((1, *backend.model.input_size, 3), np.uint8)
        crop_face(portrait, PORTRAIT_BOX, backend.model.crop_scale, face[0])
        probabilities = logits_to_probabilities(backend.infer(face), backend.model.labels)[0]
        best = int(probabilities.argmax())
        click.echo(
            f'a smiling face (scikit-image, astronaut): {label_of(best)} {probabilities[best]:.2f}'
        )
    click.echo('not checked on labeled faces: give a folder of them with --faces')


def _judge(faces: Faces, backend: Backend) -> None:
    """Print the accuracy, and a warning if it suggests mistakes in the descriptor."""
    scores = evaluate_faces(faces, backend.model.labels, predict_crops(faces, backend)).scores
    click.echo(
        f'accuracy {scores.accuracy:.2%}, balanced {scores.balanced_accuracy:.2%}, '
        f'{count_of(int(scores.faces.sum()), "face")}'
    )
    for line in explain_scores(scores):
        warn(line)


def explain_scores(scores: 'Scores') -> list[str]:
    """Describe mistakes in a descriptor that the scores suggest; [] if they are plausible."""
    present = np.flatnonzero(scores.faces)
    recalls = scores.confusion[present] / scores.faces[present, None]  # [P, C]
    lines = []
    if len(present) > 1 and scores.balanced_accuracy < 1.5 / len(present):
        lines.append(
            f'the accuracy is near chance (1 of {len(present)}): check labels, color, mean and std'
        )
    totals = recalls.sum(axis=0)
    swapped = [
        f'{scores.labels[predicted]} is given mostly to {scores.labels[present[true]]} faces'
        for predicted, true in enumerate(recalls.argmax(axis=0))
        if totals[predicted] > MIN_SHARE
        and recalls[true, predicted] > MIN_SHARE * totals[predicted]
        and present[true] != predicted
    ]
    if len(swapped) > 1:
        lines.append(f'labels may be in another order: {"; ".join(swapped)}')
    return lines
