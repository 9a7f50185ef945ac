# SPDX-License-Identifier: Apache-2.0
"""The inference thread: takes the newest image of each camera and runs the video pipeline.

Independent of rclpy.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from dan_ros.errors import GpuLostError
from dan_ros.faces.blur import blur_faces
from dan_ros.labels import label_of
from dan_ros.messages import stamp_to_ns
from dan_ros.pipeline import STAGES as PIPELINE_STAGES
from dan_ros.stage_timer import StageTimer
from dan_ros.tracking.face_tracker import TrackedFace
from dan_ros.types import Frame
from dan_ros.video_pipeline import StampedFrame, VideoPipeline

LOG = logging.getLogger(__name__)

WAIT, DECODE, PUBLISH = 'wait', 'decode', 'publish'
STAGES = (WAIT, DECODE, *PIPELINE_STAGES, PUBLISH)  # stages of an image, in order

RATE_CHECK_S = 0.1  # interval at which a waiting thread notices a change of `max_hz`, seconds

Item = TypeVar('Item')


class LatestFrameBuffer(Generic[Item]):
    """Holds only the newest item of each camera, so that no queue builds up."""

    def __init__(self) -> None:
        self._items: dict[str, Item] = {}
        self._changed = threading.Condition()
        self._is_open = True

    def put(self, camera: str, item: Item) -> bool:
        """Store an item; return whether it replaced one that was not taken."""
        with self._changed:
            replaced = camera in self._items
            self._items[camera] = item
            self._changed.notify()
        return replaced

    def take(self) -> dict[str, Item]:
        """Wait for items and take them, by camera; {} once the buffer is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or not self._is_open)
            if not self._is_open:
                return {}
            items, self._items = self._items, {}
            return items

    def close(self) -> int:
        """Wake all waiting threads; return the number of items that were not taken."""
        with self._changed:
            self._is_open = False
            self._changed.notify_all()
            return len(self._items)


@dataclass(frozen=True)
class StampedMessage:
    """An image message."""

    message: Any  # a message with a header
    decode: Callable[[], Frame]  # decodes the image; raises a FrameError if it is damaged
    received_s: float  # arrival time on the monotonic clock, seconds


