# SPDX-License-Identifier: Apache-2.0
"""Topics of ROS4HRI (REP-155, https://www.ros.org/reps/rep-0155.html).

`Ros4HriFacePublisher` acts as a face detector: it publishes all that is known about each face under
/humans/faces/<id>/. `Ros4HriFaceSource` acts as an expression recognizer: it takes faces cropped by
another detector and publishes only their expression.
"""

import posixpath
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from rclpy.clock import Clock, ClockType  # type: ignore[attr-defined]
from rclpy.duration import Duration
from rclpy.node import Node
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from dan_ros import circumplex, labels
from dan_ros.errors import BackendError
from dan_ros.faces.picture import aligned_face, cropped_face
from dan_ros.ros.camera_stream import SILENCE_S
from dan_ros.ros.inference_thread import FrameResult
from dan_ros.ros.publishers import bgr_to_image
from dan_ros.ros.qos import NEWEST_QOS, PublisherEventCallbacks
from dan_ros.tracking.engagement import EngagementTracker
from dan_ros.tracking.face_tracker import TrackedFace
from dan_ros.types import Frame

try:
    import hri_msgs.msg as hri
except ModuleNotFoundError:
    hri = None

FACES = '/humans/faces'
TRACKED = f'{FACES}/tracked'
MAX_ID_LENGTH = 100  # a longer id of another detector might not fit into a topic name
CLOSING_S = 0.2  # longest wait until subscribers acknowledge the last list of ids, seconds
# Values of hri_msgs/Expression. It has no value for contempt; skeptical is the nearest.
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
PICTURES = {'cropped': cropped_face, 'aligned': aligned_face}
STEADY = Clock(clock_type=ClockType.STEADY_TIME)  # runs even if ROS time is stopped
# Indices of our five landmarks among the 70 of hri_msgs/FacialLandmarks.
LANDMARKS = (68, 69, 30, 48, 54)  # right pupil, left pupil, nose, right and left mouth corner


def require_messages() -> None:
    """Raise a BackendError that says how to install hri_msgs if it is missing."""
    if hri is None:
        raise BackendError(
            'ROS4HRI needs the messages of hri_msgs: apt install ros-$ROS_DISTRO-hri-msgs, or '
            'build https://github.com/ros4hri/hri_msgs; or set ros4hri to false and input to images'
        )


def expression_message(face: TrackedFace, header: Header, has_valence: bool) -> Any:
    """Create a hri_msgs/Expression for a face with a known label.

    With `has_valence`, valence and arousal are derived from the probabilities; otherwise they are
    NaN, because nothing measures them.
    """
    word = WORDS[labels.CANONICAL[face.expression]]
    valence, arousal = circumplex.UNKNOWN
    if has_valence:
        valence, arousal = circumplex.valence_arousal(face.probabilities)
    return hri.Expression(
        header=header, expression=word, valence=valence, arousal=arousal, confidence=face.confidence
    )


