# SPDX-License-Identifier: Apache-2.0
"""Accuracy of a model by data set, and by the size, light, blur and turn of faces.

    python3 benchmarks/accuracy.py DATA [--model NAME]... [--set raf=FOLDER:rafdb]... [--out docs]

DATA contains FER+ (see `dan_ros.datasets.ferplus`). The script

* evaluates each model on the validation faces of FER+, and on each `--set`, as `dan-ros evaluate`
  does;
* places validation faces in color images of 640x480 pixels (see `robustness.py`), makes them
  smaller, darker, blurred or turned in steps, and runs the pipeline of the node on them. A face
  that is not found counts as wrong.

It prints two tables in Markdown, and writes `accuracy.json` and `accuracy.png`. One model and 150
faces take about two minutes on two cores.
"""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np
from accuracy_plots import draw_series
from robustness import Condition, blur, darken, make_scene, summarize

from dan_ros import labels
from dan_ros.backends import open_backend
from dan_ros.cli.common import progress_bar
from dan_ros.datasets.catalog import guess_dataset, open_faces
from dan_ros.datasets.faces import VALID, Faces
from dan_ros.evaluate.evaluator import evaluate, predict_crops
from dan_ros.faces.quality import ACCEPT_ALL
from dan_ros.model import store
from dan_ros.pipeline import ExpressionPipeline
from dan_ros.plots.style import encode
from dan_ros.types import Frame

SIDE_PX = 160  # side of a face that is not made smaller


PLAIN = Condition('plain', side=SIDE_PX)
# Conditions per varied property; its values are the ticks of the figure's axes.
SERIES: dict[str, dict[float, Condition]] = {
    'size of the face, px': {
        SIDE_PX: PLAIN,
        **{side: Condition('size', side=side) for side in (96, 64, 48, 32, 24)},
    },
    'light, share': {
        1.0: PLAIN,
        **{
            share: Condition('light', SIDE_PX, 0, darken(share)) for share in (0.5, 0.25, 0.1, 0.05)
        },
    },
    'blur, sigma in px of a face of 160 px': {
        0.0: PLAIN,
        **{sigma: Condition('blur', SIDE_PX, 0, blur(sigma)) for sigma in (2, 4, 6, 8)},
    },
    'turn in the image plane, degrees at most': {
        0.0: PLAIN,
        **{angle: Condition('turn', SIDE_PX, angle) for angle in (15, 30, 45, 60)},
    },
}

CONDITIONS = tuple(dict.fromkeys(one for series in SERIES.values() for one in series.values()))
CHUNK = 8  # number of faces whose scenes are in memory at a time


@dataclass(frozen=True)
class Row:
    """Scores of a model on a data set, in [0, 1]; `neutral` is the recall of neutral faces."""

    model: str
    data: str
    faces: int
    accuracy: float
    balanced: float
    neutral: float
    confidence_error: float


def score(model: str, name: str, faces: Faces) -> Row:
    """Evaluate a model on the faces as the data set crops them."""
    backend = open_backend('auto', model)
    scores = evaluate(faces, backend.model.labels, predict_crops(faces, backend)).scores
    recall = dict(zip(scores.labels, scores.recall, strict=True))
    return Row(
        Path(model).stem,
        name,
        int(scores.faces.sum()),
        scores.accuracy,
        scores.balanced_accuracy,
        float(recall.get('neutral', np.nan)),
        scores.calibration_error,
    )


def open_set(text: str) -> tuple[str, Faces]:
    """Open `name=folder` or `name=folder:dataset`."""
    name, _, rest = text.partition('=')
    folder, _, dataset = rest.partition(':')
    if not rest:
        raise click.BadParameter(f'{text} is not name=folder or name=folder:dataset')
    dataset = dataset or guess_dataset(Path(folder), labels.CANONICAL)
    return name, open_faces(dataset, Path(folder), VALID)


def make_images(face: np.ndarray, index: int) -> dict[Condition, np.ndarray]:
    """Show a face, uint8 [h, h], under each condition: BGR images."""
    scenes: dict[tuple[int, float], np.ndarray] = {}
    images = {}
    for condition in CONDITIONS:
        rng = np.random.default_rng(index)  # same position and skin in all conditions
        rotation_deg = rng.uniform(-1, 1) * condition.max_rotation_deg
        key = (condition.side, rotation_deg)
        if key not in scenes:
            scenes[key] = make_scene(face, condition.side, rotation_deg, rng)
        images[condition] = condition.change(scenes[key], np.random.default_rng(index))
    return images


