# SPDX-License-Identifier: Apache-2.0
"""Finds faces in the full frame, or only around the boxes where they are expected."""

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dan_ros.detect import Detector
from dan_ros.faces.boxes import area, is_same_place, overlap
from dan_ros.faces.crop import square_about
from dan_ros.images.encodings import to_bgr
from dan_ros.images.opencv import cv2
from dan_ros.images.resize import resize
from dan_ros.stage_timer import StageTimer
from dan_ros.types import Face, Frame

LOG = logging.getLogger(__name__)

MAX_FACES = 256  # faces per frame; tracking time grows with the square of this
REGION_SCALE = 2.0  # side of the region around a predicted box, relative to the box
REGION_PX = 128  # longer side of the downscaled region, pixels
# Cost of a region's pixel relative to a pixel of the full frame: small inputs have more overhead.
REGION_COST = 2.5

REDUCE, DETECT = 'reduce', 'detect'  # stages of the timer

_ROTATIONS = {
    1: cv2.ROTATE_90_CLOCKWISE,
    2: cv2.ROTATE_180,
    3: cv2.ROTATE_90_COUNTERCLOCKWISE,
}


class FaceFinder:
    """Runs a detector on downscaled, upright copies of a frame or of its regions.

    Attributes:
        detector: finds the faces.
        max_side_px: longer side of the downscaled copy of a full frame, pixels.
        quarter_turns: clockwise quarter turns that make the frame upright, 0 to 3.
        timer: receives the times of `REDUCE` and `DETECT`.
    """

    def __init__(
        self, detector: Detector, max_side_px: int, quarter_turns: int, timer: StageTimer
    ) -> None:
        self.detector = detector
        self.max_side_px = max_side_px
        self.quarter_turns = quarter_turns
        self.timer = timer

    def find(self, frame: Frame, predicted_boxes: Sequence[np.ndarray] = ()) -> list[Face]:
        """Find at most `MAX_FACES` faces, in pixels of the frame, the largest first.

        Args:
            frame: image to search.
            predicted_boxes: float [4] each, where faces are expected. If every box has a face close
                by, and searching around them is cheaper, the rest of the frame is not searched.
        """
        faces = []
        if self._regions_are_cheaper(frame, len(predicted_boxes)):
            faces = self._find_near_all(frame, predicted_boxes)
        where = 'around the known faces' if faces else 'the full frame'
        if not faces:
            faces = self._find_in_full(frame)
        LOG.debug('searched %s: found %d, expected %d', where, len(faces), len(predicted_boxes))
        return sorted(faces[:MAX_FACES], key=lambda face: -area(face.box_xyxy))

    def _find_in_full(self, frame: Frame) -> list[Face]:
        """Search the full frame, in a smaller copy if one is cheaper."""
        image = frame.pixels(self.max_side_px / max(frame.size))
        faces = self._detect(image, frame.encoding, self.max_side_px)
        if image.shape[1::-1] == frame.size:
            return faces
        scale = np.divide(frame.size, image.shape[1::-1]).astype(np.float32)
        return [_rotate_back(face, 0, image.shape[:2], scale) for face in faces]

    def _regions_are_cheaper(self, frame: Frame, regions: int) -> bool:
        width, height = frame.size
        shrink = min(1.0, self.max_side_px / max(width, height))
        return REGION_COST * regions * REGION_PX**2 <= width * height * shrink**2

    def _find_near_all(self, frame: Frame, boxes: Sequence[np.ndarray]) -> list[Face]:
        """Return one face per box; [] if a box has no face, or two boxes have the same face."""
        faces: list[Face] = []
        for box in boxes:
            face = self._find_near(frame, box)
            if face is None or any(is_same_place(face.box_xyxy, f.box_xyxy) for f in faces):
                return []
            faces.append(face)
        return faces

    def _find_near(self, frame: Frame, box_xyxy: np.ndarray) -> Face | None:
        """Return the face that overlaps a box most, or None if none overlaps it enough."""
        left, top, right, bottom = _region_around(box_xyxy, frame.size)
        if left >= right or top >= bottom:
            return None
        region = frame.image[top:bottom, left:right]
        faces = [
            _translate(face, left, top) for face in self._detect(region, frame.encoding, REGION_PX)
        ]
        nearest = max(faces, key=lambda face: overlap(face.box_xyxy, box_xyxy), default=None)
        if nearest is None or not is_same_place(nearest.box_xyxy, box_xyxy):
            return None
        return nearest

    def _detect(self, image: np.ndarray, encoding: str, side_px: int) -> list[Face]:
        """Run the detector on a copy whose longer side is `side_px`; faces in pixels of `image`."""
        height, width = image.shape[:2]
        small = _reduce(image, encoding, side_px)
        turns = self.quarter_turns
        upright = cv2.rotate(small, _ROTATIONS[turns]) if turns else small
        self.timer.lap(REDUCE)
        faces = self.detector.detect(upright)
        self.timer.lap(DETECT)
        if turns == 0 and small.shape[:2] == (height, width):
            return faces
        scale = np.array([width / small.shape[1], height / small.shape[0]], np.float32)
        return [_rotate_back(face, turns, small.shape[:2], scale) for face in faces]


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
