"""Detectors and the whole pipeline, by size of the image, faces and threads."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from dan_ros.backends import Backend, open_backend
from dan_ros.backends.base import available_cpus, node_threads
from dan_ros.bench.backends import Unavailable
from dan_ros.bench.scenes import Walk, scene
from dan_ros.bench.timer import Comparison, Limit, compare, run_interleaved
from dan_ros.detect import DETECTORS, Detector, open_detector
from dan_ros.errors import DanError
from dan_ros.pipeline import STAGES, ExpressionPipeline
from dan_ros.types import Frame

WIDTHS = (320, 640, 1280)
TYPICAL_WIDTH = 640  # detector.max_side_px
SIZES, COUNTS = ((640, 480), (1280, 720)), (1, 4)
INTERVAL = 5
WITH_INTERVAL = f'detector.interval: {INTERVAL}'
TOTAL = 'total'


@dataclass
class PipelineTimes(Comparison):
    """Times of the pipeline by its settings.

    Attributes:
        steps_ms: median of each of `STAGES`, by settings.
        found: number of faces that were found and judged; fewer than there are makes it quicker.
    """

    steps_ms: dict[str, dict[str, float]] = field(default_factory=dict)
    found: int = 0


def open_detectors(threads: int) -> tuple[dict[str, Detector], list[Unavailable]]:
    """The detectors that open here, by name, the node's choice first; and those that do not.

    Raises:
        DanError: none opens.
    """
    detectors: dict[str, Detector] = {}
    absent = []
    for name in [name for name in DETECTORS if name != 'auto']:
        try:
            detectors[name] = open_detector(name, threads=threads)
        except (DanError, ImportError) as error:
            absent.append(Unavailable(f'detector {name}', str(error)))
    if not detectors:
        raise DanError('no detector opens here: ' + '; '.join(one.why for one in absent))
    return detectors, absent


def compare_detectors(
    detectors: Mapping[str, Detector], face_bgr: np.ndarray, limit: Limit
) -> Comparison:
    """Each detector by width of the image, whose height is three quarters of it."""
    images = {width: scene(width, width * 3 // 4, 1, face_bgr) for width in WIDTHS}
    ways: dict[str, Callable[[], object]] = {
        detector_way(name, width): partial(detector.detect, image)
        for name, detector in detectors.items()
        for width, image in images.items()
    }
    return compare('detector', ways, detector_way(next(iter(detectors)), TYPICAL_WIDTH), limit)


def detector_way(name: str, width: int) -> str:
    """Name of a row of `compare_detectors`."""
    return f'{name}, {width} px wide'


def threads_way(threads: int) -> str:
    """Name of a row of `time_pipelines`."""
    return f'{threads} thread{"s" if threads > 1 else ""}'


def open_pipelines(backend: Backend, detector: str) -> dict[int, ExpressionPipeline]:
    """The pipeline by its number of threads: the node's default first, then 1 and all cores.

    A backend on a GPU is the same in all; only the detector has threads there.
    """
    pipelines = {}
    for threads in dict.fromkeys([node_threads(), 1, available_cpus()]):
        own = backend
        if backend.device == 'cpu':
            own = open_backend(backend.name, backend.model_name, threads)
        pipelines[threads] = ExpressionPipeline(open_detector(detector, threads=threads), own)
    return pipelines


def time_pipelines(
    pipelines: Mapping[int, ExpressionPipeline],
    size: tuple[int, int],
    faces: int,
    face_bgr: np.ndarray,
    limit: Limit,
) -> PipelineTimes:
    """The pipeline on one image by threads, and on faces that move with `detector.interval`."""
    frame = Frame(scene(*size, faces, face_bgr))
    usual = next(iter(pipelines.values()))
    ways = {
        threads_way(threads): _timed(pipeline, partial(pipeline.run, [frame]))
        for threads, pipeline in pipelines.items()
    }
    walk = Walk(usual, size, faces, face_bgr, INTERVAL)
    ways[WITH_INTERVAL] = _timed(usual, walk, INTERVAL)
    returned = run_interleaved(ways, limit)
    medians = {
        name: {part: statistics.median(run[part] for run in runs) for part in runs[0]}
        for name, runs in returned.items()
    }
    return PipelineTimes(
        f'pipeline, {size[0]}x{size[1]}, {faces} face(s)',
        next(iter(ways)),
        {name: parts.pop(TOTAL) for name, parts in medians.items()},
        {name: parts for name, parts in medians.items() if name != WITH_INTERVAL},
        sum(face.is_judged for face in usual.run([frame])[0]),
    )


def _timed(
    pipeline: ExpressionPipeline, run: Callable[[], object], images: int = 1
) -> Callable[[], dict[str, float]]:
    """Milliseconds of a run over its images: `TOTAL`, and each of `STAGES` of the last image."""

    def measure() -> dict[str, float]:
        started_s = time.perf_counter()
        run()
        total_s = time.perf_counter() - started_s
        steps_ms = {step: 1e3 * pipeline.timer.seconds.get(step, 0.0) for step in STAGES}
        return {TOTAL: 1e3 * total_s / images, **steps_ms}

    return measure
