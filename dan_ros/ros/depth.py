# SPDX-License-Identifier: Apache-2.0
"""Aligned depth images of a camera, which give the real distance of faces."""

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from sensor_msgs.msg import Image

from dan_ros.errors import FrameError
from dan_ros.faces.head_pose import HeadPose, pose_with_depth
from dan_ros.images.depth import DepthImage, message_to_depth
from dan_ros.messages import stamp_to_ns
from dan_ros.ros.qos import QosMonitor, create_image_subscription
from dan_ros.ros.statistics import Statistics
from dan_ros.ros.transports import read_raw

MAX_IMAGES = 6  # depth images kept per camera
TOLERANCE_NS = 100_000_000  # longest time between an image and its depth, for cameras of 10 Hz
ASSUMPTION = 'poses assume eyes 63 mm apart'
OTHER_SIZE = 'other_size'  # drop cause: a size other than that of the camera's images
MAX_MISSES = 30  # images in a row without depth of their time, before that is worth a warning
SILENCE_S = 2.0  # time without a depth image that is worth a warning, seconds

# Outcomes for the faces of a camera with depth, counted as `faces_depth.<outcome>`.
USED, NO_IMAGE, NO_VALUE, IMPLAUSIBLE = 'used', 'no_image', 'no_value', 'implausible'
OUTCOMES = (USED, NO_IMAGE, NO_VALUE, IMPLAUSIBLE)


class DepthStream:
    """The depth images of one camera. `poses` and `warnings` may be called from any thread.

    `topic` is the name before remapping.
    """

    def __init__(
        self, node: Node, topic: str, statistics: Statistics, qos_monitor: QosMonitor
    ) -> None:
        self._node, self._topic = node, topic
        self._statistics, self._qos_monitor = statistics, qos_monitor
        self._lock = threading.Lock()
        self._images: deque[tuple[int, DepthImage]] = deque(maxlen=MAX_IMAGES)
        self._subscription: Any = None
        self._last_s = 0.0
        self._size: tuple[int, int] | None = None  # of the camera's images; None: not known yet
        self._problem = ''
        self._misses = 0  # images in a row without depth of their time, although there is depth
        statistics.count_depth(dict.fromkeys(OUTCOMES, 0))

    def open(self, reliability: str, group: CallbackGroup) -> None:
        """Subscribe in a callback group; `reliability` is best_effort or reliable."""
        self._last_s = time.monotonic()
        self._subscription = create_image_subscription(
            self._node,
            Image,
            self._topic,
            self._on_depth,
            reliability,
            self._qos_monitor,
            group,
        )

    def close(self) -> None:
        """Close the subscription and forget all images."""
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
        self._subscription = None
        with self._lock:
            self._images.clear()

    def poses(
        self,
        poses: Sequence[HeadPose | None],
        landmarks: Sequence[np.ndarray],
        stamp_ns: int,
        size: tuple[int, int],
    ) -> list[HeadPose | None]:
        """Scale poses to the measured distances; poses of faces without depth stay unchanged.

        Args:
            poses: poses of the faces of one image, for a face of average size.
            landmarks: [5, 2] or [0, 2] per face, pixels.
            stamp_ns: time of the image, nanoseconds.
            size: (width, height) of the image, pixels.
        """
        if not any(poses):
            return list(poses)
        depth = self._nearest(stamp_ns, size)
        moved, outcomes = [], dict.fromkeys(OUTCOMES, 0)
        for pose, points in zip(poses, landmarks, strict=True):
            found, outcome = self._pose(pose, points, depth) if pose else (None, '')
            moved.append(found or pose)
            if outcome:
                outcomes[outcome] += 1
        self._statistics.count_depth(outcomes)
        return moved

    def warnings(self) -> Iterator[str]:
        """Yield problems of the depth images."""
        if self._problem:
            yield self._problem
        if self._subscription is not None and time.monotonic() - self._last_s > SILENCE_S:
            yield f'no depth image for {SILENCE_S:g} s on {self._name}'
        elif self._misses >= MAX_MISSES:
            yield (
                f'the stamps of {self._name} are more than {TOLERANCE_NS / 1e9:g} s from those of '
                f'the images: let the same clock stamp both; {ASSUMPTION}'
            )

    @property
    def _name(self) -> str:
        return str(self._node.resolve_topic_name(self._topic))

    def _pose(
        self, pose: HeadPose, landmarks: np.ndarray, depth: DepthImage | None
    ) -> tuple[HeadPose | None, str]:
        if depth is None:
            return None, NO_IMAGE
        radius = window_radius(landmarks)
        depths_m = np.array([depth.median_m(float(x), float(y), radius) for x, y in landmarks])
        if np.isnan(depths_m).all():
            return None, NO_VALUE
        moved = pose_with_depth(pose, depths_m)
        return moved, USED if moved else IMPLAUSIBLE

    def _nearest(self, stamp_ns: int, size: tuple[int, int]) -> DepthImage | None:
        """Return the depth image nearest in time, if it fits the image."""
        with self._lock:
            near = [pair for pair in self._images if abs(pair[0] - stamp_ns) <= TOLERANCE_NS]
            self._misses = self._misses + 1 if self._images and not near else 0
        self._size = size
        for time_ns, depth in sorted(near, key=lambda pair: abs(pair[0] - stamp_ns)):
            if depth.size == size:
                return depth
            self._drop_other_size(time_ns, depth, size)
        return None

    def _drop_other_size(self, time_ns: int, depth: DepthImage, size: tuple[int, int]) -> None:
        with self._lock:
            self._images = deque((p for p in self._images if p[0] != time_ns), maxlen=MAX_IMAGES)
        (width, height), (image_width, image_height) = depth.size, size
        message = (
            f'the depth images of {self._name} have {width} x {height} pixels, the images '
            f'{image_width} x {image_height}: align them to the camera'
        )
        self._drop(FrameError(OTHER_SIZE, message))

    def _on_depth(self, content: bytes) -> None:
        self._last_s = time.monotonic()
        try:
            message = read_raw(content)
            depth = message_to_depth(message)
        except FrameError as error:
            self._drop(FrameError(error.cause, f'a depth image of {self._name}: {error}'))
            return
        with self._lock:
            self._images.append((stamp_to_ns(message.header.stamp), depth))
        if self._size in (None, depth.size):
            self._problem = ''

    def _drop(self, error: FrameError) -> None:
        """Count a depth image; log the first of each cause."""
        self._problem = f'{error}; {ASSUMPTION}'
        if self._statistics.count_depth_dropped(error.cause, self._topic):
            self._node.get_logger().warning(
                f'{self._problem} (further ones are counted in /diagnostics as '
                f'depth_dropped.{error.cause})'
            )


def window_radius(landmarks: np.ndarray) -> int:
    """Return the radius of the windows in which depths are read, pixels.

    5 % of the extent of the landmarks, [5, 2]: about 4 mm on a face, at most 10 pixels.
    """
    extent = float(np.ptp(landmarks, axis=0).max())
    return int(min(max(round(0.05 * extent), 1), 10))
