# SPDX-License-Identifier: Apache-2.0
"""Loads detector, model and backend, and runs them once."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, replace

import numpy as np

from dan_ros.backends import Selection, choose_backend
from dan_ros.backends.base import smoke_test
from dan_ros.detect import Detector, open_detector
from dan_ros.detect.full_frame import FullFrameDetector
from dan_ros.errors import BackendError, ParameterError
from dan_ros.model.store import expand_path, require_model
from dan_ros.pipeline import ExpressionPipeline
from dan_ros.probabilities import Calibration
from dan_ros.ros.parameters import CROPPED_FACES, Settings
from dan_ros.types import Frame
from dan_ros.video_pipeline import VideoPipeline

WARM_UP_SIZE = (480, 640)  # height, width, pixels


@dataclass(frozen=True)
class Models:
    """The loaded models."""

    selection: Selection  # the backend in use and the reason for it
    video: VideoPipeline  # the pipeline

    @property
    def warnings(self) -> list[str]:
        """Warnings about the choice of backend and detector."""
        warnings = (self.selection.warning, self.video.pipeline.detector.warning)
        return [warning for warning in warnings if warning]

    def problem_with(self, settings: Settings) -> str:
        """Return why the models cannot work with live settings, in one line, or ''."""
        try:
            self.video.pipeline.calibrator.check(settings.video.pipeline.prior)
        except ParameterError as error:
            return f'expression.prior: {error}'
        return ''

    @property
    def description(self) -> str:
        """Description of the model, backend and detector in use, for the log."""
        backend, detector = self.selection.backend, self.video.pipeline.detector
        return (
            f'model {backend.model_name}, backend {backend.name} on {backend.device} '
            f'({self.selection.reason}), detector {detector.name} on {detector.device}'
        )


def load_models(
    settings: Settings, new_ids: Iterator[str], on_progress: Callable[[str], object]
) -> Models:
    """Load the models and warm them up; call `on_progress` before each slow step.

    Raises:
        DanError: a file or library is missing or invalid, or the model gives no usable answer.
    """
    require_model(settings.backend.model)
    path = settings.calibration
    calibration = Calibration.read(expand_path(path)) if path else None
    with ThreadPoolExecutor(1) as thread:  # so that detector and network load at the same time
        opened = thread.submit(_open_detector, settings, on_progress)
        if settings.detector.device != 'cpu':
            wait([opened])  # CUDA graphs cannot be recorded while another thread uses the GPU
        config = replace(settings.backend.config, on_progress=on_progress)
        selection = choose_backend(settings.backend.name, settings.backend.model, config)
    detector = opened.result() or FullFrameDetector(selection.backend.model.crop_scale)
    pipeline = ExpressionPipeline(detector, selection.backend, settings.video.pipeline, calibration)
    video = VideoPipeline(pipeline, settings.video, new_ids)
    pipeline.run([Frame(np.zeros((*WARM_UP_SIZE, 3), np.uint8))])
    selection.backend.warm_up()
    smoke_test(selection.backend)
    return Models(selection, video)


def _open_detector(settings: Settings, on_progress: Callable[[str], object]) -> Detector | None:
    """Open the detector of camera images; cropped faces need none."""
    if settings.input == CROPPED_FACES:
        return None
    device = settings.detector.device
    try:
        return open_detector(**vars(settings.detector), on_progress=on_progress)
    except BackendError as error:
        if device == 'cpu':
            raise
        raise BackendError(f'detector.device {device}: {error}') from error
