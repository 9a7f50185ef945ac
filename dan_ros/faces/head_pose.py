# SPDX-License-Identifier: Apache-2.0
"""Estimates the position and orientation of a face from its landmarks."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from dan_ros.faces.camera_model import Camera
from dan_ros.images.opencv import cv2

# Right eye, left eye, nose tip, right and left mouth corner of an average adult, meters, in the
# face frame of REP-155 (https://www.ros.org/reps/rep-0155.html): origin between the eyes, x out of
# the face, y to the person's left, z up. The interpupillary distance is 63 mm (Dodgson 2004,
# "Variation and extrema of human interpupillary distance"); the rest has average proportions.
FACE_POINTS = np.array(
    [
        [0.000, -0.0315, 0.000],
        [0.000, 0.0315, 0.000],
        [0.030, 0.0000, -0.036],
        [0.004, -0.0260, -0.072],
        [0.004, 0.0260, -0.072],
    ]
)
# Plausible sizes of a face, relative to `FACE_POINTS`: interpupillary distances of 28 to 95 mm.
# People have 40 (infants) to 78 mm (Dodgson 2004); the margin allows for measurement errors.
MIN_SIZE, MAX_SIZE = 0.45, 1.5
MIN_DEPTHS = 2  # landmarks whose depth must be known
MAX_ERROR = 0.15  # reprojection error of a landmark, as a fraction of the interpupillary distance


@dataclass(frozen=True)
class HeadPose:
    """Pose of a face in the camera's optical frame.

    Attributes:
        position: float64 [3], of the point between the eyes, meters; x right, y down, z forward.
        quaternion_xyzw: float64 [4], rotation from the face frame (x out of the face, z up) to the
            optical frame.
    """

    position: np.ndarray
    quaternion_xyzw: np.ndarray

    @property
    def rotation(self) -> np.ndarray:
        """The rotation as a matrix, float64 [3, 3]; its first column is the forward direction."""
        x, y, z, w = self.quaternion_xyzw.tolist()
        return np.array(
            [
                [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
                [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
                [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
            ]
        )


def solve_pose(landmarks: np.ndarray, camera: Camera) -> HeadPose | None:
    """Estimate the pose of a face, assuming an average size.

    Faces with an interpupillary distance below 63 mm, such as children's, appear proportionally
    farther away. For adults, the error of the distance is a few percent.

    Args:
        landmarks: [5, 2] as in `Face`, pixels, or [0, 2].
        camera: calibration for the image.

    Returns:
        The pose; None if there are no landmarks, or they do not fit a face in front of the camera.
    """
    if len(landmarks) == 0:
        return None
    try:
        rays = undistort(np.asarray(landmarks, np.float64), camera)  # [5, 2], at z = 1
        solution = _solve(rays) if np.isfinite(rays).all() else None
    except cv2.error:  # coincident or collinear points
        return None
    if solution is None or not _fits(*solution, rays):
        return None
    rotation, position = solution
    return HeadPose(position, vector_to_quaternion(rotation))


def pose_with_depth(pose: HeadPose, depths_m: np.ndarray) -> HeadPose | None:
    """Move a pose to the measured distance, without assuming the size of the face.

    An image does not determine the scale: a face of twice the size at twice the distance looks the
    same. The ratio of measured to assumed depth at the landmarks is the scale of the position.

    Args:
        pose: pose for a face of average size, from `solve_pose`.
        depths_m: [5], distance of each landmark along the optical axis, meters; NaN if unknown.

    Returns:
        None if fewer than two depths are known, or if the size is not that of a human face, because
        the depths belong to the background, for example, or to a picture of a face.

    >>> pose = HeadPose(np.array([0.0, 0.0, 2.0]), np.array([0.5, 0.5, -0.5, 0.5]))
    >>> pose_with_depth(pose, np.full(5, 1.2)).position.round(2).tolist()
    [0.0, 0.0, 1.2]
    """
    expected_m = FACE_POINTS @ pose.rotation[2] + pose.position[2]
    is_known = np.isfinite(depths_m) & (expected_m > 0)
    if is_known.sum() < MIN_DEPTHS:
        return None
    # The median ignores landmarks beside the face or with a wrong depth.
    size = float(np.median(depths_m[is_known] / expected_m[is_known]))
    if not MIN_SIZE <= size <= MAX_SIZE:
        return None
    return HeadPose(pose.position * size, pose.quaternion_xyzw)


def solve_poses(
    landmarks: Iterable[np.ndarray], camera: Camera | None, size: tuple[int, int]
) -> list[HeadPose | None]:
    """Estimate the poses of all faces of an image.

    Args:
        landmarks: [5, 2] or [0, 2] per face, pixels.
        camera: calibration; None if unknown.
        size: (width, height) of the image, pixels.

    Returns:
        One pose per face; None if it cannot be estimated.
    """
    scaled = camera and camera.scaled_to(size)
    return [solve_pose(points, scaled) if scaled else None for points in landmarks]


def _solve(rays: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the rotation vector and position, [3] each, that project `FACE_POINTS` to `rays`."""
    found, rotation, position = cv2.solvePnP(
        FACE_POINTS, rays, np.eye(3), None, flags=cv2.SOLVEPNP_SQPNP
    )
    if not found:
        return None
    rotation, position = cv2.solvePnPRefineLM(
        FACE_POINTS, rays, np.eye(3), None, rotation, position
    )
    return rotation.ravel(), position.ravel()


def _fits(rotation: np.ndarray, position: np.ndarray, rays: np.ndarray) -> bool:
    """Return whether a solution is in front of the camera and projects close to `rays`."""
    if not np.isfinite(position).all() or position[2] <= 0:
        return False
    expected = cv2.projectPoints(FACE_POINTS, rotation, position, np.eye(3), None)[0][:, 0]
    # The interpupillary distance of a frontal face at this depth, in the same plane as `rays`.
    eyes = (FACE_POINTS[1] - FACE_POINTS[0])[1] / position[2]
    return bool(np.hypot(*(expected - rays).T).max() <= MAX_ERROR * eyes)


def vector_to_quaternion(vector: np.ndarray) -> np.ndarray:
    """Convert a rotation vector [3], radians, to a unit quaternion x, y, z, w with w >= 0.

    >>> vector_to_quaternion(np.array([np.pi / 2, 0, 0])).round(3).tolist()
    [0.707, 0.0, 0.0, 0.707]
    """
    half = float(np.linalg.norm(vector)) / 2
    axis = np.sinc(half / np.pi) / 2 * vector  # sin(half) / (2 * half) * vector
    quaternion = np.array([*axis, np.cos(half)])
    return quaternion if quaternion[3] >= 0 else -quaternion


def undistort(points: np.ndarray, camera: Camera) -> np.ndarray:
    """Convert pixels [n, 2] to undistorted points in the plane z = 1, [n, 2]."""
    undistort = cv2.fisheye.undistortPoints if camera.is_fisheye else cv2.undistortPoints
    distortion = camera.distortion if len(camera.distortion) else np.zeros(4)
    rays: np.ndarray = undistort(points[:, None], camera.matrix, distortion)[:, 0]
    return rays
