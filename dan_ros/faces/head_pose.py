"""Where a face is in space and which way it looks, from its landmarks and a calibrated camera."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from dan_ros.faces.camera_model import Camera
from dan_ros.images.opencv import cv2

# Right eye, left eye, nose tip, right and left mouth corner of an average adult in the frame of
# REP-155 (https://www.ros.org/reps/rep-0155.html): origin between the eyes, x forward out of the
# face, y to the person's left, z up; metres. The eyes are 63 mm apart (Dodgson 2004, "Variation
# and extrema of human interpupillary distance"); the rest has the proportions of average faces.
FACE_POINTS = np.array(
    [
        [0.000, -0.0315, 0.000],
        [0.000, 0.0315, 0.000],
        [0.030, 0.0000, -0.036],
        [0.004, -0.0260, -0.072],
        [0.004, 0.0260, -0.072],
    ]
)
MAX_ERROR = 0.15  # of the landmarks against the solution, over the distance of the eyes


@dataclass(frozen=True)
class HeadPose:
    """Position and orientation of a face in the camera's optical frame.

    Attributes:
        position: float64 [3], of the point between the eyes, metres; x right, y down, z away.
        quaternion_xyzw: float64 [4], turns the face's frame (x out of the face, z up) into the
            camera's.
    """

    position: np.ndarray
    quaternion_xyzw: np.ndarray


def solve_pose(landmarks: np.ndarray, camera: Camera) -> HeadPose | None:
    """Find the pose of a face of average size that has its landmarks where they are.

    A child, or anybody with eyes closer together than 63 mm, seems as much farther away: the error
    of the distance is a few percent for adults.

    Args:
        landmarks: [5, 2] as in `Face`, pixels; [0, 2] gives None.
        camera: that took the image.

    Returns:
        The pose; None where the landmarks fit no face in front of the camera.
    """
    if len(landmarks) == 0:
        return None
    try:
        rays = _undistort(np.asarray(landmarks, np.float64), camera)  # [5, 2], at z = 1
        solution = _solve(rays) if np.isfinite(rays).all() else None
    except cv2.error:  # points in one place, or on a line
        return None
    if solution is None or not _fits(*solution, rays):
        return None
    rotation, position = solution
    return HeadPose(position, matrix_to_quaternion(cv2.Rodrigues(rotation)[0]))


def solve_poses(
    landmarks: Iterable[np.ndarray], camera: Camera | None, size: tuple[int, int]
) -> list[HeadPose | None]:
    """Poses of the faces of an image of `size` (width, height); None each without a calibration."""
    scaled = camera and camera.scaled_to(size)
    return [solve_pose(points, scaled) if scaled else None for points in landmarks]


def _solve(rays: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Rotation vector and position, [3] each, that bring `FACE_POINTS` nearest to `rays`."""
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
    """Whether a solution is in front of the camera and has its landmarks near `rays`."""
    if not np.isfinite(position).all() or position[2] <= 0:
        return False
    expected = cv2.projectPoints(FACE_POINTS, rotation, position, np.eye(3), None)[0][:, 0]
    # Frontal, the eyes would be so far apart in these rays.
    eyes = (FACE_POINTS[1] - FACE_POINTS[0])[1] / position[2]
    return bool(np.hypot(*(expected - rays).T).max() <= MAX_ERROR * eyes)


def matrix_to_quaternion(matrix: np.ndarray) -> np.ndarray:
    """Unit quaternion x, y, z, w of a rotation matrix [3, 3], w >= 0.

    >>> matrix_to_quaternion(np.diag([1.0, -1.0, -1.0])).tolist()
    [1.0, 0.0, 0.0, 0.0]
    """
    # The eigenvector of this symmetric matrix (Bar-Itzhack 2000) is stable for every rotation.
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = matrix
    k = np.array(
        [
            [xx - yy - zz, yx + xy, zx + xz, zy - yz],
            [yx + xy, yy - xx - zz, zy + yz, xz - zx],
            [zx + xz, zy + yz, zz - xx - yy, yx - xy],
            [zy - yz, xz - zx, yx - xy, xx + yy + zz],
        ]
    )
    quaternion: np.ndarray = np.linalg.eigh(k / 3)[1][:, -1]
    largest = quaternion[3] if abs(quaternion[3]) > 1e-9 else quaternion[:3].sum()
    return quaternion * (1.0 if largest >= 0 else -1.0) + 0.0


def _undistort(points: np.ndarray, camera: Camera) -> np.ndarray:
    """Pixels [n, 2] -> the same points of an ideal camera with focal length 1, [n, 2]."""
    undistort = cv2.fisheye.undistortPoints if camera.is_fisheye else cv2.undistortPoints
    distortion = camera.distortion if len(camera.distortion) else np.zeros(4)
    rays: np.ndarray = undistort(points[:, None], camera.matrix, distortion)[:, 0]
    return rays
