"""Faces as ROS4HRI has them (REP-155, https://www.ros.org/reps/rep-0155.html).

Two ways: as a face detector, `Ros4HriFacePublisher` publishes everything this node knows of each face under
/humans/faces/<id>/; as a recogniser, `Ros4HriFaceSource` takes the faces that another detector cut out
and adds their expression alone.
"""

import threading
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from dan_ros import labels
from dan_ros.errors import BackendError
from dan_ros.faces.crop import square_about
from dan_ros.images.encodings import to_bgr
from dan_ros.images.opencv import cv2
from dan_ros.images.resize import resize
from dan_ros.ros.publishers import bgr_to_image
from dan_ros.ros.qos import PublisherEventCallbacks
from dan_ros.tracking.face_tracker import TrackedFace
from dan_ros.types import Frame

try:
    import hri_msgs.msg as hri
except ModuleNotFoundError:
    hri = None

FACES = '/humans/faces'
GOODBYE_S = 0.2  # so long the last list may take to its subscribers
CROP_SIDE = 128  # pixels of the published face
CROP_SCALE = 1.0  # side of the published square over the longer side of the box
# Words of hri_msgs/Expression. It has none for contempt; skeptical is the nearest.
WORDS = {
    'neutral': 'neutral',
    'happy': 'happy',
    'sad': 'sad',
    'surprise': 'surprised',
    'fear': 'scared',
    'disgust': 'disgusted',
    'anger': 'angry',
    'contempt': 'skeptical',
}
# Places of our five landmarks among the seventy of hri_msgs/FacialLandmarks.
LANDMARKS = (68, 69, 30, 48, 54)  # right pupil, left pupil, nose, right and left mouth corner


def require_messages() -> None:
    """Raise a BackendError that says what to install where hri_msgs is missing."""
    if hri is None:
        raise BackendError(
            'ROS4HRI needs the messages of hri_msgs: apt install ros-$ROS_DISTRO-hri-msgs, or '
            'build https://github.com/ros4hri/hri_msgs; or set ros4hri to false and input to images'
        )


def expression_message(face: TrackedFace, header: Header) -> Any:
    """hri_msgs/Expression of a face whose expression is known. Valence and arousal are not: 0."""
    word = WORDS[labels.CANONICAL[face.expression]]
    return hri.Expression(header=header, expression=word, confidence=face.confidence)


