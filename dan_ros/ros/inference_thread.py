"""The newest image of each camera, between the executor's thread and the inference thread."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from dan_ros.errors import GpuLostError
from dan_ros.pipeline import STEPS as PIPELINE_STEPS
from dan_ros.pipeline import ExpressionPipeline
from dan_ros.stopwatch import Stopwatch
from dan_ros.types import FaceExpression, Frame, SearchHint

Item = TypeVar('Item')


class LatestFrameBuffer(Generic[Item]):
    """Holds one item a camera; a newer one takes its place, so that nothing ever queues."""

    def __init__(self) -> None:
        self._items: dict[str, Item] = {}
        self._changed = threading.Condition()
        self._is_open = True

    def put(self, camera: str, item: Item) -> bool:
        """Store an item; whether it took the place of one that nobody had taken yet."""
        with self._changed:
            replaced = camera in self._items
            self._items[camera] = item
            self._changed.notify()
        return replaced

    def take(self) -> dict[str, Item]:
        """Wait for an item and take what is there, by camera; {} once the inbox is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or not self._is_open)
            if not self._is_open:
                return {}
            items, self._items = self._items, {}
            return items

    def close(self) -> int:
        """Wake whoever waits, and give the number of items nobody took; there are no more."""
        with self._changed:
            self._is_open = False
            self._changed.notify_all()
            return len(self._items)


WAIT, DECODE, PUBLISH = 'wait', 'decode', 'publish'
STEPS = (WAIT, DECODE, *PIPELINE_STEPS, PUBLISH)  # what happens to an image, in this order

LOOK_S = 0.1  # so often a waiting thread looks whether the rate was changed


@dataclass(frozen=True)
class StampedMessage:
    """An image, raw or compressed, and when it came, seconds of the steady clock."""

    message: Any
    received_s: float


@dataclass(frozen=True)
class FrameResult:
    """A processed image: where it came from, and what was found in it."""

    camera: str
    arrival: StampedMessage
    frame: Frame
    faces: list[FaceExpression]


class InferenceThread:
    """Runs the pipeline in one thread of its own, for all cameras in one batch.

    Args:
        pipeline: used by this thread alone while it runs.
        inbox: where images come from; is closed by `stop`.
        to_frame: decodes an image's message, or raises a FrameError.
        prepare: called before each run with its cameras, in the thread of the runs: may change the
            pipeline; gives what is known before, for each camera.
        publish: called with the outcome of each image.
        timed: called after each run with the number of its images and the seconds of each of
            `STEPS`.
        failed: called with a camera and the exception when an image could not be processed.

    Attributes:
        max_hz: most runs a second; 0 is no limit. May be changed at any time.
    """

    def __init__(
        self,
        pipeline: ExpressionPipeline,
        inbox: LatestFrameBuffer[StampedMessage],
        to_frame: Callable[[Any], Frame],
        prepare: Callable[[list[str]], list[SearchHint]],
        publish: Callable[[FrameResult], None],
        timed: Callable[[int, dict[str, float]], None],
        failed: Callable[[str, Exception], None],
    ) -> None:
        self.max_hz = 0.0
        self._pipeline = pipeline
        self._inbox = inbox
        self._to_frame = to_frame
        self._prepare = prepare
        self._publish = publish
        self._timed = timed
        self._failed = failed
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name='inference', daemon=True)

    def start(self) -> None:
        """Begin to take images."""
        self._thread.start()

    def stop(self) -> int:
        """End the thread after the run it is in; gives the number of images nobody took."""
        self._stopping.set()
        left = self._inbox.close()
        if self._thread.is_alive():
            self._thread.join()
        return left

    def _run(self) -> None:
        started_s = float('-inf')
        while not self._stopping.is_set():
            self._wait_for_turn(started_s)
            arrivals = self._inbox.take()
            started_s = time.monotonic()
            self._process(arrivals)

    def _wait_for_turn(self, started_s: float) -> None:
        """Keep the rate by waiting before the newest image is taken, so that it is fresh."""
        while (max_hz := self.max_hz) > 0 and not self._stopping.is_set():
            left_s = started_s + 1 / max_hz - time.monotonic()
            if left_s <= 0:
                return
            self._stopping.wait(min(left_s, LOOK_S))

    def _process(self, arrivals: dict[str, StampedMessage]) -> None:
        watch = Stopwatch()
        now_s = time.monotonic()
        frames = self._decode(arrivals)
        if not frames:
            return
        waited_s = sum(now_s - arrivals[camera].received_s for camera in frames)
        watch.lap(DECODE)
        found, is_one_run = self._find(frames)
        watch.lap('run')
        for camera, faces in found.items():
            try:
                self._publish(FrameResult(camera, arrivals[camera], frames[camera], faces))
            except Exception as error:  # whatever a middleware can raise must not end the thread
                self._failed(camera, error)
        watch.lap(PUBLISH)
        if is_one_run:
            steps = {WAIT: waited_s, **watch.seconds, **self._pipeline.watch.seconds}
            self._timed(len(frames), {step: steps.get(step, 0.0) for step in STEPS})

    def _find(self, frames: dict[str, Frame]) -> tuple[dict[str, list[FaceExpression]], bool]:
        """Faces of the frames that could be processed; whether that was one run."""
        try:
            priors = self._prepare(list(frames))
            found = self._pipeline.run(list(frames.values()), priors)
        except Exception as error:  # likewise a backend
            if len(frames) == 1 or isinstance(error, GpuLostError):
                for camera in frames:
                    self._failed(camera, error)
                return {}, False
            # Alone, those that are not to blame succeed.
            alone = [self._find({camera: frame}) for camera, frame in frames.items()]
            return {camera: faces for one, _ in alone for camera, faces in one.items()}, False
        return dict(zip(frames, found, strict=True)), True

    def _decode(self, arrivals: dict[str, StampedMessage]) -> dict[str, Frame]:
        frames: dict[str, Frame] = {}
        for camera, arrival in arrivals.items():
            try:
                frames[camera] = self._to_frame(arrival.message)
            except Exception as error:  # a FrameError, or there is no memory for the pixels
                self._failed(camera, error)
        return frames
