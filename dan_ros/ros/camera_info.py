"""Calibrations of the cameras, as they come on camera_info topics."""

import posixpath
from collections.abc import Callable
from typing import Any

import numpy as np
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo

from dan_ros.pose import Camera

TOPIC = 'camera_info'
RECTIFIED = 'rect'  # in the last part of an image topic's name: image_rect, image_rect_color


def subscribe_to_camera_info(
    node: Node, camera: str, is_only: bool, on_camera: Callable[[Camera | None], None]
) -> Any:
    """Subscribe to the calibration of a camera.

    It comes beside the images, as image transport has it: /eye/image_raw has /eye/camera_info.
    With a single camera `camera_info` can be remapped as well.

    Args:
        node: subscribes.
        camera: resolved name of the image topic.
        is_only: whether there is one camera alone.
        on_camera: called with each calibration; None for a camera that is not calibrated.
    """
    beside = posixpath.join(posixpath.dirname(camera), TOPIC)
    remapped = node.resolve_topic_name(TOPIC)
    is_remapped = remapped != posixpath.join(node.get_namespace(), TOPIC)
    is_rectified = RECTIFIED in posixpath.basename(camera)
    return node.create_subscription(
        CameraInfo,
        remapped if is_only and is_remapped else beside,
        lambda message: on_camera(info_to_camera(message, is_rectified)),
        QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT),
    )


def info_to_camera(info: CameraInfo, is_rectified: bool) -> Camera | None:
    """The camera a message describes; None if it is not calibrated, or the message is not sound.

    Args:
        info: K and D hold for raw images, P for rectified ones; binning and region of interest are
            those of the images.
        is_rectified: which of the two the images are.
    """
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
    if len(distortion) not in (0, 4, 5, 8, 12, 14):
        return None
    return Camera(matrix, distortion, info.distortion_model, (int(size[0]), int(size[1])))
