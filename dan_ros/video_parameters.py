# SPDX-License-Identifier: Apache-2.0
"""Parameters of the pipeline over time, which the node and `dan-ros view` share; needs no ROS."""

from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dan_ros.errors import DanError, one_line
from dan_ros.faces.quality import QualityThresholds
from dan_ros.pipeline import ROTATIONS, PipelineConfig
from dan_ros.probabilities import Prior
from dan_ros.tracking.attention import AttentionConfig
from dan_ros.tracking.config import TrackerConfig
from dan_ros.tracking.events import EventConfig
from dan_ros.video_pipeline import VideoConfig

VIDEO = VideoConfig()
PIPELINE, TRACKER, QUALITY = VIDEO.pipeline, VIDEO.tracker, VIDEO.pipeline.quality


@dataclass(frozen=True)
class Spec:
    """One parameter."""

    name: str  # name with dots, such as detector.interval
    default: Any  # bool, int, float, str or list of str; defines the parameter's type
    description: str  # what it does, in full sentences
    unit: str = ''  # unit of the value, or ''
    limits: tuple[float, float] | None = None  # lowest and highest allowed number, or None
    choices: tuple[Any, ...] = ()  # allowed values; () for all
    live: bool = False  # whether it may be changed while the node is configured
    # Raises a DanError or ValueError if a value is invalid for another reason.
    check: Callable[[Any], object] | None = None
    takes_numbers: bool = False  # whether a list of numbers may replace the text with commas

    @property
    def allowed(self) -> str:
        """Allowed values in plain English."""
        if self.choices:
            return 'one of ' + ', '.join(str(choice) for choice in self.choices)
        kind = {bool: 'true or false', int: 'a whole number', float: 'a number', str: 'a string'}
        text = kind.get(type(self.default), 'a list of strings')
        text += ' or a list of numbers' if self.takes_numbers else ''
        if self.limits:
            text += ' from {:.9g} to {:.9g}'.format(*self.limits)
        return f'{text} ({self.unit})' if self.unit else text

    def problem_with(self, value: Any) -> str:
        """Return why a value is invalid, in one line; '' if it is valid."""
        if not (self._has_right_type(value) and self._is_in_range(value)):
            return f'{self.name} cannot be {value!r}: it must be {self.allowed}{self._hint(value)}'
        try:
            if self.check:
                self.check(self.to_value(value))
        except (DanError, ValueError) as error:
            return f'{self.name}: {one_line(error)}'
        return ''

    def _hint(self, value: Any) -> str:
        if isinstance(self.default, str) and type(value) in (bool, int, float):
            return f'; in a shell, write {self.name}:=\'"{str(value).lower()}"\''
        return ''

    def to_value(self, value: Any) -> Any:
        """Convert a valid value to the type of the default: an int may become a float."""
        if self.takes_numbers and not isinstance(value, str):
            return ','.join(str(number) for number in value)
        return type(self.default)(value)

    def _has_right_type(self, value: Any) -> bool:
        if self.takes_numbers and isinstance(value, (list, tuple, array)):
            return all(type(number) in (int, float) for number in value)
        if isinstance(self.default, float):
            return isinstance(value, (int, float)) and not isinstance(value, bool)
        if isinstance(self.default, list):
            return isinstance(value, (list, tuple)) and all(isinstance(v, str) for v in value)
        return type(value) is type(self.default)

    def _is_in_range(self, value: Any) -> bool:
        if self.choices:
            return value in self.choices
        return self.limits is None or self.limits[0] <= value <= self.limits[1]


