"""Faces as frames of TF, where ROS has its messages."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from geometry_msgs.msg import Point, Point32, Pose, Quaternion, Transform, TransformStamped, Vector3
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image, RegionOfInterest
from std_msgs.msg import Header

from dan_ros.faces.head_pose import HeadPose
from dan_ros.messages import MessageClasses
from dan_ros.msg import FacialExpression, FacialExpressionArray

try:
    from tf2_msgs.msg import TFMessage
except ModuleNotFoundError:
    TFMessage = None

TOPIC = '/tf'
DEPTH = 100  # as tf2's own broadcaster has


class FaceTfBroadcaster:
    """Publishes frames `face_<id>` of REP-155; does nothing where tf2_msgs is not installed."""

    def __init__(self, node: Node) -> None:
        self.publisher: Any = None
        if TFMessage is not None:
            self.publisher = node.create_lifecycle_publisher(
                TFMessage, TOPIC, QoSProfile(depth=DEPTH)
            )

    def publish(self, faces: Iterable[tuple[str, HeadPose | None]], header: Header) -> None:
        """Publish the faces of one image that have a pose, by id."""
        transforms = [
            TransformStamped(
                header=header, child_frame_id=f'face_{face_id}', transform=_to_transform(pose)
            )
            for face_id, pose in faces
            if pose is not None
        ]
        if self.publisher is not None and transforms and header.frame_id:
            self.publisher.publish(TFMessage(transforms=transforms))


def _to_transform(pose: HeadPose) -> Transform:
    message = ROS.pose(pose)
    place = message.position
    return Transform(
        translation=Vector3(x=place.x, y=place.y, z=place.z), rotation=message.orientation
    )


ROS = MessageClasses(
    FacialExpression, FacialExpressionArray, Point, Point32, Pose, Quaternion, RegionOfInterest
)


def bgr_to_image(image_bgr: np.ndarray, header: Header) -> Image:
    """Message of a picture, uint8 [H, W, 3] in BGR."""
    message = Image(
        header=header,
        height=image_bgr.shape[0],
        width=image_bgr.shape[1],
        encoding='bgr8',
        step=image_bgr.shape[1] * 3,
    )
    message.data.frombytes(memoryview(np.ascontiguousarray(image_bgr)).cast('B'))
    return message
