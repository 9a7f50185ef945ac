"""Calibrations of the cameras, as they come on camera_info topics."""

import posixpath
from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo

from dan_ros.faces.camera_model import INFO_TOPIC, Camera, info_to_camera, info_topic


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
    beside = info_topic(camera)
    remapped = node.resolve_topic_name(INFO_TOPIC)
    is_remapped = remapped != posixpath.join(node.get_namespace(), INFO_TOPIC)
    return node.create_subscription(
        CameraInfo,
        remapped if is_only and is_remapped else beside,
        lambda message: on_camera(info_to_camera(message, camera)),
        QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT),
    )