@dataclass(frozen=True)
class FrameResult:
    """A processed image and its faces."""

    camera: str  # key of the image in the buffer
    stamped: StampedMessage  # the message
    captured: Frame  # the image as the camera sent it; publish `frame` instead
    faces: list[TrackedFace]  # the faces to publish
    hidden_boxes: Sequence[np.ndarray] = ()  # float [4] each, pixels; faces that must not be shown

    @cached_property
    def frame(self) -> Frame:
        """The image without the hidden faces; drawn when it is first needed."""
        return blur_faces(self.captured, self.hidden_boxes)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the image, pixels."""
        return self.captured.size

    @property
    def header(self) -> Any:
        """Header of the image message."""
        return self.stamped.message.header


class FrameHandler(Protocol):
    """Callbacks, which the inference thread calls in its own thread."""

    @property
    def max_hz(self) -> float:
        """Maximum number of runs per second now; 0 for no limit."""

    def prepare(self, video: VideoPipeline) -> None:
        """Update the settings before a run."""

    def publish(self, result: FrameResult) -> None:
        """Publish the result of an image."""

    def count_stages(self, images: int, seconds: dict[str, float]) -> None:
        """Record the seconds spent in each of `STAGES`, summed over `images` images."""

    def report_failure(self, camera: str, error: Exception) -> None:
        """Count an image that could not be processed."""


class InferenceThread:
    """Runs a video pipeline in its own thread, for all cameras in one batch.

    Nothing else may use `video` while it runs; `stop` closes `buffer`.
    """

    def __init__(
        self, video: VideoPipeline, buffer: LatestFrameBuffer[StampedMessage], handler: FrameHandler
    ) -> None:
        self._video = video
        self._buffer = buffer
        self._handler = handler
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name='inference', daemon=True)

    def start(self) -> None:
        """Start taking images."""
        self._thread.start()

    def stop(self) -> int:
        """Stop after the current run; return the number of images that were not processed."""
        self._stopping.set()
        remaining = self._buffer.close()
        if self._thread.is_alive():
            self._thread.join()
        return remaining

    def _run(self) -> None:
        started_s = float('-inf')
        while not self._stopping.is_set():
            self._limit_rate(started_s)
            messages = self._buffer.take()
            started_s = time.monotonic()
            self._process(messages)

    def _limit_rate(self, started_s: float) -> None:
        """Wait before the newest image is taken, so that it is fresh."""
        while (max_hz := self._handler.max_hz) > 0 and not self._stopping.is_set():
            remaining_s = started_s + 1 / max_hz - time.monotonic()
            if remaining_s <= 0:
                return
            self._stopping.wait(min(remaining_s, RATE_CHECK_S))

    def _process(self, messages: dict[str, StampedMessage]) -> None:
        timer = StageTimer()
        now_s = time.monotonic()
        frames = self._decode(messages)
        if not frames:
            return
        waited_s = sum(now_s - messages[camera].received_s for camera in frames)
        timer.lap(DECODE)
        results, is_joint_run = self._run_pipeline(frames)
        timer.lap('run')
        for camera, faces in results.items():
            try:
                hidden_boxes = self._video.hidden_boxes(camera)
                frame = frames[camera].frame
                self._handler.publish(
                    FrameResult(camera, messages[camera], frame, faces, hidden_boxes)
                )
            except Exception as error:  # the thread must survive any error of the middleware
                self._handler.report_failure(camera, error)
        timer.lap(PUBLISH)
        if is_joint_run:
            seconds = {WAIT: waited_s, **timer.seconds, **self._video.pipeline.timer.seconds}
            seconds = {stage: seconds.get(stage, 0.0) for stage in STAGES}
            self._handler.count_stages(len(frames), seconds)
            if LOG.isEnabledFor(logging.DEBUG):
                LOG.debug('processed %s', _summary(results, seconds))

    def _run_pipeline(
        self, frames: dict[str, StampedFrame]
    ) -> tuple[dict[str, list[TrackedFace]], bool]:
        """Return the faces by camera, and whether all frames were processed in one run."""
        try:
            self._handler.prepare(self._video)
            return self._video.run(frames), True
        except Exception as error:  # the thread must survive any error of a backend
            if len(frames) == 1 or isinstance(error, GpuLostError):
                for camera in frames:
                    self._handler.report_failure(camera, error)
                return {}, False
        # Process each frame separately, so that a bad one does not affect the other cameras.
        results: dict[str, list[TrackedFace]] = {}
        for camera, frame in frames.items():
            results.update(self._run_pipeline({camera: frame})[0])
        return results, False

    def _decode(self, messages: dict[str, StampedMessage]) -> dict[str, StampedFrame]:
        frames: dict[str, StampedFrame] = {}
        for camera, stamped in messages.items():
            try:
                frames[camera] = StampedFrame(
                    stamped.decode(),
                    stamp_to_ns(stamped.message.header.stamp),
                    round(stamped.received_s * 1e9),
                )
            except Exception as error:  # FrameError, or out of memory
                self._handler.report_failure(camera, error)
        return frames


def _summary(results: dict[str, list[TrackedFace]], seconds: dict[str, float]) -> str:
    """Return the faces of each camera and the time of each stage, in one line."""
    cameras = []
    for camera, faces in results.items():
        names = ', '.join(f'{face.face_id} {label_of(face.expression)}' for face in faces)
        cameras.append(f'{camera}: faces [{names}]')
    stages = [f'{stage} {1e3 * value:.1f}' for stage, value in seconds.items()]
    return f'{", ".join(cameras)}; ms: {", ".join(stages)}'
