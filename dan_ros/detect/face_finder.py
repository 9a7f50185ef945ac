# SPDX-License-Identifier: Apache-2.0
"""Finds faces in the full frame, or only around the boxes where they are expected."""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dan_ros.detect import Detector
from dan_ros.faces.boxes import area, is_same_place, overlap
from dan_ros.faces.crop import square_about
from dan_ros.images.encodings import to_bgr
from dan_ros.images.opencv import cv2
from dan_ros.images.resize import resize
from dan_ros.stage_timer import StageTimer
from dan_ros.types import Face, Frame, SearchHint

LOG = logging.getLogger(__name__)

MAX_FACES = 256  # faces per frame; tracking time grows with the square of this
REGION_SCALE = 2.0  # side of the region around a predicted box, relative to the box
REGION_PX = 128  # longer side of the downscaled region, pixels
# Cost of a pixel in a region relative to one in the full frame; small inputs have more overhead.
REGION_COST = 1.5

MIN_PART = 0.5  # smallest share of a known face that a cut-off face must show

REDUCE, DETECT = 'reduce', 'detect'  # stages of the timer

_ROTATIONS = {1: cv2.ROTATE_90_CLOCKWISE, 2: cv2.ROTATE_180, 3: cv2.ROTATE_90_COUNTERCLOCKWISE}


@dataclass(frozen=True)
class FaceFinder:
    """Runs a detector on downscaled, upright copies of a frame or of its regions."""

    detector: Detector  # finds the faces
    max_side_px: int  # longer side of the downscaled copy of a full frame, pixels
    quarter_turns: int  # clockwise quarter turns that make the frame upright, 0 to 3
    timer: StageTimer  # receives the times of `REDUCE` and `DETECT`

    def find(self, frame: Frame, hint: SearchHint) -> list[Face]:
        """Find at most `MAX_FACES` faces, in pixels of the frame, the largest first.

        Only parts of the frame are searched if `hint` names them, the expected faces are in them,
        and this is cheaper than searching the full frame.
        """
        faces = self._find_in_parts(frame, hint)
        where = 'the full frame' if faces is None else 'parts'
        if faces is None:
            whole = self._copy(frame, (0, 0, *frame.size), self.max_side_px)
            faces = self._detect(whole, self.detector.detect)
        expected = len(hint.predicted_boxes)
        LOG.debug('searched %s: found %d, expected %d', where, len(faces), expected)
        return sorted(faces[:MAX_FACES], key=lambda face: -area(face.box_xyxy))

    def _find_in_parts(self, frame: Frame, hint: SearchHint) -> list[Face] | None:
        """Return the expected faces, or None if the full frame must be searched."""
        expected, changed = hint.predicted_boxes, hint.changed_boxes
        if not expected and changed is None:
            return None
        if not self._regions_are_cheaper(frame, len(expected)):
            return None
        faces = self._find_near_all(frame, expected)
        if faces is None or any(self._has_new_face(frame, box, faces) for box in changed or ()):
            return None
        return faces

    def _regions_are_cheaper(self, frame: Frame, regions: int) -> bool:
        width, height = frame.size
        shrink = min(1.0, self.max_side_px / max(width, height))
        rows, columns = _mosaic_shape(regions)
        return REGION_COST * rows * columns * REGION_PX**2 <= width * height * shrink**2

    def _find_near_all(self, frame: Frame, boxes: Sequence[np.ndarray]) -> list[Face] | None:
        """Return one face per box; None if a box has no face, or two boxes have the same face."""
        regions = [_region_around(box, frame.size) for box in boxes]
        if any(left >= right or top >= bottom for left, top, right, bottom in regions):
            return None
        copies = [self._copy(frame, region, REGION_PX) for region in regions]
        faces: list[Face] = []
        for box, candidates in zip(boxes, self._detect_in_mosaic(copies), strict=True):
            nearest = max(candidates, key=lambda face: overlap(face.box_xyxy, box), default=None)
            if nearest is None or not is_same_place(nearest.box_xyxy, box):
                return None
            if any(is_same_place(nearest.box_xyxy, face.box_xyxy) for face in faces):
                return None
            faces.append(nearest)
        return faces

    def _detect_in_mosaic(self, copies: Sequence['_Copy']) -> list[list[Face]]:
        """Run the detector once on all copies, side by side; return the faces of each."""
        if not copies:
            return []
        rows, columns = _mosaic_shape(len(copies))
        mosaic = np.zeros((rows * REGION_PX, columns * REGION_PX, 3), np.uint8)
        for index, copy in enumerate(copies):
            row, column = divmod(index, columns)
            height, width = copy.image.shape[:2]
            tile = mosaic[row * REGION_PX :, column * REGION_PX :]
            tile[:height, :width] = copy.image
        self.timer.lap(REDUCE)
        found: list[list[Face]] = [[] for _ in copies]
        for face in self.detector.detect(mosaic):
            x, y = (face.box_xyxy[:2] + face.box_xyxy[2:]) / 2 // REGION_PX
            index = int(min(max(y, 0), rows - 1) * columns + min(max(x, 0), columns - 1))
            if index < len(copies):
                row, column = divmod(index, columns)
                in_copy = _translate(face, -column * REGION_PX, -row * REGION_PX)
                found[index].append(copies[index].to_frame(in_copy))
        self.timer.lap(DETECT)
        return found

    def _has_new_face(self, frame: Frame, box_xyxy: np.ndarray, known: Sequence[Face]) -> bool:
        """Return whether a part of the frame contains a face that is not known yet."""
        left, top, right, bottom = (int(side) for side in box_xyxy)
        longer = max(right - left, bottom - top)
        side_px = math.ceil(self.max_side_px * longer / max(frame.size))
        copy = self._copy(frame, (left, top, right, bottom), side_px)
        found = self._detect(copy, self.detector.detect_in_part)
        return any(not any(_may_be_same(face, other) for other in known) for face in found)

    def _copy(self, frame: Frame, part: tuple[int, int, int, int], side_px: int) -> '_Copy':
        """Copy a part of the frame (left, top, right, bottom), reduced to `side_px` and upright."""
        left, top, right, bottom = part
        image = frame.pixels(side_px / max(right - left, bottom - top))
        x, y = np.divide(image.shape[1::-1], frame.size)  # scale, below 1 if the copy is smaller
        rows = slice(round(top * y), max(round(bottom * y), round(top * y) + 1))
        columns = slice(round(left * x), max(round(right * x), round(left * x) + 1))
        reduced = _reduce(image[rows, columns], frame.encoding, side_px)
        turns = self.quarter_turns
        upright = cv2.rotate(reduced, _ROTATIONS[turns]) if turns else reduced
        return _Copy(upright, reduced.shape[:2], turns, part)

    def _detect(self, copy: '_Copy', detect: Callable[[np.ndarray], list[Face]]) -> list[Face]:
        """Find the faces in a copy, in pixels of the frame."""
        self.timer.lap(REDUCE)
        found = detect(copy.image)
        self.timer.lap(DETECT)
        return [copy.to_frame(face) for face in found]


