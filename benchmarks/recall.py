# SPDX-License-Identifier: Apache-2.0
"""Compares the faces found with `detector.interval` above 1 with those of full-frame detection.

    python3 benchmarks/recall.py PHOTO... [--interval 10] [--json recall.json]

Each photo becomes two videos of 640x480 with sensor noise: the camera pans over it, or it stands
still while one face after the other appears. Both searches see the same images. Use photos with
many faces of all sizes. Takes about 10 seconds per photo.
"""

import itertools
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import click
import numpy as np
from against_baseline import add_noise
from rich.console import Console
from rich.table import Table

from dan_ros.detect import open_detector
from dan_ros.faces.boxes import is_same_place
from dan_ros.faces.quality import QualityThresholds
from dan_ros.images.files import open_picture
from dan_ros.images.opencv import cv2
from dan_ros.images.resize import resize
from dan_ros.pipeline import ExpressionPipeline
from dan_ros.tracking.face_tracker import TrackedFace
from dan_ros.types import Frame
from dan_ros.video_pipeline import StampedFrame, VideoConfig, VideoPipeline

WIDTH, HEIGHT = 640, 480
ZOOMS = (1.0, 2.0)  # pixels of the video per pixel of the photo, whose longer side is 640 pixels
IMAGES = 60  # per video
PAN_PX = 4  # motion of the camera between two images
APPEAR_EVERY = 3  # images between the appearances of two faces
HIDDEN_SCALE = 2.0  # side of the blurred square that hides a face, relative to its box
PERIOD_NS = 33_333_333
SIZES_PX = (24, 40, 64, 1000)  # upper limits of the groups of faces, by the longer side of the box
CAMERA = '/camera'
NEVER = IMAGES
NOT_CLASSIFIED = QualityThresholds(min_side_px=1e9)


@dataclass
class Group:
    """Faces of similar size.

    Attributes:
        delays: per face, images until it is found; `NEVER` if it is not found.
        seen: number of times that full-frame detection finds a face of the group.
        found: how many of them the search in parts finds in the same image.
    """

    delays: list[int] = field(default_factory=list)
    seen: int = 0
    found: int = 0

    def late(self, images: int) -> int:
        """Return how many faces are found more than this number of images late."""
        return sum(delay > images for delay in self.delays)


def pan(photo: np.ndarray) -> Iterator[np.ndarray]:
    """Move the camera over the photo on a diagonal, back and forth."""
    free = np.maximum(np.array(photo.shape[1::-1]) - (WIDTH, HEIGHT), 0)
    for index in range(IMAGES):
        left, top = (triangle(PAN_PX * index, int(limit)) for limit in free)
        yield fit(photo[top : top + HEIGHT, left : left + WIDTH])


def triangle(position: int, limit: int) -> int:
    """Reflect a position at 0 and at the limit."""
    if limit == 0:
        return 0
    folded = position % (2 * limit)
    return min(folded, 2 * limit - folded)


def appear(photo: np.ndarray) -> Iterator[np.ndarray]:
    """Keep the camera still; show one face after the other."""
    whole = fit(photo[:HEIGHT, :WIDTH])
    blurred = cv2.GaussianBlur(whole, (0, 0), 25)
    faces = open_detector('yunet').detect(whole)
    order = np.random.default_rng(0).permutation(len(faces))
    for index in range(IMAGES):
        image = whole.copy()
        for face in order[index // APPEAR_EVERY :]:
            box = faces[face].box_xyxy
            centre, half = (box[:2] + box[2:]) / 2, HIDDEN_SCALE * (box[2:] - box[:2]).max() / 2
            left, top = np.maximum(centre - half, 0).astype(int)
            right, bottom = (centre + half).astype(int)
            image[top:bottom, left:right] = blurred[top:bottom, left:right]
        yield image


def fit(image: np.ndarray) -> np.ndarray:
    """Add a black border up to the size of the video."""
    height, width = image.shape[:2]
    below, right = HEIGHT - height, WIDTH - width
    return cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_CONSTANT)


def compare(
    video: Iterator[np.ndarray], full: VideoPipeline, parts: VideoPipeline
) -> dict[int, Group]:
    """Run both searches on a video; return the groups by the upper limit of their sizes."""
    groups: dict[int, Group] = defaultdict(Group)
    first: dict[str, int] = {}  # image in which full-frame detection first found a face
    waiting: dict[str, Group] = {}  # faces that the search in parts has not found yet
    for index, image in enumerate(video):
        stamped = {CAMERA: StampedFrame(Frame(add_noise(image)), index * PERIOD_NS)}
        expected = full.run(stamped)[CAMERA]
        boxes = [face.detection.box_xyxy for face in parts.run(stamped)[CAMERA]]
        for face in expected:
            group = groups[size_limit(face)]
            is_found = any(is_same_place(face.detection.box_xyxy, box) for box in boxes)
            group.seen += 1
            group.found += is_found
            if first.setdefault(face.face_id, index) == index:
                waiting[face.face_id] = group
            if is_found and face.face_id in waiting:
                waiting.pop(face.face_id).delays.append(index - first[face.face_id])
    for group in waiting.values():
        group.delays.append(NEVER)
    return groups


def size_limit(face: TrackedFace) -> int:
    """Return the upper limit of the group of a face."""
    box = face.detection.box_xyxy
    return next(limit for limit in SIZES_PX if (box[2:] - box[:2]).max() < limit)


def open_video(interval: int) -> VideoPipeline:
    """Return a pipeline that finds faces, but does not classify them."""
    pipeline = ExpressionPipeline.open(detector='yunet', quality=NOT_CLASSIFIED)
    return VideoPipeline(pipeline, VideoConfig(interval, pipeline=pipeline.config))


@click.command()
@click.argument('photos', nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option('--interval', default=10, show_default=True, type=click.IntRange(2, 100))
@click.option('--json', 'output', type=click.Path(path_type=Path), help='File for the numbers.')
def main(photos: tuple[Path, ...], interval: int, output: Path | None) -> None:
    """Show how late faces are found by size, for a moving and for a still camera."""
    table = Table('camera', 'side of the face, px', box=None)
    for title in ('faces', '1 image late', 'later', 'latest, images', 'found in the same image'):
        table.add_column(title, justify='right')
    report = []
    full, parts = open_video(1), open_video(interval)
    for make_video in (pan, appear):
        total: dict[int, Group] = defaultdict(Group)
        for path, zoom in itertools.product(photos, ZOOMS):
            photo = open_picture(path)
            scale = zoom * WIDTH / max(photo.shape[:2])
            size = [round(side * scale) for side in photo.shape[1::-1]]
            for search in (full, parts):
                search.reset()
            for limit, group in compare(make_video(resize(photo, *size)), full, parts).items():
                total[limit].delays += group.delays
                total[limit].seen += group.seen
                total[limit].found += group.found
        for low, limit in zip((0, *SIZES_PX), SIZES_PX, strict=False):
            group = total[limit]
            if not group.seen:
                continue
            late, later = group.late(0) - group.late(1), group.late(1)
            share = group.found / group.seen
            side = f'{low} to {limit}' if limit < SIZES_PX[-1] else f'from {low}'
            numbers = (len(group.delays), late, later, max(group.delays, default=0))
            table.add_row(make_video.__name__, side, *map(str, numbers), f'{share:.1%}')
            report.append([make_video.__name__, low, limit, *numbers, share])
    Console().print(table)
    if output:
        output.write_text(json.dumps(report, indent=1) + '\n')


if __name__ == '__main__':
    main()
