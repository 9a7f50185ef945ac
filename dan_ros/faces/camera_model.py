# SPDX-License-Identifier: Apache-2.0
"""Camera calibrations, as described by sensor_msgs/CameraInfo, without ROS."""

import math
import posixpath
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

INFO_TOPIC = 'camera_info'
RECTIFIED = {'rect', 'rectified'}  # words in names of rectified topics, as in image_rect_color
ASPECT_TOLERANCE = 0.02  # relative change of the aspect ratio due to rounded sizes
DISTORTION_LENGTHS = (0, 4, 5, 8, 12, 14)  # supported by OpenCV
ASSUMED_FOV_DEG = 60.0  # angle of view across the longer side of an uncalibrated image
FISHEYE_MODELS = ('equidistant', 'fisheye')
FISHEYE_LENGTHS = (0, 4)


@dataclass(frozen=True)
class Camera:
    """A calibrated camera."""

    matrix: np.ndarray  # float64 [3, 3], intrinsics for an image of `size`, pixels
    distortion: np.ndarray  # float64 [n], coefficients in OpenCV's order; empty for none
    distortion_model: str  # as in sensor_msgs/CameraInfo, such as plumb_bob or equidistant
    size: tuple[int, int]  # (width, height), pixels

    @property
    def is_fisheye(self) -> bool:
        """Whether the distortion model describes a fisheye lens."""
        return self.distortion_model in FISHEYE_MODELS

    def scaled_to(self, size: tuple[int, int]) -> 'Camera | None':
        """Return the calibration for images scaled to `size`; None if the aspect ratio differs."""
        if size == self.size:
            return self
        x, y = size[0] / self.size[0], size[1] / self.size[1]
        if abs(x / y - 1) > ASPECT_TOLERANCE:
            return None
        return Camera(
            np.diag([x, y, 1.0]) @ self.matrix, self.distortion, self.distortion_model, size
        )


def describe_problem(topic: str, camera: Camera | None, size: tuple[int, int] = (0, 0)) -> str:
    """Describe why a calibration gives no poses; '' if it fits.

    Args:
        topic: name of the image topic.
        camera: see `info_to_camera`.
        size: (width, height) of the images, pixels; not needed without a camera.
    """
    if camera is None:
        return (
            f'the camera_info of {topic} has no valid calibration (zeros, invalid numbers, or a '
            'distortion of unknown length): its faces get no pose'
        )
    if camera.scaled_to(size) is None:
        width, height = camera.size
        return (
            f'the camera_info of {topic} is for {width}x{height}, its images are '
            f'{size[0]}x{size[1]}: the aspect ratios differ, so its faces get no pose'
        )
    return ''


@lru_cache(maxsize=8)
def assumed_camera(size: tuple[int, int]) -> Camera:
    """Return a camera without distortion and with an angle of view of 60 degrees.

    It is used instead of an unknown calibration where only directions matter. `size` is (width,
    height), pixels.
    """
    width, height = size
    focal_px = max(size) / 2 / math.tan(math.radians(ASSUMED_FOV_DEG / 2))
    matrix = np.array([[focal_px, 0, width / 2], [0, focal_px, height / 2], [0, 0, 1]])
    return Camera(matrix, np.zeros(0), 'plumb_bob', size)


def info_topic(camera: str) -> str:
    """Return a camera's calibration topic, following the convention of image_transport.

    >>> info_topic('/eye/image_raw')
    '/eye/camera_info'
    """
    return posixpath.join(posixpath.dirname(camera), INFO_TOPIC)


def info_to_camera(info: Any, camera: str) -> Camera | None:
    """Convert a message to a camera; None if it is invalid or describes no calibration.

    Args:
        info: sensor_msgs/CameraInfo, or an object with the same fields. K and D apply to raw
            images, P applies to rectified ones.
        camera: name of the image topic, which shows whether the images are rectified.
    """
    is_rectified = not RECTIFIED.isdisjoint(posixpath.basename(camera).split('_'))
    matrix = np.array(info.p, float).reshape(3, 4)[:, :3] if is_rectified else np.array(info.k)
    matrix = matrix.astype(float).reshape(3, 3).copy()
    distortion = np.zeros(0) if is_rectified else np.array(info.d, float)
    size = np.array([info.roi.width or info.width, info.roi.height or info.height], float)
    binning = np.maximum([info.binning_x, info.binning_y], 1)
    matrix[:2, 2] -= (info.roi.x_offset, info.roi.y_offset)
    matrix[:2] /= binning[:, None]
    size = size // binning
    numbers = np.concatenate([matrix.ravel(), distortion])
    if not np.isfinite(numbers).all() or min(matrix[0, 0], matrix[1, 1], *size) <= 0:
        return None
    camera_found = Camera(matrix, distortion, info.distortion_model, (int(size[0]), int(size[1])))
    lengths = FISHEYE_LENGTHS if camera_found.is_fisheye else DISTORTION_LENGTHS
    return camera_found if len(distortion) in lengths else None
