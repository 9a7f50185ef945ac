# SPDX-License-Identifier: Apache-2.0
"""From camera images to expressions: find the faces, crop them, classify them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dan_ros import labels
from dan_ros.backends import NO_SERVER, Backend, ServerConfig, open_backend
from dan_ros.detect import Detector, open_detector
from dan_ros.detect.face_finder import DETECT, REDUCE, FaceFinder
from dan_ros.errors import ParameterError
from dan_ros.faces import quality
from dan_ros.faces.boxes import area, is_same_place
from dan_ros.faces.crop import crop_face
from dan_ros.faces.quality import QualityThresholds
from dan_ros.model import store
from dan_ros.probabilities import MODEL_PRIOR, Calibration, Calibrator, Prior
from dan_ros.stage_timer import StageTimer
from dan_ros.types import NO_HINT, Face, FaceExpression, Frame, SearchHint

CROP, INFER = 'crop', 'infer'
STAGES = (REDUCE, DETECT, CROP, INFER)  # stages of a run, in order
ROTATIONS = (0, 90, 180, 270)

_NO_PROBABILITIES = np.zeros(len(labels.CANONICAL), np.float32)


@dataclass(frozen=True)
class PipelineConfig:
    """Settings of an `ExpressionPipeline`.

    Attributes:
        max_side_px: longer side of the downscaled copy on which faces are detected, pixels. Crops
            come from the full image.
        max_faces: faces classified per frame, the largest first. The area of a face that was
            classified in the last frame counts 25 % more, so that two similar faces do not
            alternate.
        rotation: clockwise rotation that makes the frames upright, 0, 90, 180 or 270 degrees.
            Results are in pixels of the frames as given.
        quality: thresholds that a face must pass to be classified.
        prior: how often each expression is assumed to occur.

    Raises:
        ParameterError: the rotation is another one.
    """

    max_side_px: int = 640
    max_faces: int = 16
    rotation: int = 0
    quality: QualityThresholds = field(default_factory=QualityThresholds)
    prior: Prior = MODEL_PRIOR

    def __post_init__(self) -> None:
        if self.rotation not in ROTATIONS:
            raise ParameterError(
                f'rotation cannot be {self.rotation!r}: it must be 0, 90, 180 or 270 (degrees)'
            )


class ExpressionPipeline:
    """Finds every face in a set of frames and classifies its expression.

    A pipeline must not be used by two threads at the same time.

    Args:
        detector: finds faces.
        backend: classifies them.
        config: see `PipelineConfig`.
        calibration: replaces temperature and prior of the model.

    Attributes:
        config: may be replaced between two runs.
        calibrator: converts logits to probabilities.
        timer: seconds spent in each of `STAGES` during the last run.

    Raises:
        ModelError: the calibration is for another model.
        ParameterError: the prior cannot be used with the model.
    """

    def __init__(
        self,
        detector: Detector,
        backend: Backend,
        config: PipelineConfig | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        self.detector = detector
        self.backend = backend
        self.config = config or PipelineConfig()
        self.calibrator = Calibrator.create(backend.model, calibration)
        self.calibrator.check(self.config.prior)
        self.timer = StageTimer()

    @classmethod
    def open(
        cls,
        model: str = store.DEFAULT_MODEL,
        backend: str = 'auto',
        detector: str = 'auto',
        calibration: Calibration | None = None,
        server: ServerConfig = NO_SERVER,
        **config: Any,
    ) -> 'ExpressionPipeline':
        """Open a model, a backend and a detector by name.

        Args:
            model: name or path of a model, see `open_backend`.
            backend: name of a backend, see `open_backend`.
            detector: name of a detector, see `open_detector`.
            calibration: replaces temperature and prior of the model.
            server: the server of the backend kserve.
            config: fields of `PipelineConfig`.

        Raises:
            DanError: a name is unknown, or a file or library is missing or invalid.
        """
        loaded = (open_detector(detector), open_backend(backend, model, server=server))
        return cls(*loaded, PipelineConfig(**config), calibration)

    def run(
        self, frames: Sequence[Frame], hints: Sequence[SearchHint] = ()
    ) -> list[list[FaceExpression]]:
        """Find and classify the faces of every frame, all in one batch.

        Args:
            frames: one per camera.
            hints: one per frame, derived from earlier frames; () for none.

        Returns:
            The faces of each frame, the largest first, including those that were not classified.
        """
        self.timer.restart()
        hints = hints or [NO_HINT] * len(frames)
        candidates = [
            self._candidates(frame, hint) for frame, hint in zip(frames, hints, strict=True)
        ]
        batch = self._crop(candidates)
        self.timer.lap(CROP)
        probabilities = self.calibrator.probabilities(self.backend.infer(batch), self.config.prior)
        self.timer.lap(INFER)
        return [[candidate.result(probabilities) for candidate in own] for own in candidates]

    def find_faces(self, frame: Frame, hint: SearchHint = NO_HINT) -> list[Face]:
        """Find the faces of one frame; see `FaceFinder.find`."""
        finder = FaceFinder(self.detector, self.config.max_side_px, self._quarter_turns, self.timer)
        return finder.find(frame, hint)

    @property
    def _quarter_turns(self) -> int:
        return self.config.rotation // 90

    def _candidates(self, frame: Frame, hint: SearchHint) -> list['_Candidate']:
        candidates = []
        for face in self.find_faces(frame, hint):
            is_known = any(is_same_place(face.box_xyxy, box) for box in hint.classified_boxes)
            thresholds = self.config.quality.relaxed() if is_known else self.config.quality
            reason = thresholds.rejection_reason(face)
            if not hint.allows(face.box_xyxy):
                reason = quality.NO_CONSENT
            candidates.append(_Candidate(frame, face, is_known, thresholds, reason))
        return candidates

    def _crop(self, candidates: list[list['_Candidate']]) -> np.ndarray:
        """Crop the faces to classify, upright: uint8 [N, H, W, 3] RGB.

        Each candidate gets a row in the batch, or a reason why it is not in the batch.
        """
        max_faces = self.config.max_faces
        accepted = [[candidate for candidate in own if not candidate.reason] for own in candidates]
        capacity = sum(min(len(own), max_faces) for own in accepted)
        batch = np.empty((capacity, *self.backend.model.input_size, 3), np.uint8)
        count = 0
        for own in accepted:
            end = count + max_faces
            for candidate in sorted(own, key=_Candidate.priority):
                if count == end:
                    candidate.reason = quality.TOO_MANY
                elif self._crop_one(candidate, batch[count]):
                    candidate.row = count
                    count += 1
                else:
                    candidate.reason = quality.BLURRED
        return batch[:count]

    def _crop_one(self, candidate: '_Candidate', out: np.ndarray) -> bool:
        """Crop a face into its row of the batch; return whether it is sharp enough."""
        scale = self.backend.model.crop_scale
        crop_face(candidate.frame, candidate.face.box_xyxy, scale, out, self._quarter_turns)
        return candidate.thresholds.is_sharp(out)


@dataclass
class _Candidate:
    """A detected face during a run."""

    frame: Frame  # image that shows the face
    face: Face  # the detection
    is_known: bool  # whether the face was classified in the last frame
    thresholds: QualityThresholds  # quality thresholds for this face
    reason: str  # why the face is not classified, or ''
    row: int = -1  # index in the batch, -1 if the face is not classified

    def priority(self) -> float:
        """Sort key: the candidate with the lowest value is classified first."""
        return -area(self.face.box_xyxy) / (quality.RELAXED**2 if self.is_known else 1)

    def result(self, probabilities: np.ndarray) -> FaceExpression:
        """Combine the face with its row of `probabilities`, float32 [N, 8]."""
        if self.reason:
            return FaceExpression(self.face, _NO_PROBABILITIES, self.reason)
        own = probabilities[self.row]
        return FaceExpression(self.face, own, '' if own.any() else quality.NO_ANSWER)
