# SPDX-License-Identifier: Apache-2.0
"""The inference thread: cameras fail independently, and only results count in the timing."""

import threading
import time
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from dan_ros.errors import FrameError, GpuLostError
from dan_ros.pipeline import ExpressionPipeline
from dan_ros.ros.inference_thread import (
    STAGES,
    FrameResult,
    InferenceThread,
    LatestFrameBuffer,
    StampedMessage,
)
from dan_ros.types import Frame
from dan_ros.video_pipeline import VideoPipeline

WHITE = 255


class Breaking:
    """A detector that fails for an image whose first pixel is white."""

    name, warning, min_score = 'breaking', '', 0.6

    def __init__(self, detector, error: Exception) -> None:
        self._detector, self._error = detector, error

    def detect(self, image_bgr):
        if image_bgr[0, 0, 0] == WHITE:
            raise self._error
        return self._detector.detect(image_bgr)


def decode(image: np.ndarray | None) -> Frame:
    if image is None:
        raise FrameError('bad_data', 'no image')
    return Frame(image)


class Rig:
    """An inference thread and everything it reports."""

    max_hz = 0.0

    def __init__(self, pipeline: ExpressionPipeline, error: Exception) -> None:
        self.buffer: LatestFrameBuffer[StampedMessage] = LatestFrameBuffer()
        self.results: list[FrameResult] = []
        self.failures: list[tuple[str, Exception]] = []
        self.timed: list[tuple[int, dict[str, float]]] = []
        self._reported = threading.Semaphore(0)
        detector = Breaking(pipeline.detector, error)
        video = VideoPipeline(ExpressionPipeline(detector, pipeline.backend))
        self.thread = InferenceThread(video, self.buffer, self)

    def prepare(self, video: VideoPipeline) -> None:
        pass

    def publish(self, result: FrameResult) -> None:
        self.results.append(result)
        self._reported.release()

    def count_stages(self, images: int, seconds: dict[str, float]) -> None:
        self.timed.append((images, seconds))

    def report_failure(self, camera: str, error: Exception) -> None:
        self.failures.append((camera, error))
        self._reported.release()

    def run(self, images: dict) -> None:
        """Process one image of each camera at once, and stop."""
        self.put(images)
        self.thread.start()
        self.wait(images)
        self.thread.stop()

    def put(self, images: dict) -> None:
        header = SimpleNamespace(stamp=SimpleNamespace(sec=1, nanosec=0))
        for camera, image in images.items():
            message = SimpleNamespace(header=header)
            stamped = StampedMessage(message, partial(decode, image), time.monotonic())
            self.buffer.put(camera, stamped)

    def wait(self, images: dict) -> None:
        for _ in images:
            assert self._reported.acquire(timeout=30)


@pytest.fixture
def broken(portrait):
    image = portrait.copy()
    image[:8, :8] = WHITE
    return image


def test_other_cameras_continue_when_one_fails(pipeline, portrait, broken):
    rig = Rig(pipeline, MemoryError('no room'))
    rig.run({'/left': portrait, '/broken': broken, '/right': portrait})
    assert [(o.camera, len(o.faces)) for o in rig.results] == [('/left', 1), ('/right', 1)]
    assert [camera for camera, _ in rig.failures] == ['/broken']


def test_a_lost_gpu_is_not_used_again(pipeline, portrait, broken):
    rig = Rig(pipeline, GpuLostError('gone'))
    rig.run({'/broken': broken, '/right': portrait})
    assert rig.results == []
    assert [camera for camera, _ in rig.failures] == ['/broken', '/right']


def test_results_that_cannot_be_published_are_failures(pipeline, portrait, monkeypatch):
    rig = Rig(pipeline, MemoryError('no room'))
    publish = rig.publish

    def publish_right(result):
        if result.camera == '/left':
            raise RuntimeError('no writer')
        publish(result)

    monkeypatch.setattr(rig, 'publish', publish_right)
    rig.run({'/left': portrait, '/right': portrait})
    assert [result.camera for result in rig.results] == ['/right']
    assert [(camera, str(error)) for camera, error in rig.failures] == [('/left', 'no writer')]


def test_stages_are_timed_for_images_with_a_result(pipeline, portrait, broken):
    rig = Rig(pipeline, MemoryError('no room'))
    rig.run({'/left': portrait, '/right': None})
    ((frames, steps),) = rig.timed
    assert frames == 1
    assert tuple(steps) == STAGES
    assert all(seconds >= 0 for seconds in steps.values())
    assert steps['infer'] > 0


@pytest.mark.parametrize('image', [None, np.full((64, 64, 3), WHITE, np.uint8)])
def test_an_image_without_a_result_is_not_timed(pipeline, image):
    rig = Rig(pipeline, MemoryError('no room'))
    rig.run({'/left': image})
    assert rig.timed == []
    assert len(rig.failures) == 1


def test_a_change_of_the_rate_ends_a_long_wait(pipeline, portrait):
    rig = Rig(pipeline, MemoryError('no room'))
    rig.max_hz = 0.001
    rig.thread.start()
    for _ in range(2):
        rig.put({'/left': portrait})
        rig.wait({'/left': portrait})
        rig.max_hz = 0.0  # the thread waits 1000 s for its second run
    rig.thread.stop()
    assert len(rig.results) == 2
