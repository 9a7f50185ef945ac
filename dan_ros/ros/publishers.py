# SPDX-License-Identifier: Apache-2.0
"""The node's outputs: expressions, debug images and TF frames."""

from collections.abc import Sequence
from pkgutil import resolve_name
from typing import Any

import numpy as np
from geometry_msgs.msg import Quaternion, Transform, TransformStamped, Vector3
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import Image
from std_msgs.msg import Bool, Header

from dan_ros.annotate import annotate_tracked
from dan_ros.faces.head_pose import HeadPose
from dan_ros.messages import MessageClasses
from dan_ros.msg import (
    FaceScene,
    FacialExpression,
    FacialExpressionArray,
    FacialExpressionEvent,
)
from dan_ros.ros.data_declaration import DataDeclaration
from dan_ros.ros.event_publisher import EventPublisher
from dan_ros.ros.inference_thread import FrameResult
from dan_ros.ros.qos import OUTPUT_QOS, QosMonitor, create_output
from dan_ros.tracking.face_tracker import TrackedFace

try:
    from tf2_msgs.msg import TFMessage
except ModuleNotFoundError:
    TFMessage = None

EVENT_QOS = QoSProfile(depth=100)  # depth: many faces may leave at once
LATCHED_QOS = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
CLOSING_S = 0.2  # longest wait until subscribers acknowledge the last events, seconds
TF_TOPIC = '/tf'
TF_DEPTH = 100  # queue depth of tf2's own broadcaster
# From the face frame (x out of the face, z up) to the axes of an optical frame: z forward, x to the
# person's right, y down. Only the direction of the head is known, not that of the eyes.
GAZE = Transform(rotation=Quaternion(x=-0.5, y=0.5, z=-0.5, w=0.5))
DEBUG_ERROR_PERIOD_S = 10  # interval between two errors about debug images, seconds


def message_class(kind: str) -> Any:
    """Return the class of an installed message type, such as geometry_msgs/msg/Pose."""
    return resolve_name(kind.replace('/msg/', '.msg:'))


ROS = MessageClasses(message_class)


class ExpressionPublishers:
    """Publishes the results of each image.

    Attributes:
        events: publishes events and the scene.
        declaration: declares the processing of personal data.
    """

    def __init__(self, node: LifecycleNode, qos_monitor: QosMonitor) -> None:
        self._node = node
        self._qos_monitor = qos_monitor
        self._publishers: list[Any] = []
        self._face_publisher = self._create(FacialExpression, 'facial_expression')
        self._array_publisher = self._create(FacialExpressionArray, 'facial_expressions')
        self._debug_publisher = self._create(Image, '~/debug_image')
        self._consent_publisher = self._create(Bool, '~/consent_needed')
        self._event_publisher = self._create(
            FacialExpressionEvent, 'facial_expression_events', EVENT_QOS
        )
        scene = self._create(FaceScene, 'facial_expression_scene', LATCHED_QOS)
        self.events = EventPublisher(ROS, self._event_publisher, scene)
        self._tf = FaceTfBroadcaster(node)
        self.declaration = DataDeclaration(node)

    def publish(self, result: FrameResult, publishes_tf: bool) -> None:
        """Publish the faces of an image, and with `publishes_tf` their poses on /tf as well."""
        array = ROS.array(result.faces, result.header, result.camera, result.size)
        # This is half the cost of publishing, so it is skipped while nobody subscribes.
        if self._face_publisher.get_subscription_count() > 0:
            for face in array.faces:
                self._face_publisher.publish(face)
        self._array_publisher.publish(array)
        if publishes_tf:
            self._tf.publish(result.faces, result.header)

    def publish_consent_needed(self, is_needed: bool) -> None:
        """Publish whether a face in view is not released, and nothing else about it."""
        self._consent_publisher.publish(Bool(data=is_needed))

    def publish_debug_image(self, result: FrameResult) -> None:
        """Publish the annotated image if somebody subscribes."""
        if self._debug_publisher.get_subscription_count() == 0:
            return
        try:
            image_bgr = annotate_tracked(result.frame, result.faces)
            self._debug_publisher.publish(bgr_to_image(image_bgr, result.header))
        except Exception as error:  # the results are already published, so nothing is dropped
            self._node.get_logger().error(
                f'debug image: {error}', throttle_duration_sec=DEBUG_ERROR_PERIOD_S
            )

    def destroy(self) -> None:
        """Destroy all publishers, after the last events have arrived."""
        self._event_publisher.wait_for_all_acked(Duration(seconds=CLOSING_S))
        self._tf.destroy()
        self.declaration.destroy()
        for publisher in self._publishers:
            self._node.destroy_lifecycle_publisher(publisher)

    def _create(self, message_type: type, topic: str, qos: QoSProfile = OUTPUT_QOS) -> Any:
        create = self._node.create_lifecycle_publisher
        publisher = create_output(self._node, create, message_type, topic, self._qos_monitor, qos)
        self._publishers.append(publisher)
        return publisher


class FaceTfBroadcaster:
    """Publishes the frames `face_<id>` and `gaze_<id>` of REP-155, if tf2_msgs is installed."""

    def __init__(self, node: LifecycleNode) -> None:
        self._node = node
        self._publisher: Any = None
        if TFMessage is not None:
            self._publisher = node.create_lifecycle_publisher(
                TFMessage, TF_TOPIC, QoSProfile(depth=TF_DEPTH)
            )

    def publish(self, faces: Sequence[TrackedFace], header: Header) -> None:
        """Publish the faces of one image that have a pose."""
        if self._publisher is None or not header.frame_id:
            return
        transforms = [
            transform
            for face in faces
            if face.pose is not None
            for transform in _frames_of(face.face_id, face.pose, header)
        ]
        if transforms:
            self._publisher.publish(TFMessage(transforms=transforms))

    def destroy(self) -> None:
        """Remove the publisher."""
        if self._publisher is not None:
            self._node.destroy_lifecycle_publisher(self._publisher)


def _frames_of(face_id: str, pose: HeadPose, header: Header) -> tuple[TransformStamped, ...]:
    face, message = f'face_{face_id}', ROS.pose(pose)
    position = message.position
    return (
        TransformStamped(
            header=header,
            child_frame_id=face,
            transform=Transform(
                translation=Vector3(x=position.x, y=position.y, z=position.z),
                rotation=message.orientation,
            ),
        ),
        TransformStamped(
            header=Header(stamp=header.stamp, frame_id=face),
            child_frame_id=f'gaze_{face_id}',
            transform=GAZE,
        ),
    )


def bgr_to_image(image_bgr: np.ndarray, header: Header) -> Image:
    """Convert uint8 [H, W, 3] BGR to a message."""
    message = Image(
        header=header,
        height=image_bgr.shape[0],
        width=image_bgr.shape[1],
        encoding='bgr8',
        step=image_bgr.shape[1] * 3,
    )
    message.data.frombytes(memoryview(np.ascontiguousarray(image_bgr).data).cast('B'))
    return message
