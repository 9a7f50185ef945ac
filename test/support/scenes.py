# SPDX-License-Identifier: Apache-2.0
"""Scripted scenes for the tracker: faces that move, cross and hide, with their true boxes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from scipy.optimize import linear_sum_assignment

SIZE = (480, 640)  # height, width, pixels
SECOND = 1_000_000_000
MIN_OVERLAP = 0.5  # intersection over union of a detected and a true box, for a match


@dataclass(frozen=True)
class Actor:
    """A face with a scripted path.

    Attributes:
        path: maps the time in seconds to the center (x, y), pixels.
        side: side of its square picture, pixels.
        hidden: intervals (from, to) in which it is invisible, seconds.
    """

    path: Callable[[float], tuple[float, float]]
    side: int = 110
    hidden: Sequence[tuple[float, float]] = field(default=())

    def is_hidden(self, time_s: float) -> bool:
        return any(start <= time_s < end for start, end in self.hidden)

    def box(self, time_s: float) -> np.ndarray:
        x, y = self.path(time_s)
        half = self.side / 2
        return np.array([x - half, y - half, x + half, y + half], np.float32)


def line(start: tuple[float, float], end: tuple[float, float], seconds: float):
    """Path with constant speed."""
    return lambda t: tuple(
        a + (b - a) * min(max(t / seconds, 0), 1) for a, b in zip(start, end, strict=True)
    )


def sway(centre: tuple[float, float], reach: float, period_s: float):
    """Path of people who stand and talk: they sway from side to side."""
    return lambda t: (centre[0] + reach * np.sin(2 * np.pi * t / period_s), centre[1])


SCENES = {
    'walk': [Actor(line((90, 240), (550, 240), 3))],
    'sway': [
        Actor(sway((160, 240), 60, 1.5)),
        Actor(sway((330, 200), 40, 1.1), side=90),
        Actor(sway((520, 250), 50, 2.0)),
    ],
    'cross': [
        Actor(line((100, 230), (540, 230), 3)),
        Actor(line((540, 250), (100, 250), 3), side=100),
    ],
    'hidden while standing': [
        Actor(sway((200, 240), 10, 2.0), hidden=[(1.0, 1.5)]),
        Actor(sway((430, 240), 10, 1.7)),
    ],
    'hidden while walking': [Actor(line((90, 240), (550, 240), 3), hidden=[(1.0, 1.5)])],
    'cross and hide': [
        Actor(line((100, 240), (540, 240), 3), hidden=[(1.25, 1.75)]),
        Actor(line((540, 240), (100, 240), 3)),
    ],
    'four at a table': [
        Actor(sway((90, 200), 15, 1.3), side=90, hidden=[(0.8, 1.3)]),
        Actor(sway((240, 260), 20, 1.9), side=90),
        Actor(sway((400, 220), 15, 1.1), side=90, hidden=[(2.0, 2.4)]),
        Actor(sway((550, 250), 20, 1.5), side=90),
    ],
}


def visible(actors: Sequence[Actor], time_s: float) -> dict[int, np.ndarray]:
    """Boxes of the visible actors; one that is more than half behind a later actor is hidden."""
    boxes: dict[int, np.ndarray] = {}
    for number, actor in enumerate(actors):
        if actor.is_hidden(time_s):
            continue
        box = actor.box(time_s)
        for other in list(boxes):
            if covered(boxes[other], box) > 0.5:
                del boxes[other]
        boxes[number] = box
    return boxes


def render(
    actors: Sequence[Actor], pictures: Sequence[np.ndarray], time_s: float, seed: int = 0
) -> np.ndarray:
    """Draw the image, uint8 [480, 640, 3], BGR; later actors stand in front."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(60, 200, (6, 8, 3)).astype(np.float32)
    image = cv2.resize(coarse, SIZE[::-1], interpolation=cv2.INTER_CUBIC)
    image = (image + rng.normal(0, 6, image.shape)).clip(0, 255).astype(np.uint8)
    for actor, picture in zip(actors, pictures, strict=False):
        if not actor.is_hidden(time_s):
            left, top = (round(float(value)) for value in actor.box(time_s)[:2])
            side = actor.side
            image[top : top + side, left : left + side] = cv2.resize(picture, (side, side))
    return image


def covered(box: np.ndarray, by: np.ndarray) -> float:
    """Fraction of a box that another box covers."""
    return shared_area(box, by) / float((box[2] - box[0]) * (box[3] - box[1]))


def shared_area(a: np.ndarray, b: np.ndarray) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return float(max(width, 0) * max(height, 0))


def intersection_over_union(a: np.ndarray, b: np.ndarray) -> float:
    areas = sum(float((box[2] - box[0]) * (box[3] - box[1])) for box in (a, b))
    return shared_area(a, b) / (areas - shared_area(a, b))


class IdScore:
    """Computes IDF1 (Ristani et al. 2016, https://arxiv.org/abs/1609.01775, section 4)."""

    def __init__(self) -> None:
        self._both: dict[tuple[int, str], int] = {}
        self._true = self._found = 0

    def add(self, truth: dict[int, np.ndarray], found: Sequence[tuple[str, np.ndarray]]) -> None:
        """Add a frame: the true boxes by actor, and the detected boxes with their ids."""
        self._true += len(truth)
        self._found += len(found)
        for number, box in truth.items():
            for face_id, other in found:
                if intersection_over_union(box, other) >= MIN_OVERLAP:
                    pair = (number, face_id)
                    self._both[pair] = self._both.get(pair, 0) + 1

    @property
    def idf1(self) -> float:
        """2 IDTP / (true + found), with the best one-to-one assignment of ids to actors."""
        actors = sorted({number for number, _ in self._both})
        ids = sorted({face_id for _, face_id in self._both})
        table = np.array([[self._both.get((a, i), 0) for i in ids] for a in actors])
        rows, columns = linear_sum_assignment(-table)
        return 2 * table[rows, columns].sum() / (self._true + self._found)
