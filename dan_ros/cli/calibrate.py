# SPDX-License-Identifier: Apache-2.0
"""`dan-ros calibrate`: adapt a model to a robot's camera with a few labeled faces."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np
from rich.table import Table

from dan_ros.cli.common import PATH, need, pipeline_options, print_table, warn
from dan_ros.errors import DataError, count_of
from dan_ros.images.files import write_picture
from dan_ros.images.opencv import cv2, open_capture
from dan_ros.pipeline import ExpressionPipeline
from dan_ros.storage.atomic import atomic_write_bytes
from dan_ros.view.playback import is_bag

if TYPE_CHECKING:
    from dan_ros.calibrate.calibrate import Result
    from dan_ros.calibrate.collect import FaceCutter, LabeledFace, TimedFrame

PAUSE_S = 0.4  # pause between two pictures of one expression, seconds
SKIP = 's'  # answer to skip an expression
MAX_SHOWN = 5  # number of images named in a warning


@click.command('calibrate')
@click.argument('data', type=PATH)
@click.option(
    '-o',
    '--output',
    type=click.Path(dir_okay=False, path_type=Path),
    default='calibration.yaml',
    show_default=True,
    help='The file to write; the picture is written beside it.',
)
@click.option('--marks', type=PATH, help='Times and labels of a recording.')
@click.option('--topic', help='Image topic of the bag, if it has several cameras.')
@click.option('--camera', help='Take pictures with this camera (number, path or URL) into DATA.')
@click.option('--person', default='', help='Name of the person in front of the camera.')
@click.option(
    '--pictures',
    default=3,
    show_default=True,
    type=click.IntRange(1, 50),
    help='Number of pictures of each expression, with --camera.',
)
@click.option('--whole', is_flag=True, help='Images are cropped faces: do not run the detector.')
@pipeline_options
@click.option('--force', is_flag=True, help='Write the file even if it makes results worse.')
def command(
    data: Path,
    output: Path,
    marks: Path | None,
    topic: str | None,
    camera: str | None,
    person: str,
    pictures: int,
    whole: bool,
    model: str,
    backend: str,
    detector: str,
    force: bool,
) -> None:
    """Fit bias, temperature and weights to three to ten faces of each expression.

    DATA is a folder with one folder per expression (happy/anna/1.jpg), or a bag or video with
    --marks. With --camera, the command first asks for each expression and saves pictures in DATA;
    run it once for each --person.

    Each person (or face, if persons are unknown) is classified with a fit to the others, so the
    printed gain is measured on faces that were not used for the fit. Pass the file to the node as
    expression.calibration, and to predict, bag, evaluate and explain as --calibration.
    """
    need('yaml', 'matplotlib')
    if output.suffix.lower() == '.png':
        raise click.BadParameter('give a name that ends in .yaml', param_hint='--output')
    if person and camera is None:
        raise click.UsageError(
            '--person needs --camera; in a folder, name persons by folders (happy/anna/1.jpg)'
        )
    if marks and camera is not None:
        raise click.UsageError('--camera saves pictures in a folder, which needs no --marks')
    if topic and marks is None:
        raise click.UsageError('--topic needs a bag with --marks')
    from dan_ros.calibrate.calibrate import calibrate
    from dan_ros.calibrate.collect import FaceCutter

    if camera is not None:
        _take_pictures(camera, data, person, pictures)
    pipeline = ExpressionPipeline.open(model, backend, detector)
    warn(pipeline.detector.warning)
    cutter = FaceCutter(pipeline, whole)
    faces = _read_faces(data, marks, topic, cutter)
    _report_left_out(cutter)
    if not faces:
        raise DataError(f'{data} contains no face that can be used: nothing was written')
    logits = pipeline.backend.infer(np.stack([face.crop for face in faces]))
    result = calibrate(faces, logits, pipeline.backend.model)
    _print(result)
    if result.validation.gain < 0 and not force:
        raise DataError(
            'the calibration makes results on held-out faces worse, so it is not written; check '
            'the labels, add faces, or use --force'
        )
    _write(result, output)


def _read_faces(
    data: Path, marks: Path | None, topic: str | None, cutter: 'FaceCutter'
) -> list['LabeledFace']:
    from dan_ros.calibrate.collect import faces_at_marks, faces_in_folder, read_marks

    if marks is not None:
        faces, problems = faces_at_marks(_frames(data, topic), read_marks(marks), cutter)
        for problem in problems:
            warn(problem)
        return faces
    if not data.exists():
        raise DataError(f'there is no folder {data}; make one with a folder per class, like happy/')
    if not data.is_dir() or (data / 'metadata.yaml').is_file():
        raise DataError(f'{data} is not a folder of pictures; give --marks for a bag or video')
    faces, problems = faces_in_folder(data, cutter)
    for problem in problems:
        warn(problem)
    return faces


def _frames(data: Path, topic: str | None) -> Iterator['TimedFrame']:
    """Yield the frames of a bag or video, with the time since the first, seconds."""
    from dan_ros.calibrate.collect import frames_of_video

    if not data.exists():
        raise DataError(f'there is no bag or video {data}')
    if data.is_dir() or is_bag(str(data)):
        return _frames_of_bag(data, topic)
    return frames_of_video(data)


def _frames_of_bag(path: Path, topic: str | None) -> Iterator['TimedFrame']:
    need('rosbags', 'mcap')
    from dan_ros.bag.cameras import choose_image_topics
    from dan_ros.bag.reader import Bag, record_to_frame

    bag = Bag(path)
    warn(bag.warning)
    topics = choose_image_topics(bag, (topic,) if topic else ()).topics
    if len(topics) > 1:
        names = ', '.join(one.name for one in topics)
        raise DataError(f'{path} has several cameras: choose one with --topic: {names}')
    start_ns = None
    for record in bag.records([topics[0].name]):
        start_ns = record.time_ns if start_ns is None else start_ns
        yield (record.time_ns - start_ns) / 1e9, partial(record_to_frame, record)
    warn(bag.damage)


def _take_pictures(camera: str, folder: Path, person: str, count: int) -> None:
    """Request each expression and save pictures as FOLDER/<label>/<person>/<number>.png.

    An existing folder of the class, such as Happiness, is used.
    """
    from dan_ros.datasets.folders import LABEL_OF_NAME, list_class_folders
    from dan_ros.labels import CANONICAL

    if person != Path(person).name or person.startswith('.'):
        raise DataError(f'--person {person!r} names a folder: use letters and digits')
    with open_capture(int(camera) if camera.isdecimal() else camera) as source:
        if not source.isOpened():
            raise DataError(f'camera {camera} cannot be opened: check its number, path and access')
        folder.mkdir(parents=True, exist_ok=True)
        folders = list_class_folders(folder, CANONICAL, LABEL_OF_NAME).folders
        click.echo(f'The pictures are saved in {folder}; delete them when you no longer need them.')
        for label in CANONICAL:
            answer = click.prompt(
                f'Show {label}, then press Enter ({SKIP}: skip)',
                default='',
                show_default=False,
                value_proc=_parse_answer,
            )
            if answer == SKIP:
                continue
            target = folders.get(label, folder / label) / person
            target.mkdir(parents=True, exist_ok=True)
            numbers = [int(path.stem) for path in target.glob('*.png') if path.stem.isdecimal()]
            first = max(numbers, default=0) + 1
            for number in range(first, first + count):
                write_picture(target / f'{number:03d}.png', _fresh_frame(source, camera))


def _parse_answer(text: str) -> str:
    answer = text.strip().lower()
    if answer not in ('', SKIP):
        raise click.UsageError(f'press only Enter, or {SKIP} to skip')
    return answer


def _fresh_frame(source: cv2.VideoCapture, camera: str) -> np.ndarray:
    """Skip buffered images and wait a little, so that pictures differ; return the next image."""
    rate_hz = source.get(cv2.CAP_PROP_FPS)
    for _ in range(max(1, round(PAUSE_S * (rate_hz if 1 <= rate_hz <= 240 else 30)))):
        source.grab()
    succeeded, image = source.read()
    if not succeeded:
        raise DataError(f'camera {camera} gives no more images: nothing was calibrated')
    return np.asarray(image)


def _report_left_out(cutter: 'FaceCutter') -> None:
    if missing := cutter.without_face:
        shown = ', '.join(missing[:MAX_SHOWN])
        more = f' and {len(missing) - MAX_SHOWN} more' if len(missing) > MAX_SHOWN else ''
        warn(f'no face found in {shown}{more}; use --whole if these are cropped faces')
    if cutter.repeated:
        warn(f'{count_of(cutter.repeated, "picture")} left out as copies of others')
    for problem in cutter.contradictory:
        warn(problem)


def _print(result: 'Result') -> None:
    validation, notes = result.validation, result.calibration.notes
    before, after = validation.recall(validation.before), validation.recall(validation.after)
    table = Table('class', box=None)
    for column in ('faces', 'before', 'after', 'bias'):
        table.add_column(column, justify='right')
    for index, label in enumerate(result.labels):
        shares = (before[index], after[index])
        cells = ['-' if np.isnan(share) else f'{share:.0%}' for share in shares]
        count = str(notes['faces'].get(label, 0))
        table.add_row(label, count, *cells, f'{result.calibration.bias[label]:+.2f}')
    print_table(table)
    weights = result.calibration.weights
    largest = f'{np.abs(weights).max():.2f} at most' if weights else 'none'
    click.echo(f'temperature: {result.calibration.temperature:.2f}; weights: {largest}')
    click.echo(f'held out: {notes["held_out"]}; persons: {notes["persons"]}')
    click.echo(result.summary)
    for warning in result.warnings:
        warn(warning)


def _write(result: 'Result', output: Path) -> None:
    from dan_ros.plots.evaluation import draw_recall
    from dan_ros.plots.style import encode

    validation, notes = result.validation, result.calibration.notes
    used = [index for index, label in enumerate(result.labels) if label in notes['faces']]
    labels = [result.labels[index] for index in used]
    figure = draw_recall(
        labels,
        [notes['faces'][label] for label in labels],
        validation.recall(validation.before)[used],
        validation.recall(validation.after)[used],
        f'balanced accuracy {notes["balanced_accuracy_before"]:.1%} -> '
        f'{notes["balanced_accuracy_after"]:.1%} ({result.verdict})',
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    picture = output.with_suffix('.png')
    atomic_write_bytes(picture, encode(figure))
    result.calibration.write(output)
    click.echo(f'written: {output} and {picture}')
