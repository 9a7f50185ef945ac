# SPDX-License-Identifier: Apache-2.0
"""Report of an evaluation: numbers as JSON, figures as PNG, and one HTML page with all of them."""

import base64
import errno
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from matplotlib.figure import Figure

from dan_ros.errors import DanError, count_of
from dan_ros.evaluate.evaluator import Evaluation
from dan_ros.plots.evaluation import draw_confusion, draw_mistakes, draw_reliability
from dan_ros.plots.style import encode
from dan_ros.storage.atomic import atomic_write_bytes, workspace

NEW_FOLDER = 'new'  # name of the hidden folder that collects the files of a report
MAX_MISTAKES = 32  # faces shown
MISTAKE_PX = 96  # side of a displayed face, pixels
TEMPLATE = Path(__file__).with_name('report.html')

CAPTIONS = {
    'confusion': 'Confusion matrix.',
    'reliability': 'Accuracy by confidence. Bars below the line: the model is overconfident.',
    'mistakes': 'Most confident mistakes: true class, then predicted class.',
}


def to_json(evaluation: Evaluation) -> dict[str, Any]:
    """Convert to plain numbers, strings, lists and dicts; None where a metric is undefined."""
    scores = evaluation.scores
    columns = zip(
        scores.labels, scores.precision, scores.recall, scores.f1, scores.faces, strict=True
    )
    return {
        **_describe_images(evaluation),
        'accuracy': scores.accuracy,
        'balanced_accuracy': scores.balanced_accuracy,
        'macro_f1': scores.macro_f1,
        'calibration_error': scores.calibration_error,
        'labels': list(scores.labels),
        'per_class': {
            label: {
                'precision': float(precision),
                'recall': _number(recall),
                'f1': _number(f1),
                'faces': int(faces),
            }
            for label, precision, recall, f1, faces in columns
        },
        'confusion_matrix': scores.confusion.tolist(),
        'reliability': [
            {'faces': int(faces), 'confidence': float(confidence), 'accuracy': float(accuracy)}
            for faces, confidence, accuracy in zip(
                scores.bin_faces, scores.bin_confidence, scores.bin_accuracy, strict=True
            )
        ],
    }


def _describe_images(evaluation: Evaluation) -> dict[str, Any]:
    """The evaluated images, and the others with the reasons."""
    faces, missing = evaluation.faces, evaluation.without_result
    return {
        'layout': faces.layout,
        'counts': faces.all_counts,
        'faces': len(evaluation.chosen),
        'not_judged': len(missing),
        'not_judged_images': [str(faces.paths[index]) for index in missing if faces.paths],
        'left_out': evaluation.left_out,
        'excluded': dict(faces.excluded),
        'empty_folders': list(faces.empty_folders),
        'skipped': list(faces.skipped),
        'skip_reasons': dict(faces.skipped),
    }


def write_report(content: dict[str, Any], evaluation: Evaluation, folder: Path) -> Path:
    """Write the figures, `report.html` and `scores.json` into an existing folder.

    Files of an earlier report are replaced after all new ones are on the disk; `scores.json` is
    replaced last. If it exists, all files come from the same evaluation.

    Args:
        content: see `to_json`, with what was evaluated: model, data, dataset, split, backend,
            device, prior, is_calibrated, and look, which is 'face' if the data set cropped the
            faces, or 'photo' if they were detected.
        evaluation: the results.
        folder: the folder.

    Returns:
        Path of the page, which contains the figures and can be shared without other files.

    Raises:
        DanError: a file cannot be written; an earlier report is kept.
    """
    model = Path(content['model']).name
    title = f'{model} on {content["dataset"]}, {content["split"]}'
    title = title.encode(errors='backslashreplace').decode()  # a file name need not be valid text
    scores = evaluation.scores
    drawn = {
        'confusion': draw_confusion(scores.labels, scores.confusion, title),
        'reliability': draw_reliability(
            scores.bin_faces,
            scores.bin_accuracy,
            scores.bin_confidence,
            scores.calibration_error,
            title,
        ),
        'mistakes': _draw_mistakes(evaluation),
    }
    pngs = {name: encode(figure) for name, figure in drawn.items() if figure is not None}
    files = {f'{name}.png': png for name, png in pngs.items()}
    page = _render_page(title, content, pngs)
    files['report.html'] = page.encode(errors='backslashreplace')
    files['scores.json'] = f'{json.dumps(content, indent=1)}\n'.encode()
    try:
        _replace_together(folder, files)
    except OSError as error:
        raise DanError(
            f'the report cannot be written to {folder}: {error.strerror or error}'
        ) from None
    return folder / 'report.html'


def percent(value: float | None) -> str:
    """Format a share of 1.

    >>> percent(0.125), percent(None)
    ('12.5%', '-')
    """
    return '-' if value is None else f'{value:.1%}'


def _render_page(title: str, content: dict[str, Any], pngs: dict[str, bytes]) -> str:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters |= {'percent': percent, 'count_of': count_of}
    figures = [(base64.b64encode(png).decode(), CAPTIONS[name]) for name, png in pngs.items()]
    template = environment.from_string(TEMPLATE.read_text(encoding='utf-8'))
    return template.render(title=title, figures=figures, **content)


def _replace_together(folder: Path, files: dict[str, bytes]) -> None:
    """Write `files` into a hidden folder, then move them over the old ones in order."""
    for name in files:
        if (folder / name).is_dir():
            raise IsADirectoryError(errno.EISDIR, f'{name} in it is a folder')
    with workspace(folder / NEW_FOLDER) as new:
        for name, data in files.items():
            atomic_write_bytes(new / name, data)
        for name in ('scores.json', 'mistakes.png'):
            (folder / name).unlink(missing_ok=True)
        for name in files:
            (new / name).replace(folder / name)


def _draw_mistakes(evaluation: Evaluation) -> Figure | None:
    """Draw the most confident mistakes; None if there are none."""
    labels, probabilities = evaluation.scores.labels, evaluation.probabilities
    truth = [evaluation.faces.labels[c] for c in evaluation.faces.classes[evaluation.chosen]]
    predicted = [labels[index] for index in probabilities.argmax(axis=1)]
    confidence = probabilities.max(axis=1)
    wrong = np.array([p != t for p, t in zip(predicted, truth, strict=True)]) & (confidence > 0)
    shown = np.flatnonzero(wrong)
    shown = shown[np.argsort(-confidence[shown], kind='stable')][:MAX_MISTAKES]
    if not len(shown):
        return None
    faces = evaluation.faces.read_rgb(evaluation.chosen[shown], MISTAKE_PX)
    captions = [f'{truth[i]}\n{predicted[i]} {confidence[i]:.0%}' for i in shown]
    return draw_mistakes(list(faces), captions)


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
