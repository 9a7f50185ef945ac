"""How the bundled model holds up on camera images: faces in scenes, through the whole pipeline.

    python3 benchmarks/robustness.py DATA [--faces 800] [--out FOLDER]
    python3 benchmarks/robustness.py DATA --faces 600 --interval 5

DATA holds FER+ (see `dan_ros.datasets.ferplus`). Each validation face is set, tinted
like skin and in a random place, into a colour image with a textured background. The image is
changed as cameras and light do, then the node's pipeline finds the face, cuts it out and judges it.
Faces that are not found count as wrong.

With `--interval N` each scene moves by 4 pixels from image to image instead. What the node says of
the images between two whole looks (`detector.interval: N`) is compared with what it says of the
same images when it looks through each as a whole.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click
import cv2
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from dan_ros import labels
from dan_ros.cli.common import progress_bar
from dan_ros.datasets.catalog import open_faces
from dan_ros.datasets.faces import VALID
from dan_ros.evaluate.metrics import measure
from dan_ros.faces.quality import ACCEPT_ALL
from dan_ros.labels import logits_to_probabilities
from dan_ros.model import store
from dan_ros.pipeline import ExpressionPipeline
from dan_ros.types import Frame
from dan_ros.video_pipeline import StampedFrame, VideoConfig, VideoPipeline

SCENE_SIZE = (480, 640)  # height, width
STEP_PX = 4  # by which scenes move between two images
FRAME_NS = 33_000_000
SKINS_BGR = ((180, 200, 235), (140, 170, 215), (95, 125, 175), (60, 80, 120))


@dataclass(frozen=True)
class Condition:
    """One way to look at a face.

    Attributes:
        name: for people.
        side: of the face in the image, pixels.
        turn_deg: largest rotation of the face in the image plane.
        change: of the whole image.
    """

    name: str
    side: int = 160
    turn_deg: float = 0.0
    change: Callable[[np.ndarray, np.random.Generator], np.ndarray] = lambda image, rng: image


def blur(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Out of focus by 3 pixels."""
    return cv2.GaussianBlur(image, (0, 0), 3)


