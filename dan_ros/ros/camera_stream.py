# SPDX-License-Identifier: Apache-2.0
"""Everything about one camera: topics, calibration, missing images, warnings."""

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from rclpy.callback_groups import CallbackGroup
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo

from dan_ros.faces.camera_model import describe_problem, info_to_camera
from dan_ros.messages import stamp_to_ns
from dan_ros.ros.camera_topics import CameraTopics
from dan_ros.ros.depth import DepthStream
from dan_ros.ros.image_receiver import ImageReceiver
from dan_ros.ros.inference_thread import FrameResult
from dan_ros.ros.outputs import CameraOutputs
from dan_ros.ros.preview import PreviewPublisher
from dan_ros.ros.qos import NEWEST_QOS, create_image_subscription
from dan_ros.ros.source_context import SourceContext
from dan_ros.tracking.face_tracker import TrackedFace

STAMP_END = 12  # bytes of a serialized message up to the end of its stamp
SILENCE_S = 2.0  # time without an image that is worth a warning, seconds
MISFIT_PERIOD_S = 60  # interval of the warning about a calibration that does not fit, seconds


class CameraStream:
    """One camera.

    Its topics are open between `open` and `close`; the calibration survives a pause. `depth_topic`
    is '' for a camera without depth images.

    Attributes:
        topic: resolved name of the image topic.
        face_count: number of faces in the last processed image.
    """

    def __init__(self, context: SourceContext, topics: CameraTopics, depth_topic: str) -> None:
        self.topics = topics
        self.topic = topics.camera
        self.face_count = 0
        self._context, self._node = context, context.node
        self._depth: DepthStream | None = None
        if depth_topic:
            statistics, qos_monitor = context.statistics, context.qos_monitor
            self._depth = DepthStream(context.node, depth_topic, statistics, qos_monitor)
        self._subscriptions: list[Any] = []
        self._publishers: list[CameraOutputs | PreviewPublisher] = []
        self._info = b''  # the last calibration, without its stamp
        self._misfit = ''
        self._last_image_s: float | None = None  # None while closed

    def open(self, receiver: ImageReceiver) -> None:
        """Open all topics; `receiver` takes the serialized images."""
        settings, qos_monitor = self._context.settings, self._context.qos_monitor
        self._publishers.append(
            CameraOutputs(self._node, self.topic, settings.packages, qos_monitor)
        )
        self._publishers.append(PreviewPublisher(self._node, self.topic, qos_monitor))
        self._last_image_s = time.monotonic()
        self.face_count = 0
        # Messages that wait at the same time are taken in the order of their subscriptions: the
        # calibration and the depth before their image.
        self._subscriptions.append(self._subscribe_to_info(receiver.group))
        if self._depth is not None:
            self._depth.open(settings.reliability, receiver.group)
        self._subscriptions.append(self._subscribe(receiver))

    def close(self) -> None:
        """Close all topics."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        if self._depth is not None:
            self._depth.close()
        for publisher in self._publishers:
            publisher.close()
        self._subscriptions, self._publishers = [], []
        self._last_image_s = None
        self.face_count = 0

    def with_depth(self, result: FrameResult) -> list[TrackedFace]:
        """Return the faces of an image, at the distances that the depth camera measured."""
        if self._depth is None:
            return result.faces
        landmarks = [face.detection.landmarks for face in result.faces]
        poses = [face.pose for face in result.faces]
        stamp_ns = stamp_to_ns(result.header.stamp)
        poses = self._depth.poses(poses, landmarks, stamp_ns, result.size)
        return [replace(face, pose=pose) for face, pose in zip(result.faces, poses, strict=True)]

    def publish(self, result: FrameResult) -> None:
        """Publish what belongs to this camera only."""
        self._check_fit(result.size)
        self.face_count = len(result.faces)
        for publisher in self._publishers:
            publisher.publish(result)

    @property
    def is_silent(self) -> bool:
        """Whether the open stream has received no image for `SILENCE_S`."""
        last_s = self._last_image_s
        return last_s is not None and time.monotonic() - last_s > SILENCE_S

    def warnings(self) -> Iterator[str]:
        """Yield problems of the calibration, and possible reasons why no images arrive."""
        if self.is_silent:
            yield from self.topics.hints(self._node)
        if misfit := self._misfit:
            yield misfit
        if self._depth is not None:
            yield from self._depth.warnings()

    def _subscribe(self, receiver: ImageReceiver) -> Any:
        transport = receiver.transport

        def on_image(content: bytes) -> None:
            self._last_image_s = time.monotonic()
            receiver.receive(self.topic, lambda: transport.read(content))

        return create_image_subscription(
            self._node,
            transport.message_type,
            self.topics.images,
            on_image,
            self._context.settings.reliability,
            self._context.qos_monitor,
            receiver.group,
            on_lost=lambda images: self._context.drops.lost(self.topic, images),
        )

    def _subscribe_to_info(self, group: CallbackGroup) -> Any:
        return self._node.create_subscription(
            CameraInfo, self.topics.info, self._on_info, NEWEST_QOS, callback_group=group, raw=True
        )

    def _on_info(self, content: bytes) -> None:
        if content[STAMP_END:] == self._info:
            return
        self._info = content[STAMP_END:]
        message = deserialize_message(content, CameraInfo)
        camera, known = info_to_camera(message, self.topic), self._context.video.calibrations
        if camera is None and (self.topic not in known or known[self.topic] is not None):
            self._node.get_logger().warning(describe_problem(self.topic, None))
        known[self.topic] = camera

    def _check_fit(self, size: tuple[int, int]) -> None:
        """Warn about a calibration for images of another aspect ratio."""
        camera = self._context.video.calibrations.get(self.topic)
        if camera is None or camera.scaled_to(size):
            self._misfit = ''
        elif not self._misfit:
            self._misfit = describe_problem(self.topic, camera, size)
            self._node.get_logger().warning(self._misfit, throttle_duration_sec=MISFIT_PERIOD_S)
