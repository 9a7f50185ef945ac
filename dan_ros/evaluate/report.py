"""Write an evaluation down: numbers as JSON, pictures, and one page that shows them all."""

import base64
import errno
import html
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from dan_ros.errors import DanError
from dan_ros.evaluate.evaluator import Evaluation
from dan_ros.evaluate.metrics import Scores
from dan_ros.evaluate.plots import draw_confusion, draw_mistakes, draw_reliability, encode
from dan_ros.images.files import readable
from dan_ros.storage.atomic import atomic_write_bytes, workspace

FRESH = 'new'  # name of the hidden folder in which a report waits until it is whole
MISTAKES = 32  # faces shown
MISTAKE_SIZE = 96  # pixels

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 62rem; margin: 2rem auto;
  padding: 0 1rem; }
table { border-collapse: collapse; } td, th { padding: .25rem .9rem; text-align: right;
  border-bottom: 1px solid #ddd; } td:first-child, th:first-child { text-align: left; }
img { max-width: 100%; } figure { margin: 2rem 0; } figcaption { color: #555; }
.numbers { font-size: 1.3rem; }
"""


@dataclass(frozen=True)
class Subject:
    """What was evaluated, for people and machines.

    Attributes:
        model: the model's name or path.
        data: the data's path.
        dataset, split: see `open_faces`.
        backend, device: what ran the model.
        look: 'face' or 'photo': as the data set frames them, or found in the whole picture.
    """

    model: str
    data: str
    dataset: str
    split: str
    backend: str
    device: str
    look: str


def to_json(subject: Subject, evaluation: Evaluation) -> dict[str, Any]:
    """Everything measured, as plain numbers, strings, lists and dicts; None where undefined."""
    scores = evaluation.scores
    columns = zip(
        scores.labels, scores.precision, scores.recall, scores.f1, scores.faces, strict=True
    )
    return {
        **vars(subject),
        'faces': len(evaluation.chosen),
        'not_judged': int(scores.faces.sum() - scores.confusion.sum()),
        'left_out': evaluation.left_out,
        'skipped': list(evaluation.faces.skipped),
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


def write_report(subject: Subject, evaluation: Evaluation, folder: Path) -> Path:
    """Write the pictures, `report.html` and `scores.json` into a folder; earlier ones are replaced.

    They are replaced once all the new ones lie on the disk, `scores.json` last: where it is, all
    the rest is of the same evaluation.

    Returns:
        Path of the page, which holds the pictures and can be passed on alone.

    Raises:
        DanError: they can't be written; the earlier ones stay as they are.
    """
    content = to_json(subject, evaluation)
    title = readable(f'{Path(subject.model).name} on {subject.dataset}, {subject.split}')
    figures = {
        'confusion': (draw_confusion(evaluation.scores, title), 'What is taken for what.'),
        'reliability': (
            draw_reliability(evaluation.scores, title),
            'How often answers of some confidence are right. Bars below the line: too sure.',
        ),
    }
    mistakes = _draw_surest_mistakes(evaluation)
    if mistakes:
        figures['mistakes'] = (mistakes, 'The surest wrong answers: true class, then the answer.')
    files = {f'{name}.png': encode(figure) for name, (figure, _) in figures.items()}
    pictures = [_figure_html(files[f'{name}.png'], text) for name, (_, text) in figures.items()]
    page = _page(title, content, evaluation.scores, pictures)
    files['report.html'] = readable(page).encode()
    files['scores.json'] = f'{json.dumps(content, indent=1)}\n'.encode()
    try:
        _replace_together(folder, files)
    except OSError as error:
        raise DanError(
            f'the report can not be written to {folder}: {error.strerror or error}'
        ) from None
    return folder / 'report.html'


def _replace_together(folder: Path, files: dict[str, bytes]) -> None:
    """Write `files` into a folder beside the old ones, then move them over those, in order."""
    for name in files:
        if (folder / name).is_dir():
            raise IsADirectoryError(errno.EISDIR, f'{name} in it is a folder')
    with workspace(folder / FRESH) as fresh:
        for name, data in files.items():
            atomic_write_bytes(fresh / name, data)
        for name in ('scores.json', 'mistakes.png'):
            (folder / name).unlink(missing_ok=True)
        for name in files:
            (fresh / name).replace(folder / name)


def _draw_surest_mistakes(evaluation: Evaluation) -> Figure | None:
    labels, probabilities = evaluation.scores.labels, evaluation.probabilities
    truth = [evaluation.faces.labels[c] for c in evaluation.faces.classes[evaluation.chosen]]
    answers = [labels[index] for index in probabilities.argmax(axis=1)]
    confidence = probabilities.max(axis=1)
    wrong = np.array([a != t for a, t in zip(answers, truth, strict=True)]) & (confidence > 0)
    surest = np.flatnonzero(wrong)
    surest = surest[np.argsort(-confidence[surest], kind='stable')][:MISTAKES]
    if not len(surest):
        return None
    pictures = evaluation.faces.read_rgb(evaluation.chosen[surest], MISTAKE_SIZE)
    captions = [f'{truth[i]}\n{answers[i]} {confidence[i]:.0%}' for i in surest]
    return draw_mistakes(list(pictures), captions)


def _page(title: str, content: dict[str, Any], scores: Scores, pictures: Sequence[str]) -> str:
    notes = [
        f'{content["faces"]} faces, {content["backend"]} on {content["device"]}, model '
        f'{content["model"]}, data {content["data"]}.'
    ]
    if content['look'] == 'photo':
        notes.append('Whole pictures: the largest face is found and cut out as the node does.')
    if content['not_judged']:
        notes.append(f'{content["not_judged"]} had no answer, or no face was found: wrong.')
    if content['left_out']:
        names = ', '.join(f'{label} ({n})' for label, n in content['left_out'].items())
        notes.append(f'Left out, because the model has no such class: {names}.')
    if content['skipped']:
        notes.append(f'{len(content["skipped"])} pictures can not be read; scores.json names them.')
    paragraphs = ''.join(f'<p>{html.escape(note)}</p>' for note in notes)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<style>{STYLE}</style><h1>{html.escape(title)}</h1>'
        f'<p class="numbers">accuracy <b>{scores.accuracy:.2%}</b>, balanced accuracy '
        f'<b>{scores.balanced_accuracy:.2%}</b>, calibration error '
        f'<b>{scores.calibration_error:.3f}</b></p>{paragraphs}{_table(content["per_class"])}'
        f'{"".join(pictures)}</html>\n'
    )


def _table(per_class: dict[str, dict[str, float | None]]) -> str:
    rows = ['<tr><th>class</th><th>precision</th><th>recall</th><th>F1</th><th>faces</th></tr>']
    for label, row in per_class.items():
        cells = [percent(row[name]) for name in ('precision', 'recall', 'f1')]
        cells = [html.escape(label), *cells, str(row['faces'])]
        rows.append(f'<tr>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>')
    return f'<table>{"".join(rows)}</table>'


def percent(value: float | None) -> str:
    """A part of 1 as text; a dash for None."""
    return '-' if value is None else f'{value:.1%}'


def _figure_html(png: bytes, caption: str) -> str:
    data = base64.b64encode(png).decode()
    return (
        f'<figure><img src="data:image/png;base64,{data}" alt="{html.escape(caption)}">'
        f'<figcaption>{html.escape(caption)}</figcaption></figure>'
    )


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
