# SPDX-License-Identifier: Apache-2.0
"""Estimates where heads point, relative to the camera, from their landmarks.

Python numbers are faster than arrays for five points per face. A point x, y of an image
is stored as the complex number x + i y, so a projection along both axes is one product.
"""

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from dan_ros.faces.camera_model import Camera, assumed_camera
from dan_ros.faces.head_pose import FACE_POINTS, MAX_ERROR, undistort
from dan_ros.images.opencv import cv2

Direction: TypeAlias = tuple[float, float, float]

UNKNOWN: Direction = (math.nan, math.nan, math.nan)
EYES = float(FACE_POINTS[1, 1] - FACE_POINTS[0, 1])  # interpupillary distance, meters
MAX_SKEW = 0.6  # largest skew of a fit: 0 for a rotation, 1 for points on a line
POINTS = [tuple(point) for point in FACE_POINTS.tolist()]
CENTER = tuple(FACE_POINTS.mean(axis=0).tolist())
# One row per landmark: the least-squares fit of an affine map from the face to the image, without
# its shift.
INVERSE = [tuple(row) for row in np.linalg.pinv(FACE_POINTS - FACE_POINTS.mean(axis=0)).T.tolist()]


def head_directions(
    landmarks: Sequence[np.ndarray], camera: Camera | None, size: tuple[int, int]
) -> list[Direction]:
    """Estimate the forward direction of each head, seen along the ray from the camera to it.

    The result does not depend on the distance, so it needs no calibration: without one, a lens
    without distortion is assumed, see `assumed_camera`. One step of POSIT (DeMenthon and Davis
    1995, "Model-based object pose in 25 lines of code") is as accurate here as `solve_pose`, and
    far faster.

    Args:
        landmarks: [5, 2] or [0, 2] per face, pixels.
        camera: calibration; None if unknown.
        size: (width, height) of the image, pixels.

    Returns:
        Unit vectors that point out of the faces: x right in the image, y down, z away from the
        camera along the ray between the eyes, so that (0, 0, -1) faces the camera. NaN for a face
        without landmarks, or whose landmarks do not fit a face in front of the camera.
    """
    present = [points for points in landmarks if len(points)]
    if not present:
        return [UNKNOWN] * len(landmarks)
    lens = (camera and camera.scaled_to(size)) or assumed_camera(size)
    try:
        rays = undistort(np.concatenate(present).astype(np.float64), lens).tolist()
    except cv2.error:  # a distortion without an inverse
        return [UNKNOWN] * len(landmarks)
    remaining = iter([complex(x, y) for x, y in rays])
    return [
        _solve([next(remaining) for _ in POINTS]) if len(points) else UNKNOWN
        for points in landmarks
    ]


def angle_to_camera(direction: Sequence[float]) -> float:
    """Return the angle between the direction of a head, [3], and the line to the camera, degrees.

    >>> angle_to_camera([0.5, 0.0, -0.5])
    45.0
    """
    x, y, z = direction
    return math.degrees(math.atan2(math.hypot(x, y), -z))


def _solve(rays: list[complex]) -> Direction:
    """Return the direction of a face whose landmarks are at `rays`, in the plane z = 1."""
    try:
        return _posit(_turn_to_axis(rays))
    except (OverflowError, ZeroDivisionError):  # points far outside the image, or all in one place
        return UNKNOWN


def _turn_to_axis(rays: list[complex]) -> list[complex]:
    """Rotate the camera to point between the eyes; return the rays in that camera."""
    center = (rays[0] + rays[1]) / 2
    length = math.hypot(1, center.real, center.imag)
    turned = []
    for ray in rays:
        along = (center.conjugate() * ray).real
        turned.append((length * ray - center * (along / (length + 1) + 1)) / (along + 1))
    return turned


def _posit(image: list[complex]) -> Direction:
    _, scale, axis = _fit(image)
    # Remove the effect of perspective: each point moves to the depth of the eyes.
    image = [p * (1 + scale * _dot(axis, point)) for p, point in zip(image, POINTS, strict=True)]
    across, scale, axis = _fit(image)
    origin = sum(image) / len(image) - _dot(across, CENTER)
    error = max(
        abs(p - origin - _dot(across, point)) for p, point in zip(image, POINTS, strict=True)
    )
    skew = abs(_dot(across, across)) / (2 * scale**2)
    if not (error <= MAX_ERROR * EYES * scale and skew <= MAX_SKEW and axis[0] < 0):
        return UNKNOWN
    x, y, z = across[0].real / scale, across[0].imag / scale, axis[0]
    length = math.hypot(x, y, z)
    return x / length, y / length, z / length


def _fit(image: list[complex]) -> tuple[tuple[complex, complex, complex], float, Direction]:
    """Fit a scaled orthographic projection.

    Returns:
        The image's axes in the face frame, times the scale; the scale; and the axis away from the
        camera in the face frame.
    """
    a = b = c = 0j
    for p, (x, y, z) in zip(image, INVERSE, strict=True):
        a, b, c = a + p * x, b + p * y, c + p * z
    square = (abs(a) ** 2 + abs(b) ** 2 + abs(c) ** 2) / 2
    axis = (
        (b.conjugate() * c).imag / square,
        (c.conjugate() * a).imag / square,
        (a.conjugate() * b).imag / square,
    )
    return (a, b, c), math.sqrt(square), axis


def _dot(a: Sequence[Any], b: Sequence[Any]) -> Any:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