class Ros4HriFacePublisher:
    """Publishes /humans/faces/tracked and the topics of each face.

    These are roi, cropped, aligned, landmarks, expression and engagement_status. The two pictures
    are drawn only while somebody subscribes to them.

    The topics of a face exist until its id expires. Methods may be called from any thread.

    Two nodes that publish `tracked` would make every face come and go. So this node publishes
    nothing while another one does; if two start at once, the first in alphabetical order publishes.
    `picture_size` is the (width, height) of cropped and aligned, pixels.
    """

    def __init__(self, node: Node, has_valence: bool, picture_size: tuple[int, int]) -> None:
        self._node, self._has_valence = node, has_valence
        self._name = node.get_fully_qualified_name()
        self._picture_size = picture_size
        self._lock = threading.Lock()
        self._is_open = True
        self._warning = ''
        self._tracked: Any = None  # None while another node publishes
        self._faces: dict[str, dict[str, Any]] = {}
        self._alive: dict[str, set[str]] = {}
        self._engagement: defaultdict[str, EngagementTracker] = defaultdict(EngagementTracker)
        self.check_rivals()

    def check_rivals(self) -> str:
        """Start or stop publishing; call it about once a second.

        Returns:
            A warning if another node publishes faces; otherwise ''.
        """
        with self._lock:
            if not self._is_open:
                return ''
            rival = _rival(self._node, has_publisher=self._tracked is not None)
            if self._tracked is None and not rival:
                self._tracked = _publisher(self._node, hri.IdsList, TRACKED)
            elif self._tracked is not None and rival and rival < self._name:
                self._withdraw()
            warning = self._warning_about(rival) if rival else ''
            if warning and warning != self._warning:
                self._node.get_logger().warning(warning)
            self._warning = warning
            return warning

    def _warning_about(self, rival: str) -> str:
        advice = 'use one node with image_topics for several cameras'
        if self._tracked is None:
            return f'{rival} publishes {TRACKED}, so this node does not: {advice}'
        return f'{rival} publishes {TRACKED} as well, so faces come and go there: {advice}'

    def publish(self, result: FrameResult, alive: set[str]) -> None:
        """Publish the faces of an image.

        `alive` are the ids in view of this camera, and of missing faces that may come back.
        """
        with self._lock:
            if self._tracked is None:
                return
            self._alive[result.camera] = alive
            self._list(result.header)
            for face in result.faces:
                self._publish_face(face, result.frame, result.header)

    def forget(self, cameras: Iterable[str]) -> None:
        """Remove the faces of cameras that stopped sending images."""
        with self._lock:
            gone = [faces for c in cameras if (faces := self._alive.pop(c, None))]
            if gone:
                self._list(Header(stamp=self._node.get_clock().now().to_msg()))

    def close(self) -> None:
        """Publish an empty list of ids and remove all topics."""
        with self._lock:
            self._is_open = False
            self._withdraw()

    def _withdraw(self) -> None:
        if self._tracked is None:
            return
        if any(self._alive.values()):
            self._alive.clear()
            self._list(Header(stamp=self._node.get_clock().now().to_msg()))
        self._tracked.wait_for_all_acked(Duration(seconds=CLOSING_S))
        self._node.destroy_publisher(self._tracked)
        self._tracked = None

    def _list(self, header: Header) -> None:
        """Publish the ids, after adding and removing the topics of faces."""
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
            'aligned': Image,
            'landmarks': hri.FacialLandmarks,
            'expression': hri.Expression,
            'engagement_status': hri.EngagementLevel,
        }
        self._faces[face_id] = {
            name: _publisher(self._node, kind, f'{FACES}/{face_id}/{name}')
            for name, kind in kinds.items()
        }

    def _remove(self, face_id: str) -> None:
        self._engagement.pop(face_id, None)
        for publisher in self._faces.pop(face_id).values():
            self._node.destroy_publisher(publisher)

    def _publish_face(self, face: TrackedFace, frame: Frame, header: Header) -> None:
        topics = self._faces[face.face_id]
        level = self._engagement[face.face_id].update(face.pose, face.time_ns)
        topics['engagement_status'].publish(hri.EngagementLevel(header=header, level=int(level)))
        topics['roi'].publish(_region(face, frame, header))
        topics['landmarks'].publish(_landmarks(face, frame, header))
        if face.expression != labels.UNKNOWN:
            topics['expression'].publish(expression_message(face, header, self._has_valence))
        for name, draw in PICTURES.items():
            if topics[name].get_subscription_count() == 0:
                continue
            picture = draw(frame, face.detection, self._picture_size)
            if picture is not None:
                topics[name].publish(bgr_to_image(picture, header))