VIDEO_PARAMETERS = (
    Spec(
        'privacy.blur', VIDEO.blur,
        'Replace every face by its average color in all images that are shown or published. Every '
        'image is then searched in full, as with detector.interval 1.',
        live=True,
    ),
    Spec(
        'detector.max_side_px', PIPELINE.max_side_px,
        'Longer side of the downscaled copy on which faces are detected; crops come from the full '
        'image. Smaller is faster but misses small faces.',
        unit='pixels', limits=(64, 4096), live=True,
    ),
    Spec(
        'detector.interval', VIDEO.detector_interval,
        'Run full-frame detection on every Nth image. In between, search around known faces and, '
        'in every second image, where something changed. A new face is found at most one image '
        'late, or N - 1 images late if it changes the image too little. 10 saves about a third of '
        'the work.',
        unit='images', limits=(1, 100), live=True,
    ),
    Spec(
        'detector.min_score', 0.6,
        'Minimum confidence of the detector.',
        limits=(0.0, 1.0), live=True,
    ),
    Spec(
        'max_faces', PIPELINE.max_faces,
        'Maximum number of faces classified per image, the largest first. The rest are published '
        'as unknown.',
        unit='faces', limits=(1, 1000), live=True,
    ),
    Spec(
        'expression.min_confidence', TRACKER.min_confidence,
        'A face is published as unknown if its most likely expression is less probable than this.',
        unit='probability', limits=(0.0, 1.0), live=True,
    ),
    Spec(
        'expression.prior', 'model',
        'How often each expression is assumed to occur. model: as the model file or the '
        'calibration says. none: as in the training data. balanced: all equally often, which finds '
        'rare expressions but also causes false alarms. Or eight shares with sum 1, in the order '
        'of the message, such as [0.6, 0.2, 0.05, 0.05, 0.02, 0.02, 0.05, 0.01].',
        live=True, check=Prior.parse, takes_numbers=True,
    ),
    Spec(
        'tracker.max_missed_s', TRACKER.max_missed_s,
        'A face that is missing for longer gets a new id.',
        unit='seconds', limits=(0.0, 60.0), live=True,
    ),
    Spec(
        'tracker.max_distance', TRACKER.max_distance,
        'Maximum distance between a face and its predicted position at which it keeps its id.',
        unit='face sizes', limits=(0.0, 10.0), live=True,
    ),
    Spec(
        'tracker.min_hits', TRACKER.min_hits,
        'Number of consecutive images in which a new face must be found before it is published. 2 '
        'or 3 suppress false detections.',
        unit='images', limits=(1, 100), live=True,
    ),
    Spec(
        'smoothing.half_life_s', TRACKER.half_life_s,
        'Time in which the weight of past probabilities halves, at any frame rate. 0 turns '
        'smoothing off.',
        unit='seconds', limits=(0.0, 60.0), live=True,
    ),
    Spec(
        'smoothing.margin', TRACKER.margin,
        'How much more probable another expression must be before the published label changes.',
        unit='probability', limits=(0.0, 1.0), live=True,
    ),
    Spec(
        'quality.min_side_px', QUALITY.min_side_px,
        'A face with a smaller box is published as unknown.',
        unit='pixels of the longer side', limits=(0.0, 4096.0), live=True,
    ),
    Spec(
        'quality.min_frontality', QUALITY.min_frontality,
        'A face that is less frontal is published as unknown. 1: frontal, 0: turned by 90 degrees.',
        limits=(0.0, 1.0), live=True,
    ),
    Spec(
        'quality.min_sharpness', QUALITY.min_sharpness,
        'A less sharp face is published as unknown. Sharp faces have 7 to 12; 0 accepts all faces.',
        unit='cycles per face', limits=(0.0, 100.0), live=True,
    ),
    Spec(
        'attention.angle_deg', VIDEO.attention.angle_deg,
        'A face starts to look at the camera when its head is turned away by less than this, and '
        'stops beyond 1.4 times this angle. The measured angle is about 0.7 of the real one.',
        unit='degrees', limits=(1.0, 60.0), live=True,
    ),
    Spec(
        'attention.min_duration_s', VIDEO.attention.min_duration_s,
        'How long a head must be turned to the camera, or away from it, before `looking` changes.',
        unit='seconds', limits=(0.0, 60.0), live=True,
    ),
    Spec(
        'events.min_duration_s', VIDEO.events.min_duration_s,
        'How long a new expression must last before an event is published.',
        unit='seconds', limits=(0.0, 60.0), live=True,
    ),
    Spec(
        'image_rotation', PIPELINE.rotation,
        'For a camera mounted on its side: clockwise rotation that turns its image upright. '
        'Results are given in pixels of the image as received.',
        unit='degrees', choices=ROTATIONS, live=True,
    ),
    Spec(
        'consent.required', VIDEO.consent_required,
        'Classify and publish a face only after the service ~/grant_consent has released it. '
        'Published images do not show other faces.',
    ),
)  # fmt: skip


def to_video_config(values: Mapping[str, Any]) -> VideoConfig:
    """Build the configuration from the value of each of `VIDEO_PARAMETERS`."""
    return VideoConfig(
        detector_interval=values['detector.interval'],
        blur=values['privacy.blur'],
        consent_required=values['consent.required'],
        pipeline=PipelineConfig(
            max_side_px=values['detector.max_side_px'],
            max_faces=values['max_faces'],
            rotation=values['image_rotation'],
            prior=Prior.parse(values['expression.prior']),
            quality=QualityThresholds(
                min_side_px=values['quality.min_side_px'],
                min_frontality=values['quality.min_frontality'],
                min_sharpness=values['quality.min_sharpness'],
            ),
        ),
        tracker=TrackerConfig(
            max_missed_s=values['tracker.max_missed_s'],
            max_distance=values['tracker.max_distance'],
            min_hits=values['tracker.min_hits'],
            half_life_s=values['smoothing.half_life_s'],
            margin=values['smoothing.margin'],
            min_confidence=values['expression.min_confidence'],
        ),
        attention=AttentionConfig(
            values['attention.angle_deg'], values['attention.min_duration_s']
        ),
        events=EventConfig(values['events.min_duration_s']),
    )