class Ros4HriFacePublisher:
    """Publishes /humans/faces/tracked and, for each face, roi, cropped, landmarks and expression.

    Topics of a face are made when it comes and removed when it is gone for good. May be used by
    several threads.

    Args:
        node: publishes.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._lock = threading.Lock()
        self._tracked = _publisher(node, hri.IdsList, f'{FACES}/tracked')
        self._faces: dict[str, dict[str, Any]] = {}
        self._alive: dict[str, set[str]] = {}

    def publish(
        self,
        camera: str,
        faces: Iterable[TrackedFace],
        alive: set[str],
        frame: Frame,
        header: Header,
    ) -> None:
        """Publish the faces of one frame.

        Args:
            camera: whose frame it is.
            faces: seen in it.
            alive: ids of this camera that are there or may come back.
            frame: the image.
            header: of the image.
        """
        with self._lock:
            self._alive[camera] = alive
            self._list(header)
            for face in faces:
                self._publish_face(face, frame, header)

    def forget(self, cameras: Iterable[str]) -> None:
        """These cameras show nothing any more: nobody is known to be before them."""
        with self._lock:
            gone = [faces for c in cameras if (faces := self._alive.pop(c, None))]
            if gone:
                self._list(Header(stamp=self._node.get_clock().now().to_msg()))

    def close(self) -> None:
        """Say that nobody is there, and remove every topic."""
        self.forget(list(self._alive))
        self._tracked.wait_for_all_acked(Duration(seconds=GOODBYE_S))
        self._node.destroy_publisher(self._tracked)

    def _list(self, header: Header) -> None:
        """Publish who is there, after their topics were made and those of others removed."""
        tracked = set().union(*self._alive.values())
        for face_id in self._faces.keys() - tracked:
            self._remove(face_id)
        for face_id in tracked - self._faces.keys():
            self._add(face_id)
        self._tracked.publish(hri.IdsList(header=header, ids=sorted(tracked)))

    def _add(self, face_id: str) -> None:
        kinds = {
            'roi': hri.NormalizedRegionOfInterest2D,
            'cropped': Image,
            'landmarks': hri.FacialLandmarks,
            'expression': hri.Expression,
        }
        self._faces[face_id] = {
            name: _publisher(self._node, kind, f'{FACES}/{face_id}/{name}')
            for name, kind in kinds.items()
        }

    def _remove(self, face_id: str) -> None:
        for publisher in self._faces.pop(face_id).values():
            self._node.destroy_publisher(publisher)

    def _publish_face(self, face: TrackedFace, frame: Frame, header: Header) -> None:
        topics = self._faces[face.face_id]
        topics['roi'].publish(_region(face, frame, header))
        topics['landmarks'].publish(_landmarks(face, frame, header))
        if face.expression != labels.UNKNOWN:
            topics['expression'].publish(expression_message(face, header))
        if topics['cropped'].get_subscription_count() > 0:
            topics['cropped'].publish(bgr_to_image(_cut(face, frame), header))


class Ros4HriFaceSource:
    """Follows the faces that another detector lists, and publishes an expression for each.

    Args:
        node: subscribes and publishes.
        on_image: called with the id of a face and the picture of it, whenever one comes.
        on_gone: called with the id of a face that is no longer listed.
    """

    def __init__(
        self,
        node: Node,
        on_image: Callable[[str, Image], None],
        on_gone: Callable[[str], None] = lambda face_id: None,
    ) -> None:
        self._node, self._on_image, self._on_gone = node, on_image, on_gone
        self._faces: dict[str, tuple[Any, Any]] = {}
        self._list = node.create_subscription(
            hri.IdsList, f'{FACES}/tracked', self._on_list, _newest()
        )

    @property
    def face_ids(self) -> set[str]:
        """Ids of the faces that are followed."""
        return set(self._faces)

    def publish(self, face_id: str, face: TrackedFace, header: Header) -> None:
        """Publish what a face shows, if that is known and the face is still there."""
        topics = self._faces.get(face_id)
        if topics and face.expression != labels.UNKNOWN:
            topics[1].publish(expression_message(face, header))

    def close(self) -> None:
        """Leave every topic."""
        for face_id in list(self._faces):
            self._remove(face_id)
        self._node.destroy_subscription(self._list)

    def _on_list(self, message: Any) -> None:
        for face_id in self._faces.keys() - set(message.ids):
            self._remove(face_id)
        for face_id in set(message.ids) - self._faces.keys():
            self._add(face_id)

    def _add(self, face_id: str) -> None:
        if not face_id.isidentifier():
            self._node.get_logger().warning(
                f'ignored a face whose id {face_id[:40]!r} is no part of a topic name', once=True
            )
            return
        images = self._node.create_subscription(
            Image,
            f'{FACES}/{face_id}/cropped',
            lambda message: self._on_image(face_id, message),
            _newest(),
        )
        expressions = _publisher(self._node, hri.Expression, f'{FACES}/{face_id}/expression')
        self._faces[face_id] = images, expressions

    def _remove(self, face_id: str) -> None:
        images, expressions = self._faces.pop(face_id)
        self._node.destroy_subscription(images)
        self._node.destroy_publisher(expressions)
        self._on_gone(face_id)


def _publisher(node: Node, kind: type, topic: str) -> Any:
    # Without events, so that it can be made and removed in the inference thread: events would make
    # the executor wait for it.
    events = PublisherEventCallbacks(use_default_callbacks=False)
    return node.create_publisher(kind, topic, 10, event_callbacks=events)


def _newest() -> QoSProfile:
    return QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)


def _region(face: TrackedFace, frame: Frame, header: Header) -> Any:
    size = np.array([*frame.size, *frame.size], np.float64)
    left, top, right, bottom = (face.detection.box_xyxy / size).clip(0, 1).tolist()
    return hri.NormalizedRegionOfInterest2D(
        header=header, xmin=left, ymin=top, xmax=right, ymax=bottom, c=face.detection.score
    )


def _landmarks(face: TrackedFace, frame: Frame, header: Header) -> Any:
    """Our five landmarks; the confidence of the other sixty-five is 0."""
    width, height = frame.size
    message = hri.FacialLandmarks(header=header, height=height, width=width)
    for place, (x, y) in zip(LANDMARKS, face.detection.landmarks.tolist(), strict=False):
        point = message.landmarks[place]
        point.x, point.y = min(max(x / width, 0.0), 1.0), min(max(y / height, 0.0), 1.0)
        point.c = face.detection.score
    return message


def _cut(face: TrackedFace, frame: Frame) -> np.ndarray:
    """The face and what is about it, uint8 [128, 128, 3], BGR; black beyond the image."""
    left, top, side = square_about(face.detection.box_xyxy, CROP_SCALE)
    width, height = frame.size
    inside = frame.image[max(top, 0) : top + side, max(left, 0) : left + side]
    square = cv2.copyMakeBorder(
        to_bgr(np.ascontiguousarray(inside), frame.encoding),
        max(-top, 0),
        max(top + side - height, 0),
        max(-left, 0),
        max(left + side - width, 0),
        cv2.BORDER_CONSTANT,
    )
    return resize(square, CROP_SIDE, CROP_SIDE)
