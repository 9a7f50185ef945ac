# SPDX-License-Identifier: Apache-2.0
"""`dan-ros evaluate`: measure a model on labeled faces."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from dan_ros.backends import BACKENDS, Backend, ServerConfig
from dan_ros.cli.common import (
    PATH,
    backend_option,
    dataset_option,
    evaluate_faces,
    labels_option,
    need,
    open_faces,
    open_model,
    print_summary,
    print_table,
    probability_options,
    server_options,
    split_option,
    warn,
)
from dan_ros.datasets.faces import Faces, list_paths
from dan_ros.detect import DETECTORS, open_detector
from dan_ros.errors import DataError, count_of
from dan_ros.pipeline import ExpressionPipeline, PipelineConfig
from dan_ros.probabilities import Calibration, Prior

if TYPE_CHECKING:
    from dan_ros.evaluate.evaluator import Evaluation


@click.command('evaluate')
@click.argument('data', type=PATH)
@click.argument('model')
@click.option('--json', 'as_json', is_flag=True, help='Print the numbers as one JSON object.')
@click.option(
    '--out',
    type=PATH,
    default='evaluation',
    show_default=True,
    help='Folder for the report, its figures and scores.json.',
)
@dataset_option('DATA')
@split_option
@backend_option(BACKENDS)
@labels_option
@click.option(
    '--detect',
    'detector',
    type=click.Choice(DETECTORS),
    help='Detect the largest face of each whole image with this detector, as the node does.',
)
@server_options
@probability_options
def command(
    data: Path,
    model: str,
    as_json: bool,
    out: Path,
    dataset: str,
    split: str,
    backend: str,
    label_set: str | None,
    detector: str | None,
    prior: Prior,
    calibration: Calibration | None,
    server: ServerConfig,
) -> None:
    """Measure MODEL on the labeled faces of DATA.

    MODEL is a known model (see `dan-ros models`), an ONNX file or a checkpoint. DATA is a folder
    with FER+, FER-2013, RAF-DB, AffectNet, SFEW, CREMA-D, EmoNet-Face or DiffusionFER, one of their
    files, or a folder of your own images with one folder per class.

    Prints what was found in DATA, accuracy, balanced accuracy, calibration error, and precision,
    recall and F1 per class. Writes an HTML page with the confusion matrix, the reliability diagram
    and the most confident mistakes.

    Faces without a result count as wrong, and unreadable images do not count. The exit code is 1 if
    there are any.
    """
    need('matplotlib', 'jinja2')
    from dan_ros.evaluate.report import to_json, write_report

    opened = open_model(model, backend, label_set, server)
    name, faces = open_faces(data, dataset, split, opened.model.labels)
    out.mkdir(parents=True, exist_ok=True)
    print_summary(name, split, faces, 'scores.json', err=as_json)
    evaluation = _evaluate(faces, opened, detector, prior, calibration)
    content = {
        'model': opened.model_name,
        'data': str(data),
        'dataset': name,
        'split': split,
        'backend': opened.name,
        'device': opened.device,
        'look': 'photo' if detector else 'face',
        'prior': str(prior),
        'is_calibrated': calibration is not None,
        **to_json(evaluation),
    }
    if as_json:
        click.echo(json.dumps(content))
    else:
        _print(content)
    page = write_report(content, evaluation, out)  # an error must not hide the numbers
    click.echo(f'report: {page}', err=as_json)
    _check_complete(content)


def _evaluate(
    faces: Faces,
    model: Backend,
    detector: str | None,
    prior: Prior,
    calibration: Calibration | None,
) -> 'Evaluation':
    from dan_ros.evaluate.evaluator import predict_crops, predict_photos

    if detector:
        finder = open_detector(detector)
        warn(finder.warning)
        config = PipelineConfig(prior=prior)
        predict = predict_photos(faces, ExpressionPipeline(finder, model, config, calibration))
    else:
        predict = predict_crops(faces, model, prior, calibration)
    return evaluate_faces(faces, model.model.labels, predict)


def _print(content: dict[str, Any]) -> None:
    from dan_ros.evaluate.report import percent

    table = Table('class', box=None)
    for name in ('precision', 'recall', 'F1', 'faces'):
        table.add_column(name, justify='right')
    for label, row in content['per_class'].items():
        cells = [percent(row[name]) for name in ('precision', 'recall', 'f1')]
        table.add_row(label, *cells, str(row['faces']))
    print_table(table)
    click.echo(
        f'accuracy {content["accuracy"]:.2%}, balanced {content["balanced_accuracy"]:.2%}, '
        f'macro F1 {content["macro_f1"]:.2%}, calibration error '
        f'{content["calibration_error"]:.3f}, {count_of(content["faces"], "face")}'
    )
    if content['not_judged']:
        click.echo(f'{count_of(content["not_judged"], "face")} without a result: counted as wrong')
    for label, count in content['left_out'].items():
        click.echo(f'{count_of(count, "face")} left out: the model does not have the class {label}')


def _check_complete(content: dict[str, Any]) -> None:
    """List the images without a detected face; raise `DataError` if any image has no result."""
    for line in list_paths('without a detected face', content['not_judged_images'], 'scores.json'):
        click.echo(line, err=True)
    missing = content['not_judged'] + len(content['skipped'])
    if missing:
        count = content['faces'] + len(content['skipped'])
        total = count_of(count, 'image')
        raise DataError(f'{missing} of {total} not classified; scores.json lists them')
