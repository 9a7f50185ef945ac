# SPDX-License-Identifier: Apache-2.0
"""Publishes the changes of faces as events, and the resulting scene."""

import threading
from collections.abc import Iterable, Sequence
from typing import Any

from std_msgs.msg import Header

from dan_ros.messages import MessageClasses
from dan_ros.ros.inference_thread import FrameResult
from dan_ros.tracking.events import EventConfig, EventDetector, FaceEvent


class EventPublisher:
    """Publishes one event per change, and the scene whenever it changes.

    Methods may be called from any thread: the inference thread adds images, the diagnostics thread
    removes silent cameras, and the executor's thread removes all cameras.

    Args:
        classes: message classes.
        events: publisher of FacialExpressionEvent.
        scene: publisher of FaceScene, transient local.
    """

    def __init__(self, classes: MessageClasses, events: Any, scene: Any) -> None:
        self._classes = classes
        self._events, self._scene = events, scene
        self._lock = threading.Lock()
        self._detectors: dict[str, EventDetector] = {}
        self._headers: dict[str, Header] = {}  # header of the last image per camera

    def open(self) -> None:
        """Publish that nobody is in view."""
        with self._lock:
            self._scene.publish(self._classes.scene({}, Header()))

    def update(self, result: FrameResult, face_ids: set[str], config: EventConfig) -> None:
        """Publish what changed with an image.

        `face_ids` are the ids in view of this camera, and of missing faces that may come back.
        """
        with self._lock:
            detector = self._detectors.setdefault(result.camera, EventDetector())
            detector.config = config
            self._headers[result.camera] = result.header
            self._publish(result.camera, detector.update(result.faces, face_ids))

    def end(self, cameras: Iterable[str]) -> None:
        """Publish that all faces of some cameras have left."""
        with self._lock:
            for camera in cameras:
                if detector := self._detectors.pop(camera, None):
                    self._publish(camera, detector.end())

    def _publish(self, camera: str, events: Sequence[FaceEvent]) -> None:
        header = self._headers[camera]
        for event in events:
            self._events.publish(self._classes.event(event, header, camera))
        if events:
            states = {name: detector.states for name, detector in self._detectors.items()}
            self._scene.publish(self._classes.scene(states, header))