@dataclass(frozen=True)
class _Copy:
    """Reduced, upright copy of a part of a frame."""

    image: np.ndarray  # uint8 [H, W, 3], BGR
    size: tuple[int, int]  # (height, width) before the rotation
    turns: int  # clockwise quarter turns of the rotation
    part: tuple[int, int, int, int]  # left, top, right, bottom, pixels of the frame

    def to_frame(self, face: Face) -> Face:
        """Map a face from pixels of the copy to pixels of the frame."""
        left, top, right, bottom = self.part
        height, width = self.size
        if self.turns or (height, width) != (bottom - top, right - left):
            scale = np.array([(right - left) / width, (bottom - top) / height], np.float32)
            face = _rotate_back(face, self.turns, self.size, scale)
        return _translate(face, left, top) if left or top else face


def _mosaic_shape(count: int) -> tuple[int, int]:
    """Return the rows and columns of a nearly square mosaic."""
    columns = max(1, math.ceil(math.sqrt(count)))
    return math.ceil(count / columns), columns


def _reduce(image: np.ndarray, encoding: str, side_px: int) -> np.ndarray:
    """Return a BGR copy whose longer side is at most `side_px`, or the image itself if it fits."""
    height, width = image.shape[:2]
    shrink = side_px / max(width, height)
    if shrink < 1:
        image = resize(image, max(1, round(width * shrink)), max(1, round(height * shrink)))
    return to_bgr(image, encoding)


def _region_around(box_xyxy: np.ndarray, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return left, top, right, bottom of the region to search, clipped to (width, height)."""
    left, top, side = square_about(box_xyxy, REGION_SCALE)
    width, height = size
    return max(left, 0), max(top, 0), min(left + side, width), min(top + side, height)


def _may_be_same(found: Face, known: Face) -> bool:
    """Return whether a found face, which may be cut off by its region, is a known one."""
    a, b = found.box_xyxy, known.box_xyxy
    if is_same_place(a, b):
        return True
    return min(area(a), area(b)) > MIN_PART * max(area(a), area(b)) and _contains(b, a)


def _contains(outer_xyxy: np.ndarray, inner_xyxy: np.ndarray) -> bool:
    center = (inner_xyxy[:2] + inner_xyxy[2:]) / 2
    return bool((outer_xyxy[:2] < center).all() and (center < outer_xyxy[2:]).all())


def _translate(face: Face, x: float, y: float) -> Face:
    return replace(
        face,
        box_xyxy=face.box_xyxy + np.array([x, y, x, y], np.float32),
        landmarks=face.landmarks + np.array([x, y], np.float32),
    )


def _rotate_back(face: Face, turns: int, size: tuple[int, int], scale: np.ndarray) -> Face:
    """Map a face from the upright reduced copy to pixels of the frame.

    Args:
        face: in pixels of the upright copy.
        turns: clockwise quarter turns from the reduced copy to the upright copy.
        size: (height, width) of the reduced copy before the rotation.
        scale: float [2], frame pixels per pixel of the reduced copy, in x and y.
    """
    if turns == 0:
        return Face(face.box_xyxy * np.tile(scale, 2), face.score, face.landmarks * scale)
    corners = _rotate_points_back(face.box_xyxy.reshape(2, 2), turns, size) * scale
    box = np.concatenate([corners.min(axis=0), corners.max(axis=0)]).astype(np.float32)
    landmarks = _rotate_points_back(face.landmarks, turns, size) * scale
    return Face(box, face.score, landmarks.astype(np.float32))


def _rotate_points_back(points: np.ndarray, turns: int, size: tuple[int, int]) -> np.ndarray:
    height, width = size
    x, y = points[:, 0], points[:, 1]
    rotated = {1: (y, height - x), 2: (width - x, height - y), 3: (width - y, x)}
    return np.stack(rotated[turns], axis=1)
