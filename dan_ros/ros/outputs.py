# SPDX-License-Identifier: Apache-2.0
"""Optional outputs per camera, in the messages of other packages."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseWithCovariance
from rclpy.node import Node

from dan_ros import labels
from dan_ros.errors import BackendError
from dan_ros.image_annotations import TOPIC_SUFFIX, AnnotationClasses
from dan_ros.ros.inference_thread import FrameResult
from dan_ros.ros.publishers import ROS, message_class
from dan_ros.ros.qos import QosMonitor, create_output
from dan_ros.tracking.face_tracker import TrackedFace

try:
    import vision_msgs.msg as vision
except ModuleNotFoundError:
    vision = None
try:
    import foxglove_msgs.msg as foxglove
except ModuleNotFoundError:
    foxglove = None


@dataclass(frozen=True)
class Output:
    """An output in the messages of another package."""

    suffix: str  # follows the name of the image topic
    message_type: Any  # class of the message; None if the package is not installed
    build: Callable[[FrameResult], Any]  # converts the faces of an image


def detections(result: FrameResult) -> Any:
    """Return the faces as a vision_msgs/Detection2DArray.

    The published expression of a face comes first in `results`, then the others by probability.
    `results` is empty if the expression is unknown.
    """
    return vision.Detection2DArray(
        header=result.header,
        detections=[
            vision.Detection2D(
                header=result.header,
                id=face.face_id,
                bbox=_bounding_box(face, result.size),
                results=_hypotheses(face),
            )
            for face in result.faces
        ],
    )


def _bounding_box(face: TrackedFace, size: tuple[int, int]) -> Any:
    inside = face.detection.box_xyxy.astype(np.float64).clip(0, [*size, *size])
    left, top, right, bottom = inside.tolist()
    center = vision.Point2D(x=(left + right) / 2, y=(top + bottom) / 2)
    return vision.BoundingBox2D(
        center=vision.Pose2D(position=center), size_x=right - left, size_y=bottom - top
    )


def _hypotheses(face: TrackedFace) -> list[Any]:
    if face.expression == labels.UNKNOWN:
        return []
    pose = PoseWithCovariance(pose=ROS.pose(face.pose)) if face.pose else PoseWithCovariance()
    scores = dict(zip(labels.CANONICAL, face.probabilities.tolist(), strict=True))
    published = labels.label_of(face.expression)
    order = sorted(scores, key=lambda label: (label != published, -scores[label]))
    return [
        vision.ObjectHypothesisWithPose(
            hypothesis=vision.ObjectHypothesis(class_id=label, score=scores[label]), pose=pose
        )
        for label in order
        if scores[label] > 0  # a class that the model lacks has 0
    ]


def annotations(result: FrameResult) -> Any:
    """Return the faces as foxglove_msgs/ImageAnnotations."""
    return _annotation_classes().annotations(result.faces, result.header.stamp, result.size)


@cache  # its package may be missing, and finding the classes again would cost time in every image
def _annotation_classes() -> AnnotationClasses:
    return AnnotationClasses(message_class)


# By package; the parameter `publish.<package>` turns each on.
OUTPUTS = {
    'vision_msgs': Output('/detections', vision and vision.Detection2DArray, detections),
    'foxglove_msgs': Output(TOPIC_SUFFIX, foxglove and foxglove.ImageAnnotations, annotations),
}


def require_packages(packages: Iterable[str]) -> None:
    """Raise a BackendError that says how to install a package of `OUTPUTS` that is missing."""
    for package in packages:
        if OUTPUTS[package].message_type is None:
            raise BackendError(
                f'publish.{package} needs the package {package}: apt install '
                f'ros-$ROS_DISTRO-{package.replace("_", "-")}, or set publish.{package} to false'
            )


class CameraOutputs:
    """Publishes the faces of one camera in the messages of some packages of `OUTPUTS`."""

    def __init__(
        self, node: Node, camera: str, packages: Iterable[str], qos_monitor: QosMonitor
    ) -> None:
        self._node = node
        self._publishers = []
        for output in map(OUTPUTS.__getitem__, packages):
            topic, kind = camera + output.suffix, output.message_type
            publisher = create_output(node, node.create_publisher, kind, topic, qos_monitor)
            self._publishers.append((output, publisher))

    def publish(self, result: FrameResult) -> None:
        """Publish the faces of an image to those who subscribe."""
        for output, publisher in self._publishers:
            if publisher.get_subscription_count() > 0:
                publisher.publish(output.build(result))

    def close(self) -> None:
        """Remove the publishers."""
        for _, publisher in self._publishers:
            self._node.destroy_publisher(publisher)
        self._publishers = []
