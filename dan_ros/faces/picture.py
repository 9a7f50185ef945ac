# SPDX-License-Identifier: Apache-2.0
"""Pictures of single faces for display and other programs; the network has its own crop rule.

A picture shows the smallest part of the image with the picture's aspect ratio that contains the
box. It is black outside the image.
"""

import math

import numpy as np

from dan_ros.images.encodings import to_bgr
from dan_ros.images.opencv import cv2
from dan_ros.images.resize import resize
from dan_ros.types import Face, Frame


def cropped_face(frame: Frame, face: Face, size: tuple[int, int]) -> np.ndarray:
    """Cut out a face.

    Args:
        frame: the image.
        face: the face in it.
        size: (width, height) of the picture, pixels.

    Returns:
        uint8 [height, width, 3] BGR.
    """
    return resize(_cut(frame, _center(face), _extent(face, size)), *size)


def aligned_face(frame: Frame, face: Face, size: tuple[int, int]) -> np.ndarray | None:
    """Cut out a face, rotated so that the eyes are level and the right eye is on the left.

    Args: see `cropped_face`.

    Returns:
        uint8 [height, width, 3] BGR; None if the positions of the eyes are unknown.
    """
    angle = eye_angle(face)
    if angle is None:
        return None
    width, height = _extent(face, size)
    reach = math.ceil(math.hypot(width, height))  # no corner is missing at any angle
    square = _cut(frame, _center(face), (reach, reach))
    middle = (reach - 1) / 2
    turn = np.array(cv2.getRotationMatrix2D((middle, middle), math.degrees(angle), 1.0), np.float64)
    turn[:, 2] -= (reach - width) / 2, (reach - height) / 2
    return resize(cv2.warpAffine(square, turn, (width, height)), *size)


def eye_angle(face: Face) -> float | None:
    """Return the angle by which a face is tilted in the image.

    Returns:
        Radians; positive if the person's left eye is lower in the image, pi for an image upside
        down. None if there are no landmarks, or both eyes are at one point.
    """
    if len(face.landmarks) == 0:
        return None
    x, y = (face.landmarks[1] - face.landmarks[0]).tolist()
    return math.atan2(y, x) if math.hypot(x, y) > 0 else None


def _center(face: Face) -> tuple[float, float]:
    left, top, right, bottom = face.box_xyxy.tolist()
    return (left + right) / 2, (top + bottom) / 2


def _extent(face: Face, size: tuple[int, int]) -> tuple[int, int]:
    """Return width and height of the part of the image that the picture shows, pixels."""
    left, top, right, bottom = face.box_xyxy.tolist()
    scale = max((right - left) / size[0], (bottom - top) / size[1])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _cut(frame: Frame, center: tuple[float, float], extent: tuple[int, int]) -> np.ndarray:
    """Copy a part of the image, uint8 [height, width, 3] BGR; black outside the image."""
    (columns, rows), (width, height) = extent, frame.size
    left, top = round(center[0] - columns / 2), round(center[1] - rows / 2)
    inside = frame.image[max(top, 0) : top + rows, max(left, 0) : left + columns]
    return cv2.copyMakeBorder(
        to_bgr(np.ascontiguousarray(inside), frame.encoding),
        max(-top, 0),
        max(top + rows - height, 0),
        max(-left, 0),
        max(left + columns - width, 0),
        cv2.BORDER_CONSTANT,
    )
