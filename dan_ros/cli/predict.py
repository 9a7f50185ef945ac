# SPDX-License-Identifier: Apache-2.0
"""`dan-ros predict`: prints the expressions of the faces in images."""

import json
import sys
from collections import Counter
from functools import partial
from pathlib import Path

import click
from rich.table import Table

from dan_ros import labels
from dan_ros.annotate import annotate
from dan_ros.backends import BACKENDS, ServerConfig
from dan_ros.cli.common import (
    PATH,
    max_side_option,
    pipeline_options,
    print_table,
    probability_options,
    server_options,
    warn,
)
from dan_ros.errors import DataError, count_of
from dan_ros.faces.blur import blur_faces
from dan_ros.faces.quality import ACCEPT_ALL
from dan_ros.images.files import open_picture, write_picture
from dan_ros.pipeline import ExpressionPipeline
from dan_ros.probabilities import Calibration, Prior
from dan_ros.types import FaceExpression, Frame


@click.command('predict')
@click.argument('images', nargs=-1, required=True, type=PATH)
@click.option('--json', 'as_json', is_flag=True, help='Print each image as one line of JSON.')
@click.option('--out', type=PATH, help='Folder for annotated images.')
@click.option('--blur', is_flag=True, help='Hide the faces in the annotated images.')
@partial(pipeline_options, backends=BACKENDS)
@max_side_option
@server_options
@probability_options
def command(
    images: tuple[Path, ...],
    as_json: bool,
    out: Path | None,
    blur: bool,
    model: str,
    backend: str,
    detector: str,
    max_side_px: int,
    prior: Prior,
    calibration: Calibration | None,
    server: ServerConfig,
) -> None:
    """Find the faces in each of IMAGES and print their expressions, the largest face first.

    Images are turned upright according to their EXIF data; boxes and landmarks are in pixels of the
    upright image. An image that cannot be read is reported on standard error; the others are
    processed, and the exit code is 1.
    """
    if blur and out is None:
        raise click.UsageError('--blur needs --out')
    pipeline = ExpressionPipeline.open(
        model,
        backend,
        detector,
        calibration,
        server,
        max_side_px=max_side_px,
        max_faces=1000,
        quality=ACCEPT_ALL,
        prior=prior,
    )
    warn(pipeline.detector.warning)
    if out:
        out.mkdir(parents=True, exist_ok=True)
    failed = 0
    for path, target in zip(images, _target_paths(out, images), strict=True):
        try:
            frame = Frame(open_picture(path))
        except DataError as error:
            failed += 1
            click.echo(f'Error: {error}', err=True)
            continue
        (faces,) = pipeline.run([frame])
        if as_json:
            click.echo(json.dumps(_to_json(path, faces)))
        else:
            _print_faces(path, faces)
        if target:
            shown = blur_faces(frame, [face.face.box_xyxy for face in faces]) if blur else frame
            write_picture(target, annotate(shown, faces))
            click.echo(f'annotated image: {target}', err=as_json)
    sys.exit(1 if failed else 0)


def _to_json(path: Path, faces: list[FaceExpression]) -> dict[str, object]:
    return {'image': str(path), 'faces': [_face_to_json(face) for face in faces]}


def _face_to_json(face: FaceExpression) -> dict[str, object]:
    return {
        'box_xyxy': [round(float(value), 2) for value in face.face.box_xyxy],
        'detection_confidence': round(face.face.score, 6),
        'landmarks': [[round(float(x), 2), round(float(y), 2)] for x, y in face.face.landmarks],
        'label': labels.label_of(face.expression()),
        'confidence': round(face.confidence, 6),
        'probabilities': {
            label: round(float(value), 6)
            for label, value in zip(labels.CANONICAL, face.probabilities, strict=True)
        },
    }


def _print_faces(path: Path, faces: list[FaceExpression]) -> None:
    if not faces:
        click.echo(f'{path}: no face')
        return
    table = Table('box (left top right bottom)', 'label', 'confidence', 'next', box=None)
    for face in faces:
        box = ' '.join(str(round(float(value))) for value in face.face.box_xyxy)
        second, third = face.probabilities.argsort()[::-1][1:3]
        rest = ', '.join(
            f'{labels.label_of(index)} {face.probabilities[index]:.0%}' for index in (second, third)
        )
        table.add_row(box, labels.label_of(face.expression()), f'{face.confidence:.0%}', rest)
    click.echo(f'{path}: {count_of(len(faces), "face")}')
    print_table(table)


def _target_paths(out: Path | None, images: tuple[Path, ...]) -> list[Path | None]:
    """Return the output path of each image; images with the same stem also get a number."""
    if out is None:
        return [None] * len(images)
    stems = Counter(path.stem for path in images)
    names = [path.stem for path in images]
    for index, stem in enumerate(names):
        while stems[names[index]] > (names[index] == stem):
            names[index] += f'_{index + 1}'
    return [out / f'{name}_annotated.png' for name in names]