def vary(pipeline: ExpressionPipeline, faces: np.ndarray, truth: np.ndarray) -> dict[str, dict]:
    """Return the shares of found and of correct faces by condition."""
    rows = {one: np.zeros((len(faces), len(labels.CANONICAL)), np.float32) for one in CONDITIONS}
    with ThreadPoolExecutor() as threads, progress_bar() as bar:
        for start in bar.track(range(0, len(faces), CHUNK), description='scenes'):
            indices = range(start, min(start + CHUNK, len(faces)))
            made = list(threads.map(lambda index: make_images(faces[index], index), indices))
            for index, images in zip(indices, made, strict=True):
                for condition, image in images.items():
                    (found,) = pipeline.run([Frame(image)])
                    if found:
                        rows[condition][index] = found[0].probabilities
    return {
        series: {value: summarize(rows[one], truth) for value, one in conditions.items()}
        for series, conditions in SERIES.items()
    }


def table_of_rows(rows: list[Row]) -> str:
    """Return the scores as a Markdown table, in percent."""
    lines = [
        '| model | data | faces | accuracy | balanced | neutral recall | calibration error |',
        '|---|---|---|---|---|---|---|',
    ]
    for row in rows:
        percent = (f'{100 * v:.1f}' for v in (row.accuracy, row.balanced, row.neutral))
        lines.append(
            f'| `{row.model}` | {row.data} | {row.faces} | {" | ".join(percent)} | '
            f'{row.confidence_error:.3f} |'
        )
    return '\n'.join(lines)


def table_of_conditions(varied: dict[str, dict]) -> str:
    """Return the shares by condition as a Markdown table, in percent."""
    lines = ['| varied | found / correct, % |', '|---|---|']
    for series, values in varied.items():
        cells = [
            f'{value:g}: {100 * v["found"]:.0f} / {100 * v["accuracy"]:.0f}'
            for value, v in values.items()
        ]
        lines.append(f'| {series} | {" · ".join(cells)} |')
    return '\n'.join(lines)


@click.command()
@click.argument('data', type=click.Path(path_type=Path))
@click.option('--model', 'models', multiple=True, default=(store.INT8_MODEL,), show_default=True)
@click.option('--set', 'sets', multiple=True, help='A further data set: name=folder[:dataset].')
@click.option('--faces', 'count', default=150, show_default=True, type=click.IntRange(1))
@click.option('--out', type=click.Path(path_type=Path), default='accuracy', show_default=True)
def main(data: Path, models: tuple[str, ...], sets: tuple[str, ...], count: int, out: Path) -> None:
    """Measure the accuracy of models; the last one is also measured in scenes."""
    ferplus = open_faces('ferplus', data, VALID)
    opened = [('FER+ validation', ferplus), *map(open_set, sets)]
    rows = [score(model, name, faces) for name, faces in opened for model in models]
    click.echo(table_of_rows(rows))
    chosen = np.random.default_rng(0).permutation(len(ferplus))[:count]
    names = [ferplus.labels[index] for index in ferplus.classes[chosen]]
    truth = np.array([labels.CANONICAL.index(name) for name in names])
    pipeline = ExpressionPipeline.open(models[-1], detector='yunet', quality=ACCEPT_ALL)
    varied = vary(pipeline, ferplus.read(chosen, 48)[..., 0], truth)
    click.echo(table_of_conditions(varied))
    out.mkdir(parents=True, exist_ok=True)
    content = {
        'data_sets': [asdict(row) for row in rows],
        'scenes': {'model': Path(models[-1]).stem, 'faces': len(chosen), 'conditions': varied},
    }
    (out / 'accuracy.json').write_text(json.dumps(content, indent=1) + '\n')
    title = f'{Path(models[-1]).stem}, {len(chosen)} validation faces of FER+ in scenes'
    (out / 'accuracy.png').write_bytes(encode(draw_series(varied, title)))


if __name__ == '__main__':
    main()
