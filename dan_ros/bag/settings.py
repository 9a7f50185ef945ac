# SPDX-License-Identifier: Apache-2.0
"""Settings for the conversion of a bag, as plain values that can be sent to other processes."""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from dan_ros import __version__
from dan_ros.model import store
from dan_ros.pipeline import PipelineConfig
from dan_ros.probabilities import MODEL_PRIOR, Calibration, Prior
from dan_ros.tracking.config import TrackerConfig
from dan_ros.video_pipeline import VideoConfig

FORMAT = 1  # version of the results; a change converts all bags again


@dataclass(frozen=True)
class BagSettings:
    """The options of `dan-ros bag` that affect its results."""

    topics: tuple[str, ...] = ()  # image topics; () for all cameras
    video: bool = False  # also write a video per camera
    blur: bool = False  # hide the faces in the videos
    annotations: bool = False  # also write foxglove_msgs/ImageAnnotations
    model: str = store.DEFAULT_MODEL  # known name or path
    backend: str = 'auto'  # see `open_backend`
    detector: str = 'auto'  # see `open_detector`
    max_side_px: int = PipelineConfig.max_side_px
    max_faces: int = PipelineConfig.max_faces
    rotation: int = PipelineConfig.rotation
    half_life_s: float = TrackerConfig.half_life_s
    min_confidence: float = TrackerConfig.min_confidence
    prior: Prior = MODEL_PRIOR
    calibration: Calibration | None = None

    def to_config(self) -> VideoConfig:
        """Return the settings of the pipeline."""
        return VideoConfig(
            blur=self.blur,
            pipeline=PipelineConfig(
                max_side_px=self.max_side_px,
                max_faces=self.max_faces,
                rotation=self.rotation,
                prior=self.prior,
            ),
            tracker=TrackerConfig(half_life_s=self.half_life_s, min_confidence=self.min_confidence),
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        values: dict[str, Any] = json.loads(json.dumps(asdict(self), default=str))
        return values

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> 'BagSettings':
        """Return the settings of `to_json`."""
        prior, calibration = values['prior'], values['calibration']
        if calibration:
            rows = tuple(map(tuple, calibration.get('weights', ())))
            calibration = Calibration(**{**calibration, 'weights': rows})
        special = {
            'topics': tuple(values['topics']),
            'prior': Prior(prior['strength'], tuple(prior['shares'])),
            'calibration': calibration,
        }
        return cls(**{**values, **special})

    def fingerprint(self, model_sha256: str) -> str:
        """Return a SHA-256 of everything except the bag that affects the results."""
        content = {
            **self.to_json(),
            'model': model_sha256,
            'version': __version__,
            'format': FORMAT,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
