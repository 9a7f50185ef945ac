# SPDX-License-Identifier: Apache-2.0
"""Child process of against_baseline.py: times the pipeline on its PYTHONPATH.

Reads one JSON object per line: the path of the images (.npy, uint8 [N, H, W, 3]) and a value of
detector.interval. Answers with milliseconds per image. It also has to work with the package of the
baseline.
"""

import itertools
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from dan_ros.backends import choose_backend, open_backend
from dan_ros.detect import open_detector
from dan_ros.pipeline import ExpressionPipeline
from dan_ros.types import Frame

CAMERA = '/camera/image_raw'
PERIOD_NS = 33_333_333  # between two images
WARM_UP_CYCLES = 2
# On a busy machine, the CPU time of the main thread is close to the wall time on an idle machine.
CLOCKS = {
    'wall clock, ms': time.perf_counter,
    'main thread, ms': time.thread_time,
    'all threads, ms': time.process_time,
}


def open_node_pipeline() -> ExpressionPipeline:
    """Open the pipeline with as many threads as the node uses by default."""
    try:
        from dan_ros.backends.base import BackendConfig, node_parallel_runs, node_threads
    except ImportError:
        from dan_ros.cores import node_threads  # the baseline

        backend = open_backend('onnxruntime', threads=node_threads())
    else:
        config = BackendConfig(node_threads(), parallel_runs=node_parallel_runs())
        backend = choose_backend('onnxruntime', config=config).backend
    return ExpressionPipeline(open_detector('yunet', threads=node_threads()), backend)


def open_video(pipeline: ExpressionPipeline, interval: int) -> Callable[[Frame, int], Any]:
    """Return a function that processes one frame with its stamp, and returns its faces."""
    try:
        from dan_ros.video_pipeline import StampedFrame, VideoConfig, VideoPipeline
    except ImportError:
        return _open_baseline_video(pipeline, interval)
    video = VideoPipeline(pipeline, VideoConfig(detector_interval=interval))
    return lambda frame, stamp_ns: video.run({CAMERA: StampedFrame(frame, stamp_ns)})[CAMERA]


def _open_baseline_video(
    pipeline: ExpressionPipeline, interval: int
) -> Callable[[Frame, int], Any]:
    from dan_ros.following import Follower

    follower = Follower(f'f{number}' for number in itertools.count(1))

    def run(frame: Frame, stamp_ns: int) -> Any:
        (faces,) = pipeline.run([frame], [follower.prior(interval)])
        return follower.update(faces, stamp_ns)

    return run


class Cycle:
    """Processes the images of one cycle and measures the time per image."""

    def __init__(self, pipeline: ExpressionPipeline, images: str, interval: int) -> None:
        self._frames = [Frame(image) for image in np.load(images)]
        self._run = open_video(pipeline, interval)
        self._stamps_ns = itertools.count(0, PERIOD_NS)
        for _ in range(WARM_UP_CYCLES):
            self()

    def __call__(self) -> dict[str, float]:
        """Return milliseconds per image and the mean number of faces."""
        before = [clock() for clock in CLOCKS.values()]
        faces = sum(len(self._run(frame, next(self._stamps_ns))) for frame in self._frames)
        after = [clock() for clock in CLOCKS.values()]
        times = zip(CLOCKS, before, after, strict=True)
        images = len(self._frames)
        return {
            **{name: 1e3 * (end - start) / images for name, start, end in times},
            'faces': faces / images,
        }


def main() -> None:
    """Answer one line per request until the input ends."""
    new_cycle = partial(Cycle, open_node_pipeline())
    cycles: dict[str, Cycle] = {}
    for line in sys.stdin:
        if line not in cycles:
            cycles[line] = new_cycle(**json.loads(line))
        sys.stdout.write(json.dumps(cycles[line]()) + '\n')
        sys.stdout.flush()


if __name__ == '__main__':
    main()
