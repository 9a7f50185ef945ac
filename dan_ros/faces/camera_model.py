"""Calibrated cameras, as sensor_msgs/CameraInfo describes them; without ROS."""

import posixpath
from dataclasses import dataclass
from typing import Any

import numpy as np

INFO_TOPIC = 'camera_info'
RECTIFIED = 'rect'  # in the last part of an image topic's name: image_rect, image_rect_color
ASPECT_TOLERANCE = 0.02
DISTORTION_LENGTHS = (0, 4, 5, 8, 12, 14)  # that OpenCV knows
FISHEYE_MODELS = ('equidistant', 'fisheye')
FISHEYE_LENGTHS = (0, 4)


@dataclass(frozen=True)
class Camera:
    """A calibrated camera.

    Attributes:
        matrix: float64 [3, 3], intrinsics in pixels of an image of `size`.
        distortion: float64 [n], coefficients in OpenCV's order; [0] for none.
        distortion_model: as in sensor_msgs/CameraInfo, such as plumb_bob or equidistant.
        size: (width, height) in pixels.
    """

    matrix: np.ndarray
    distortion: np.ndarray
    distortion_model: str
    size: tuple[int, int]

    @property
    def is_fisheye(self) -> bool:
        """Whether the distortion is that of a fisheye lens."""
        return self.distortion_model in FISHEYE_MODELS

    def scaled_to(self, size: tuple[int, int]) -> 'Camera | None':
        """The same camera for an image reduced to `size`; None if that has other proportions."""
        if size == self.size:
            return self
        x, y = size[0] / self.size[0], size[1] / self.size[1]
        if abs(x / y - 1) > ASPECT_TOLERANCE:
            return None
        return Camera(
            np.diag([x, y, 1.0]) @ self.matrix, self.distortion, self.distortion_model, size
        )


def info_topic(camera: str) -> str:
    """Where the calibration of a camera comes, beside its images, as image transport has it.

    >>> info_topic('/eye/image_raw')
    '/eye/camera_info'
    """
    return posixpath.join(posixpath.dirname(camera), INFO_TOPIC)


def info_to_camera(info: Any, camera: str) -> Camera | None:
    """The camera a message describes; None if it is not calibrated, or the message is not sound.

    Args:
        info: has the fields of sensor_msgs/CameraInfo. K and D hold for raw images, P for
            rectified ones; binning and region of interest are those of the images.
        camera: name of the image topic; images of one called image_rect are rectified.
    """
    is_rectified = RECTIFIED in posixpath.basename(camera)
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
