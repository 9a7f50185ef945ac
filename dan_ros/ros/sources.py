# SPDX-License-Identifier: Apache-2.0
"""Sources of images, which also publish the results: cameras, or faces cropped by another node."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from sensor_msgs.msg import Image

from dan_ros.ros import ros4hri
from dan_ros.ros.camera_stream import SILENCE_S, CameraStream
from dan_ros.ros.camera_topics import CameraTopics
from dan_ros.ros.image_receiver import ImageReceiver
from dan_ros.ros.inference_thread import FrameResult
from dan_ros.ros.outputs import require_packages
from dan_ros.ros.parameters import CROPPED_FACES, IMAGES, Settings
from dan_ros.ros.ros4hri import Ros4HriFacePublisher, Ros4HriFaceSource
from dan_ros.ros.source_context import SourceContext
from dan_ros.ros.transports import RAW, suffix_of
from dan_ros.video_pipeline import VideoPipeline


class ImageSource(ABC):
    """A source of images; open between `open` and `close`.

    Attributes:
        transport: transport of the images, one of `transports.TRANSPORTS`.
        awaited: names of the topics whose images are awaited, for the log.
    """

    transport: str
    awaited: str

    def __init__(self, context: SourceContext) -> None:
        self._context = context

    @property
    @abstractmethod
    def face_count(self) -> int:
        """Number of faces in the last image of every camera."""

    @abstractmethod
    def open(self, receiver: ImageReceiver) -> None:
        """Subscribe; `receiver` takes the images."""

    @abstractmethod
    def close(self) -> None:
        """Close all subscriptions."""

    @abstractmethod
    def publish(self, result: FrameResult, publishes_tf: bool) -> None:
        """Publish the result of an image. Called by the inference thread."""

    @abstractmethod
    def source_of(self, camera: str) -> str:
        """Return the name under which dropped images of `camera` are counted."""

    @abstractmethod
    def warnings(self) -> Iterator[str]:
        """Yield problems of the images. Called by the diagnostics thread."""

    def _count(self, result: FrameResult) -> None:
        latency_s = time.monotonic() - result.stamped.received_s
        self._context.statistics.count_processed(
            latency_s, [face.raw.reason for face in result.faces]
        )


class CameraSource(ImageSource):
    """Images of one or several cameras."""

    def __init__(self, context: SourceContext) -> None:
        super().__init__(context)
        node, settings = context.node, context.settings
        images = settings.cameras
        suffix, is_only = suffix_of(settings.image_transport), len(set(images)) == 1
        self._streams: dict[str, CameraStream] = {}
        for image_topic, depth_topic in zip(images, settings.depths, strict=True):
            topics = CameraTopics.resolve(node, image_topic, suffix, is_only)
            self._streams[topics.camera] = CameraStream(context, topics, depth_topic)
        self.transport = settings.image_transport
        self.awaited = ', '.join(stream.topics.listened for stream in self._streams.values())
        self._ros4hri: Ros4HriFacePublisher | None = None

    @property
    def face_count(self) -> int:
        """Sum over the cameras."""
        return sum(stream.face_count for stream in self._streams.values())

    def open(self, receiver: ImageReceiver) -> None:
        """Subscribe to every camera."""
        settings = self._context.settings
        if settings.ros4hri:
            self._ros4hri = Ros4HriFacePublisher(
                self._context.node, settings.valence_from_expression, settings.picture_size
            )
        self._context.publishers.events.open()
        for stream in self._streams.values():
            stream.open(receiver)

    def close(self) -> None:
        """Close every camera; their calibrations are kept."""
        for stream in self._streams.values():
            stream.close()
        self._end_visits(self._streams)
        if self._ros4hri is not None:
            self._ros4hri.close()
        self._ros4hri = None

    def publish(self, result: FrameResult, publishes_tf: bool) -> None:
        """Publish expressions, TF frames, ROS4HRI topics and the debug image."""
        context, stream = self._context, self._streams[result.camera]
        face_ids = context.video.face_ids(result.camera)
        result = replace(result, faces=stream.with_depth(result))
        context.publishers.publish(result, publishes_tf)
        context.publishers.events.update(result, face_ids, context.video.config.events)
        stream.publish(result)
        if self._ros4hri is not None:
            self._ros4hri.publish(result, face_ids)
        self._count(result)
        context.publishers.publish_debug_image(result)

    def source_of(self, camera: str) -> str:
        """Drops are counted per camera."""
        return camera

    def warnings(self) -> Iterator[str]:
        """Yield calibrations that do not fit, silent cameras, and bad stamps."""
        for stream in self._streams.values():
            yield from stream.warnings()
        yield from self._context.qos_monitor.warnings()
        if silent := [stream for stream in self._streams.values() if stream.is_silent]:
            listened = ', '.join(stream.topics.listened for stream in silent)
            yield f'no image for {SILENCE_S:g} s on {listened}'
            topics = [stream.topic for stream in silent]
            self._end_visits(topics)
            if (publisher := self._ros4hri) is not None:
                publisher.forget(topics)
        if (publisher := self._ros4hri) is not None and (warning := publisher.check_rivals()):
            yield warning
        yield from _stamp_warnings(self._context.video)

    def _end_visits(self, cameras: Iterable[str]) -> None:
        """Remove the faces of cameras that send no images."""
        self._context.publishers.events.end(cameras)
        for camera in cameras:
            self._context.video.end_visits(camera)


class CroppedFaceSource(ImageSource):
    """Faces that another detector publishes under /humans/faces (ROS4HRI)."""

    transport = RAW
    awaited = f'{ros4hri.FACES}/<id>/cropped'

    def __init__(self, context: SourceContext) -> None:
        super().__init__(context)
        self._faces: Ros4HriFaceSource | None = None
        self._face_counts: dict[str, int] = {}

    @property
    def face_count(self) -> int:
        """Number of faces that were classified and are still listed."""
        return sum(self._face_counts.copy().values())

    def open(self, receiver: ImageReceiver) -> None:
        """Subscribe to the list of faces, and to each face that it names."""

        def on_image(face_id: str, image: Image) -> None:
            receiver.receive(face_id, lambda: image)

        has_valence = self._context.settings.valence_from_expression
        self._faces = Ros4HriFaceSource(self._context.node, on_image, self._on_gone, has_valence)

    def close(self) -> None:
        """Close all topics."""
        if self._faces is not None:
            self._faces.close()
        self._faces = None
        self._face_counts = {}

    def publish(self, result: FrameResult, publishes_tf: bool) -> None:
        """Publish the expression of a face that is still listed; its id serves as camera name."""
        faces = self._faces
        if faces is None:
            return
        for face in result.faces:
            faces.publish(result.camera, face, result.header)
        self._count(result)
        self._face_counts[result.camera] = len(result.faces)
        # Checked last: the executor's thread may remove the face at any time.
        if result.camera not in faces.face_ids:
            self._on_gone(result.camera)

    def source_of(self, camera: str) -> str:
        """Drops of all faces are counted together, since faces come and go."""
        return ros4hri.FACES

    def warnings(self) -> Iterator[str]:
        """Yield incompatible peers, a silent detector, and bad stamps."""
        if (faces := self._faces) is not None and faces.is_silent:
            yield f'no list of faces for {SILENCE_S:g} s on {ros4hri.TRACKED}'
        yield from self._context.qos_monitor.warnings()
        yield from _stamp_warnings(self._context.video)

    def _on_gone(self, face_id: str) -> None:
        self._face_counts.pop(face_id, None)
        self._context.video.forget(face_id)


def _stamp_warnings(video: VideoPipeline) -> Iterator[str]:
    clocks = video.clocks
    if cameras := [camera for camera, clock in clocks.items() if clock.is_frozen]:
        yield (
            f'the images on {", ".join(cameras)} all have the same stamp: faces are tracked by '
            'the arrival time of the images'
        )
    if cameras := [camera for camera, clock in clocks.items() if clock.is_unordered]:
        yield (
            f'the stamps of the images on {", ".join(cameras)} step back: check that the driver '
            'stamps and publishes its images in order'
        )


def require_messages(settings: Settings) -> None:
    """Raise a BackendError that says how to install messages of other packages that are missing."""
    if settings.ros4hri or settings.input == CROPPED_FACES:
        ros4hri.require_messages()
    require_packages(settings.packages)


SOURCES: dict[str, Callable[[SourceContext], ImageSource]] = {
    IMAGES: CameraSource,
    CROPPED_FACES: CroppedFaceSource,
}
