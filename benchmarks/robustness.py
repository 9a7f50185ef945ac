# SPDX-License-Identifier: Apache-2.0
"""Accuracy of the bundled model on camera images, measured through the whole pipeline.

    python3 benchmarks/robustness.py DATA [--faces 800] [--out FOLDER]
    python3 benchmarks/robustness.py DATA --faces 600 --interval 5

DATA contains FER+ (see `dan_ros.datasets.ferplus`). Each validation face is tinted like skin and
placed at random in a color image with a textured background. The image is degraded as by a bad
camera or bad light, then the pipeline finds and classifies the face. Faces that are not found count
as wrong.

With `--interval N` each scene moves by 4 pixels per image instead, and the script compares
`detector.interval: N` with full-frame detection on every image.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click
import cv2
import numpy as np
from accuracy_plots import draw_conditions

from dan_ros import labels
from dan_ros.bench.pipelines import PERIOD_NS
from dan_ros.bench.scenes import STEP_PX, make_background
from dan_ros.cli.common import progress_bar
from dan_ros.datasets.catalog import open_faces
from dan_ros.datasets.faces import VALID
from dan_ros.evaluate.metrics import measure
from dan_ros.faces.quality import ACCEPT_ALL
from dan_ros.model import store
from dan_ros.pipeline import ExpressionPipeline
from dan_ros.plots.style import encode
from dan_ros.probabilities import Calibrator
from dan_ros.types import Frame
from dan_ros.video_pipeline import StampedFrame, VideoConfig, VideoPipeline

WIDTH, HEIGHT = 640, 480  # size of the scenes, pixels
DARK_NOISE = 5.0  # standard deviation of the noise in low light, for pixels in 0 .. 255
SKINS_BGR = ((180, 200, 235), (140, 170, 215), (95, 125, 175), (60, 80, 120))
CLASSES = len(labels.CANONICAL)

Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]  # BGR image -> BGR image


@dataclass(frozen=True)
class Condition:
    """How faces are shown.

    Attributes:
        name: name in the report.
        side: side of the face, pixels.
        max_rotation_deg: largest in-plane rotation of the face.
        change: degradation of the image.
    """

    name: str
    side: int = 160
    max_rotation_deg: float = 0.0
    change: Change = lambda image, rng: image


def scale(image: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Multiply an image by factors that broadcast to [H, W, 3]."""
    return (image * factors).clip(0, 255).astype(np.uint8)