class Ros4HriFaceSource:
    """Subscribes to the faces that another detector lists, and publishes their expressions.

    The executor's thread receives the list; other threads may use `publish`, `face_ids` and
    `is_silent`. If a detector sends nothing for `SILENCE_S`, its faces count as gone. `on_image`
    gets the id of a face and its image, `on_gone` the id of a face that is no longer listed.
    """

    def __init__(
        self,
        node: Node,
        on_image: Callable[[str, Image], None],
        on_gone: Callable[[str], None],
        has_valence: bool,
    ) -> None:
        self._node, self._on_image, self._on_gone = node, on_image, on_gone
        self._has_valence = has_valence
        self._lock = threading.Lock()  # prevents publishing on a topic that is being removed
        self._faces: dict[str, tuple[Any, Any]] = {}
        self._heard_s = time.monotonic()
        self._timer = node.create_timer(SILENCE_S / 4, self._check_silence, clock=STEADY)
        self._list = node.create_subscription(hri.IdsList, TRACKED, self._on_list, NEWEST_QOS)

    @property
    def face_ids(self) -> set[str]:
        """Ids of the listed faces."""
        return set(self._faces)

    @property
    def is_silent(self) -> bool:
        """Whether the detector has sent neither a list nor an image for `SILENCE_S`."""
        return time.monotonic() - self._heard_s > SILENCE_S

    def publish(self, face_id: str, face: TrackedFace, header: Header) -> None:
        """Publish the expression of a face if it is known and the face is still listed."""
        with self._lock:
            topics = self._faces.get(face_id)
            if topics and face.expression != labels.UNKNOWN:
                topics[1].publish(expression_message(face, header, self._has_valence))

    def close(self) -> None:
        """Close all topics."""
        for face_id in list(self._faces):
            self._remove(face_id)
        self._node.destroy_timer(self._timer)
        self._node.destroy_subscription(self._list)

    def _check_silence(self) -> None:
        if self.is_silent:
            for face_id in list(self._faces):
                self._remove(face_id)

    def _on_list(self, message: Any) -> None:
        self._heard_s = time.monotonic()
        for face_id in self._faces.keys() - set(message.ids):
            self._remove(face_id)
        for face_id in set(message.ids) - self._faces.keys():
            self._add(face_id)

    def _add(self, face_id: str) -> None:
        if not _fits_into_topic(face_id):
            self._node.get_logger().warning(
                f'ignored a face: its id {face_id[:40]!r} is not valid in a topic name', once=True
            )
            return

        def on_image(message: Image) -> None:
            self._heard_s = time.monotonic()
            self._on_image(face_id, message)

        topic = f'{FACES}/{face_id}/cropped'
        images = self._node.create_subscription(Image, topic, on_image, NEWEST_QOS)
        expressions = _publisher(self._node, hri.Expression, f'{FACES}/{face_id}/expression')
        self._faces[face_id] = images, expressions

    def _remove(self, face_id: str) -> None:
        with self._lock:
            images, expressions = self._faces.pop(face_id)
            self._node.destroy_subscription(images)
            self._node.destroy_publisher(expressions)
        self._on_gone(face_id)


def _rival(node: Node, has_publisher: bool) -> str:
    """Return the full name of another node that publishes the list of faces, or ''."""
    names = sorted(
        posixpath.join(peer.node_namespace, peer.node_name)
        for peer in node.get_publishers_info_by_topic(TRACKED)
    )
    if has_publisher and (own := node.get_fully_qualified_name()) in names:
        names.remove(own)  # once: another node may have the same name
    return names[0] if names else ''


def _fits_into_topic(face_id: str) -> bool:
    return face_id.isascii() and face_id.isidentifier() and len(face_id) <= MAX_ID_LENGTH


def _publisher(node: Node, kind: type, topic: str) -> Any:
    # Without event callbacks: the inference thread creates and destroys these publishers, and
    # events would make the executor wait for them.
    events = PublisherEventCallbacks(use_default_callbacks=False)
    return node.create_publisher(kind, topic, 10, event_callbacks=events)


def _region(face: TrackedFace, frame: Frame, header: Header) -> Any:
    size = np.array([*frame.size, *frame.size], np.float64)
    left, top, right, bottom = (face.detection.box_xyxy / size).clip(0, 1).tolist()
    return hri.NormalizedRegionOfInterest2D(
        header=header, xmin=left, ymin=top, xmax=right, ymax=bottom, c=face.detection.score
    )


def _landmarks(face: TrackedFace, frame: Frame, header: Header) -> Any:
    """Fill in our five landmarks; the confidence of the other 65 is 0."""
    width, height = frame.size
    message = hri.FacialLandmarks(header=header, height=height, width=width)
    for place, (x, y) in zip(LANDMARKS, face.detection.landmarks.tolist(), strict=False):
        point = message.landmarks[place]
        point.x, point.y = min(max(x / width, 0.0), 1.0), min(max(y / height, 0.0), 1.0)
        point.c = face.detection.score
    return message
