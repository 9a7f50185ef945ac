# SPDX-License-Identifier: Apache-2.0
"""Times the detectors and the whole pipeline by image size, number of faces and threads."""

import itertools
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from dan_ros.backends import Backend, open_backend
from dan_ros.backends.base import available_cpus, node_threads
from dan_ros.bench.backends import Unavailable
from dan_ros.bench.scenes import make_moving_scenes, make_scene
from dan_ros.bench.timer import Comparison, Limit, compare, elapsed_ms, run_interleaved
from dan_ros.detect import DETECTORS, Detector, open_detector
from dan_ros.errors import DanError, count_of
from dan_ros.pipeline import STAGES, ExpressionPipeline
from dan_ros.types import Frame
from dan_ros.video_pipeline import StampedFrame, VideoConfig, VideoPipeline

WIDTHS = (320, 640, 1280)  # widths of images for detectors, pixels
DEFAULT_WIDTH = 640  # default of detector.max_side_px
SIZES, COUNTS = ((640, 480), (1280, 720)), (1, 4)
INTERVAL = 10  # images between two full searches
WITH_INTERVAL = f'detector.interval: {INTERVAL}'
TOTAL = 'total'
PERIOD_NS = 33_000_000  # between two images


@dataclass
class PipelineTimes(Comparison):
    """Times of the pipeline by its settings.

    Attributes:
        steps_ms: setting -> step of `STAGES` -> median time, milliseconds.
        found: number of faces that were classified. The times are too short if some are missing.
    """

    steps_ms: dict[str, dict[str, float]] = field(default_factory=dict)
    found: int = 0


class IntervalRun:
    """Callable that processes the images of one `detector.interval`, with faces that move slowly.

    The images have the `size` (width, height), pixels. `face_bgr` is uint8 [h, h, 3].
    """

    def __init__(
        self,
        pipeline: ExpressionPipeline,
        size: tuple[int, int],
        faces: int,
        face_bgr: np.ndarray,
        interval: int,
    ) -> None:
        self.interval = interval
        images = make_moving_scenes(size, faces, face_bgr, interval)
        self._frames = itertools.cycle([Frame(image) for image in images])
        config = VideoConfig(detector_interval=interval, pipeline=pipeline.config)
        self._video = VideoPipeline(pipeline, config)
        self._stamp_ns = 0

    def __call__(self) -> None:
        """Search the full first image, and only parts of the others."""
        for _ in range(self.interval):
            self._stamp_ns += PERIOD_NS
            self._video.run({'/camera': StampedFrame(next(self._frames), self._stamp_ns)})


def open_detectors(threads: int) -> tuple[dict[str, Detector], list[Unavailable]]:
    """Open all detectors.

    Returns:
        The working detectors by name, the node's default first; and those that do not work.

    Raises:
        DanError: no detector works.
    """
    detectors: dict[str, Detector] = {}
    unavailable = []
    for name in [name for name in DETECTORS if name != 'auto']:
        try:
            detectors[name] = open_detector(name, threads=threads)
        except (DanError, ImportError) as error:
            unavailable.append(Unavailable(f'detector {name}', str(error)))
    if not detectors:
        raise DanError('no detector works: ' + '; '.join(one.reason for one in unavailable))
    return detectors, unavailable


def compare_detectors(
    detectors: Mapping[str, Detector], face_bgr: np.ndarray, limit: Limit
) -> Comparison:
    """Time each detector on images of several widths with an aspect ratio of 4:3."""
    images = {width: make_scene(width, width * 3 // 4, 1, face_bgr) for width in WIDTHS}
    variants: dict[str, Callable[[], object]] = {
        detector_variant(name, width): partial(detector.detect, image)
        for name, detector in detectors.items()
        for width, image in images.items()
    }
    baseline = detector_variant(next(iter(detectors)), DEFAULT_WIDTH)
    return compare('detector', variants, limit, baseline=baseline)


def detector_variant(name: str, width: int) -> str:
    """Name a variant of `compare_detectors`."""
    return f'{name}, {width} px wide'


def threads_variant(threads: int) -> str:
    """Name a variant of `time_pipelines`."""
    return count_of(threads, 'thread')


def open_pipelines(backend: Backend, detector: str) -> dict[int, ExpressionPipeline]:
    """Open the pipeline with the node's default number of threads, with 1, and with all cores.

    On a GPU all share `backend`, and only the detector differs.
    """
    pipelines = {}
    for threads in dict.fromkeys([node_threads(), 1, available_cpus()]):
        is_on_cpu = backend.device == 'cpu'
        own = open_backend(backend.name, backend.model_name, threads) if is_on_cpu else backend
        pipelines[threads] = ExpressionPipeline(open_detector(detector, threads=threads), own)
    return pipelines


def time_pipelines(
    pipelines: Mapping[int, ExpressionPipeline],
    size: tuple[int, int],
    faces: int,
    face_bgr: np.ndarray,
    limit: Limit,
) -> PipelineTimes:
    """Time the pipeline on one image by number of threads, and with `detector.interval`."""
    frame = Frame(make_scene(*size, faces, face_bgr))
    default = next(iter(pipelines.values()))
    variants = {
        threads_variant(threads): _timed(pipeline, partial(pipeline.run, [frame]))
        for threads, pipeline in pipelines.items()
    }
    interval_run = IntervalRun(default, size, faces, face_bgr, INTERVAL)
    variants[WITH_INTERVAL] = _timed(default, interval_run, INTERVAL)
    medians = {
        name: {step: statistics.median(run[step] for run in runs) for step in runs[0]}
        for name, runs in run_interleaved(variants, limit).items()
    }
    return PipelineTimes(
        f'pipeline, {size[0]}x{size[1]}, {faces} face(s)',
        next(iter(variants)),
        {name: steps_ms.pop(TOTAL) for name, steps_ms in medians.items()},
        {name: steps_ms for name, steps_ms in medians.items() if name != WITH_INTERVAL},
        sum(face.is_classified for face in default.run([frame])[0]),
    )


def _timed(
    pipeline: ExpressionPipeline, run: Callable[[], object], images: int = 1
) -> Callable[[], dict[str, float]]:
    """Return a function that measures `TOTAL` per image and the `STAGES` of the last image, ms."""

    def measure() -> dict[str, float]:
        total_ms = elapsed_ms(run) / images
        steps_ms = {step: 1e3 * pipeline.timer.seconds.get(step, 0.0) for step in STAGES}
        return {TOTAL: total_ms, **steps_ms}

    return measure