def darken(share: float) -> Change:
    """Return a change that keeps a share of the light and adds a camera's noise in low light."""

    def change(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        dark = share * image.astype(np.float32) + rng.normal(0, DARK_NOISE, image.shape)
        return dark.clip(0, 255).astype(np.uint8)

    return change


def blur(sigma_px: float) -> Change:
    """Return a change that blurs an image like a camera out of focus."""
    return lambda image, _: cv2.GaussianBlur(image, (0, 0), sigma_px)


def light_from_side(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Light the image from its left or right side."""
    slope = np.linspace(0.3, 1.5, image.shape[1], dtype=np.float32)[None, :, None]
    return scale(image, slope[:, :: rng.choice([-1, 1])])


def compress(image: np.ndarray, _: np.random.Generator) -> np.ndarray:
    """Compress as JPEG of quality 25."""
    _, content = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, 25])
    return cv2.imdecode(content, cv2.IMREAD_COLOR)


def to_gray(image: np.ndarray, _: np.random.Generator) -> np.ndarray:
    """Remove the color."""
    return cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)


CONDITIONS = (
    Condition('plain'),
    Condition('gray', change=to_gray),
    Condition('80 px face', side=80),
    Condition('48 px face', side=48),
    Condition('rotated by up to 20 degrees', max_rotation_deg=20),
    Condition('out of focus, 3 px', change=blur(3)),
    Condition('a quarter of the light', change=darken(0.25)),
    Condition('light from the side', change=light_from_side),
    Condition('lamp light', change=lambda image, _: scale(image, np.float32([0.55, 0.85, 1.15]))),
    Condition('JPEG of quality 25', change=compress),
)


def make_scene(
    face: np.ndarray, side: int, rotation_deg: float, rng: np.random.Generator
) -> np.ndarray:
    """Place a face in a color image.

    Args:
        face: uint8 [h, h], gray.
        side: side of the face in the image, pixels.
        rotation_deg: in-plane rotation of the face.
        rng: chooses background, position and skin color.

    Returns:
        uint8 [480, 640, 3], BGR.
    """
    background = make_background(WIDTH, HEIGHT, rng)
    background += rng.normal(0, 6, background.shape)
    large = cv2.resize(face, (side, side), interpolation=cv2.INTER_CUBIC).astype(np.float32)
    skin = np.float32(SKINS_BGR[rng.integers(len(SKINS_BGR))])
    tinted = large[..., None] * (skin / skin.mean())  # [side, side, 3]
    matrix = cv2.getRotationMatrix2D((side / 2, side / 2), rotation_deg, 1.0)
    matrix[:, 2] += rng.integers([WIDTH - side, HEIGHT - side])
    mask = cv2.warpAffine(np.ones((side, side), np.float32), matrix, (WIDTH, HEIGHT))
    mask = cv2.GaussianBlur(mask, (0, 0), 1.5)[..., None]
    placed = cv2.warpAffine(tinted, matrix, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REPLICATE)
    return (mask * placed + (1 - mask) * background).clip(0, 255).astype(np.uint8)


def classify_scenes(
    pipeline: ExpressionPipeline, faces: np.ndarray, condition: Condition
) -> np.ndarray:
    """Classify the largest face of each scene, made of faces, uint8 [N, h, h], gray.

    Returns:
        Probabilities, float32 [N, 8]; zeros where no face is found.
    """
    rows = np.zeros((len(faces), CLASSES), np.float32)
    for index, face in enumerate(faces):
        rng = np.random.default_rng(index)  # same position and skin in all conditions
        rotation_deg = rng.uniform(-1, 1) * condition.max_rotation_deg
        scene = make_scene(face, condition.side, rotation_deg, rng)
        (found,) = pipeline.run([Frame(condition.change(scene, rng))])
        if found:
            rows[index] = found[0].probabilities
    return rows


def classify_moving_scenes(
    pipeline: ExpressionPipeline, faces: np.ndarray, images: int, interval: int
) -> np.ndarray:
    """Classify the largest face in each image of the moving scenes, except the first one.

    Args:
        pipeline, faces: see `classify_scenes`.
        images: number of images per scene.
        interval: `detector.interval`.

    Returns:
        Probabilities, float32 [N * (images - 1), 8]; zeros where no face is found.
    """
    rows = np.zeros((len(faces), images - 1, CLASSES), np.float32)
    for index, face in enumerate(faces):
        scene = make_scene(face, CONDITIONS[0].side, 0.0, np.random.default_rng(index))
        video = VideoPipeline(pipeline, VideoConfig(interval, pipeline=pipeline.config))
        for step in range(images):
            frame = Frame(np.roll(scene, STEP_PX * step, axis=1))
            found = video.run({'/camera': StampedFrame(frame, step * PERIOD_NS)})['/camera']
            if step and found:
                rows[index, step - 1] = found[0].raw.probabilities
    return rows.reshape(-1, CLASSES)


def compare_interval(
    pipeline: ExpressionPipeline, faces: np.ndarray, truth: np.ndarray, interval: int
) -> dict[str, float]:
    """Compare `detector.interval` with full-frame detection; shares are in [0, 1]."""
    classify = partial(classify_moving_scenes, pipeline, faces, interval)
    full, near = classify(1), classify(interval)
    truth = np.repeat(truth, interval - 1)
    both = full.any(axis=1) & near.any(axis=1)
    same = both & (full.argmax(axis=1) == near.argmax(axis=1))
    return {
        'interval': interval,
        'images': len(truth),
        'same_answer': float(same.sum() / max(both.sum(), 1)),
        **{f'full_frame_{key}': value for key, value in summarize(full, truth).items()},
        **{f'interval_{key}': value for key, value in summarize(near, truth).items()},
    }


def summarize(rows: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Return the shares of faces that are found and that are classified correctly, [0, 1]."""
    scores = measure(rows, truth, labels.CANONICAL)
    return {'found': float(rows.any(axis=1).mean()), 'accuracy': scores.accuracy}


@click.command()
@click.argument('data', type=click.Path(path_type=Path))
@click.option('--faces', 'count', default=800, show_default=True, type=click.IntRange(1))
@click.option('--model', default=store.DEFAULT_MODEL, show_default=True)
@click.option('--out', type=click.Path(path_type=Path), default='robustness', show_default=True)
@click.option(
    '--interval', default=0, type=click.IntRange(0, 100), help='Compare only this interval.'
)
def main(data: Path, count: int, model: str, out: Path, interval: int) -> None:
    """Measure the accuracy on scenes with the FER+ validation faces in DATA."""
    dataset = open_faces('ferplus', data, VALID)
    chosen = np.random.default_rng(0).permutation(len(dataset))[:count]
    faces = dataset.read(chosen, 48)[..., 0]  # uint8 [N, 48, 48]
    names = [dataset.labels[index] for index in dataset.classes[chosen]]
    truth = np.array([labels.CANONICAL.index(name) for name in names])
    pipeline = ExpressionPipeline.open(model, detector='yunet', quality=ACCEPT_ALL)
    if interval > 1:
        click.echo(json.dumps(compare_interval(pipeline, faces, truth, interval), indent=1))
        return
    backend = pipeline.backend
    logits = backend.infer(dataset.read_rgb(chosen, backend.model.input_size[0]))
    answers = {'crops of FER+': Calibrator.create(backend.model).probabilities(logits)}
    with progress_bar() as bar:
        for condition in bar.track(CONDITIONS, description='conditions'):
            answers[condition.name] = classify_scenes(pipeline, faces, condition)
    report = {name: summarize(rows, truth) for name, rows in answers.items()}
    content = {'model': backend.model_name, 'faces': len(chosen), 'conditions': report}
    out.mkdir(parents=True, exist_ok=True)
    (out / 'robustness.json').write_text(json.dumps(content, indent=1) + '\n')
    figure = draw_conditions(report, f'percent of {len(chosen)} faces')
    (out / 'robustness.png').write_bytes(encode(figure))
    click.echo(json.dumps(content, indent=1))


if __name__ == '__main__':
    main()
