# SPDX-License-Identifier: Apache-2.0
"""Estimates where heads point, relative to the camera, from their landmarks."""

from collections.abc import Sequence

import numpy as np

from dan_ros.faces.camera_model import Camera, assumed_camera
from dan_ros.faces.head_pose import FACE_POINTS, MAX_ERROR, undistort
from dan_ros.images.opencv import cv2

EYES = float(FACE_POINTS[1, 1] - FACE_POINTS[0, 1])  # interpupillary distance, meters
MAX_SKEW = 0.6  # of the fit: 0 for a rotation, 1 for points on a line
# Fits an affine map from the face to the image; it ignores the mean of the image points.
INVERSE = np.linalg.pinv(FACE_POINTS - FACE_POINTS.mean(axis=0)).T  # [5, 3]


def head_directions(
    landmarks: Sequence[np.ndarray], camera: Camera | None, size: tuple[int, int]
) -> np.ndarray:
    """Estimate the forward direction of each head, seen along the ray from the camera to it.

    The result does not depend on the distance, so it needs no calibration: without one, a plain
    lens is assumed, see `assumed_camera`. All faces of an image are solved at once with one step of
    POSIT (DeMenthon and Davis 1995, "Model-based object pose in 25 lines of code"), which takes a
    tenth of the time of `solve_pose`.

    Args:
        landmarks: [5, 2] or [0, 2] per face, pixels.
        camera: calibration; None if unknown.
        size: (width, height) of the image, pixels.

    Returns:
        float64 [n, 3], unit vectors out of the faces: x right in the image, y down, z away from the
        camera along the ray between the eyes, so that (0, 0, -1) faces the camera. NaN for a face
        without landmarks, or whose landmarks do not fit a face in front of the camera.
    """
    directions = np.full((len(landmarks), 3), np.nan)
    present = [i for i, points in enumerate(landmarks) if len(points)]
    if not present:
        return directions
    points = np.concatenate([landmarks[i] for i in present]).astype(np.float64)
    lens = (camera and camera.scaled_to(size)) or assumed_camera(size)
    try:
        rays = undistort(points, lens).reshape(-1, 5, 2)
    except cv2.error:  # a distortion without an inverse
        return directions
    with np.errstate(all='ignore'):  # invalid landmarks give NaN
        directions[present] = _solve(_turn_to_axis(rays[..., 0] + 1j * rays[..., 1]))
    return directions


def angle_to_camera(direction: np.ndarray) -> float:
    """Return the angle between the direction of a head and the line to the camera, degrees.

    >>> angle_to_camera(np.array([0.5, 0.0, -0.5]))
    45.0
    """
    x, y, z = direction.tolist()
    return float(np.degrees(np.arctan2(np.hypot(x, y), -z)))


def _turn_to_axis(rays: np.ndarray) -> np.ndarray:
    """Turn the camera so that its axis goes between the eyes.

    Args:
        rays: complex [n, 5], x + i y in the plane z = 1.

    Returns:
        The same in the plane z = 1 of the turned camera.
    """
    center = (rays[:, :1] + rays[:, 1:2]) / 2
    length = np.sqrt(1 + np.abs(center) ** 2)
    along = (center.conj() * rays).real
    turned: np.ndarray = length * rays - center * (along / (length + 1) + 1)
    return np.asarray(turned / (along + 1))


def _solve(image: np.ndarray) -> np.ndarray:
    """Return the directions [n, 3] of faces whose landmarks are complex [n, 5], x + i y."""
    _, scale, axis = _fit(image)
    depth = 1 + scale * (axis @ FACE_POINTS.T)  # [n, 5], relative to that of the eyes
    corrected = image * depth  # without the effect of perspective
    across, scale, axis = _fit(corrected)
    forward = across[:, 0] / scale[:, 0]
    directions = np.stack([forward.real, forward.imag, axis[:, 0]], axis=1)
    error = corrected - across @ FACE_POINTS.T
    error -= error.mean(axis=1, keepdims=True)
    skew = np.abs((across**2).sum(axis=1)) / (2 * scale[:, 0] ** 2)
    is_close = (np.abs(error) <= MAX_ERROR * EYES * scale).all(axis=1)
    is_fit = is_close & (skew <= MAX_SKEW) & (axis[:, 0] < 0)
    directions[~is_fit] = np.nan
    unit: np.ndarray = directions / np.sqrt((directions**2).sum(axis=1, keepdims=True))
    return unit


def _fit(image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fit a scaled orthographic projection.

    Args:
        image: complex [n, 5], x + i y.

    Returns:
        The image's axes in the face frame, times the scale, complex [n, 3]; the scale [n, 1]; and
        the axis away from the camera in the face frame, [n, 3].
    """
    across = image @ INVERSE
    scale = np.sqrt((np.abs(across) ** 2).sum(axis=1, keepdims=True) / 2)
    axis = (across[:, (1, 2, 0)].conj() * across[:, (2, 0, 1)]).imag / scale**2
    return across, scale, axis