def darken(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A quarter of the light, and the noise that comes with it."""
    dark = 0.25 * image.astype(np.float32) + rng.normal(0, 5, image.shape)
    return dark.clip(0, 255).astype(np.uint8)


def warm(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Lamp light: much red, little blue."""
    return (image * np.float32([0.55, 0.85, 1.15])).clip(0, 255).astype(np.uint8)


def shade(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Light from one side of the image."""
    slope = np.linspace(0.3, 1.5, image.shape[1], dtype=np.float32)[None, :, None]
    slope = slope[:, :: rng.choice([-1, 1])]
    return (image * slope).clip(0, 255).astype(np.uint8)


def compress(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """JPEG of quality 25."""
    _, content = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, 25])
    return cv2.imdecode(content, cv2.IMREAD_COLOR)


def to_grey(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """As a camera without colour sees it."""
    return cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)


CONDITIONS = (
    Condition('plain'),
    Condition('grey', change=to_grey),
    Condition('80 px face', side=80),
    Condition('48 px face', side=48),
    Condition('turned by up to 20 degrees', turn_deg=20),
    Condition('out of focus, 3 px', change=blur),
    Condition('a quarter of the light', change=darken),
    Condition('light from the side', change=shade),
    Condition('lamp light', change=warm),
    Condition('JPEG of quality 25', change=compress),
)


def make_scene(
    face: np.ndarray, side: int, turn_deg: float, rng: np.random.Generator
) -> np.ndarray:
    """A colour image with one face in it.

    Args:
        face: uint8 [h, h], grey.
        side: side of the face in the image, pixels.
        turn_deg: rotation of the face in the image plane.
        rng: decides background, place and colour.

    Returns:
        uint8 [480, 640, 3], BGR.
    """
    height, width = SCENE_SIZE
    coarse = rng.integers(60, 200, (6, 8, 3)).astype(np.float32)
    scene = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    scene += rng.normal(0, 6, scene.shape)
    large = cv2.resize(face, (side, side), interpolation=cv2.INTER_CUBIC).astype(np.float32)
    skin = np.float32(SKINS_BGR[rng.integers(len(SKINS_BGR))])
    coloured = large[..., None] * (skin / skin.mean())  # [side, side, 3]
    place = cv2.getRotationMatrix2D((side / 2, side / 2), turn_deg, 1.0)
    place[:, 2] += rng.integers([width - side, height - side])
    mask = cv2.warpAffine(np.ones((side, side), np.float32), place, (width, height))
    mask = cv2.GaussianBlur(mask, (0, 0), 1.5)[..., None]
    placed = cv2.warpAffine(coloured, place, (width, height), borderMode=cv2.BORDER_REPLICATE)
    return (mask * placed + (1 - mask) * scene).clip(0, 255).astype(np.uint8)


def judge(pipeline: ExpressionPipeline, pictures: np.ndarray, condition: Condition) -> np.ndarray:
    """Probabilities of the largest face of each scene, float32 [N, 8]; zeros where none is found.

    Args:
        pipeline: of the node.
        pictures: uint8 [N, h, h], grey faces.
        condition: what the scenes are like.
    """
    rows = np.zeros((len(pictures), len(labels.CANONICAL)), np.float32)
    for index, (row, picture) in enumerate(zip(rows, pictures, strict=True)):
        rng = np.random.default_rng(index)  # the same place and skin in every condition
        turn_deg = rng.uniform(-1, 1) * condition.turn_deg
        scene = make_scene(picture, condition.side, turn_deg, rng)
        (found,) = pipeline.run([Frame(condition.change(scene, rng))])
        if found:
            row[:] = found[0].probabilities
    return rows


def judge_between(
    pipeline: ExpressionPipeline, pictures: np.ndarray, interval: int, follows: bool
) -> np.ndarray:
    """Probabilities of the largest face of every image between two whole looks.

    Args:
        pipeline: of the node.
        pictures: uint8 [N, h, h], grey faces.
        interval: of the whole looks, in images.
        follows: look for faces where they were; False looks through every image as a whole.

    Returns:
        float32 [N, interval - 1, 8]; zeros where no face is found.
    """
    rows = np.zeros((len(pictures), interval - 1, len(labels.CANONICAL)), np.float32)
    for index, picture in enumerate(pictures):
        rng = np.random.default_rng(index)
        scene = make_scene(picture, CONDITIONS[0].side, 0.0, rng)
        config = VideoConfig(interval if follows else 1, pipeline.config)
        video = VideoPipeline(pipeline, config)
        for step in range(interval):
            image = np.roll(scene, STEP_PX * step, axis=1)
            stamped = StampedFrame(Frame(image), step * FRAME_NS)
            faces = video.run({'/camera': stamped})['/camera']
            if step and faces:
                rows[index, step - 1] = faces[0].raw.probabilities
    return rows


def measure_interval(
    pipeline: ExpressionPipeline, pictures: np.ndarray, truth: np.ndarray, interval: int
) -> dict[str, float]:
    """How far the answers of both looks agree, and how good each is, [0, 1]."""
    whole, near = (
        judge_between(pipeline, pictures, interval, follows).reshape(-1, len(labels.CANONICAL))
        for follows in (False, True)
    )
    truth = np.repeat(truth, interval - 1)
    both = whole.any(axis=1) & near.any(axis=1)
    same = both & (whole.argmax(axis=1) == near.argmax(axis=1))
    return {
        'interval': interval,
        'images': len(truth),
        'same_answer': float(same.sum() / max(both.sum(), 1)),
        **{f'whole_{key}': value for key, value in summarise(whole, truth).items()},
        **{f'near_{key}': value for key, value in summarise(near, truth).items()},
    }


@click.command()
@click.argument('data', type=click.Path(path_type=Path))
@click.option('--faces', 'count', default=800, show_default=True, type=click.IntRange(1))
@click.option('--model', default=store.DEFAULT_MODEL, show_default=True)
@click.option('--out', type=click.Path(path_type=Path), default='robustness', show_default=True)
@click.option('--interval', default=0, type=click.IntRange(0, 100), help='Measure this alone.')
def main(data: Path, count: int, model: str, out: Path, interval: int) -> None:
    """Measure the bundled model on scenes made of FER+'s validation faces in DATA."""
    faces = open_faces('ferplus', data, VALID)
    chosen = np.random.default_rng(0).permutation(len(faces))[:count]
    pictures = faces.read(chosen, 48)[..., 0]  # uint8 [N, 48, 48]
    names = [faces.labels[index] for index in faces.classes[chosen]]
    truth = np.array([labels.CANONICAL.index(name) for name in names])
    pipeline = ExpressionPipeline.open(model, detector='yunet', quality=ACCEPT_ALL)
    if interval > 1:
        click.echo(json.dumps(measure_interval(pipeline, pictures, truth, interval), indent=1))
        return
    backend = pipeline.backend
    framed = faces.read_rgb(chosen, backend.model.input_size[0])
    answers = {
        'as FER+ frames it': logits_to_probabilities(backend.infer(framed), backend.model.labels)
    }
    with progress_bar() as bar:
        for condition in bar.track(CONDITIONS, description='conditions'):
            answers[condition.name] = judge(pipeline, pictures, condition)
    report = {name: summarise(rows, truth) for name, rows in answers.items()}
    out.mkdir(parents=True, exist_ok=True)
    content = {'model': backend.model_name, 'faces': len(chosen), 'conditions': report}
    (out / 'robustness.json').write_text(json.dumps(content, indent=1) + '\n')
    draw(report, len(chosen)).savefig(out / 'robustness.png')
    show(report)
    click.echo(f'{len(chosen)} faces, {backend.model_name}; picture and numbers: {out}')


def summarise(rows: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Part of the faces that are found, and that are found and judged right, [0, 1]."""
    scores = measure(rows, truth, labels.CANONICAL)
    return {'found': float(rows.any(axis=1).mean()), 'accuracy': scores.accuracy}


def draw(report: dict[str, dict[str, float]], count: int) -> Figure:
    """A bar a condition: found in grey, right in blue."""
    figure = Figure(figsize=(7, 0.42 * len(report) + 1.2), dpi=130, layout='constrained')
    axes = figure.add_subplot()
    places = np.arange(len(report))[::-1]
    for key, colour, word in (('found', '#cccccc', 'found'), ('accuracy', '#2a6fbb', 'right')):
        values = [100 * entry[key] for entry in report.values()]
        axes.barh(places, values, color=colour, label=word)
    for place, entry in zip(places, report.values(), strict=True):
        axes.text(1, place, f'{100 * entry["accuracy"]:.1f}', va='center', color='white')
    axes.set_yticks(places, list(report))
    axes.set(xlim=(0, 100), xlabel=f'percent of {count} faces')
    axes.spines[['top', 'right']].set_visible(False)
    axes.legend(frameon=False, ncols=2, loc='lower right', bbox_to_anchor=(1, 1))
    return figure


def show(report: dict[str, dict[str, float]]) -> None:
    """The numbers as a table."""
    table = Table('condition', box=None)
    for name in ('found', 'right'):
        table.add_column(name, justify='right')
    for name, entry in report.items():
        table.add_row(name, f'{entry["found"]:.1%}', f'{entry["accuracy"]:.1%}')
    Console().print(table)


if __name__ == '__main__':
    main()
