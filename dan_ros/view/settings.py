# SPDX-License-Identifier: Apache-2.0
"""The settings that can be changed on the page without a node.

They have the names, texts and ranges of the node's parameters.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from dan_ros.errors import ParameterError
from dan_ros.faces.quality import QualityThresholds
from dan_ros.pipeline import PipelineConfig
from dan_ros.tracking.attention import AttentionConfig
from dan_ros.tracking.config import TrackerConfig
from dan_ros.tracking.events import EventConfig
from dan_ros.video_pipeline import VideoConfig
from dan_ros.view.board import parameter_json

TRACKER, QUALITY, ATTENTION = TrackerConfig(), QualityThresholds(), AttentionConfig()


@dataclass(frozen=True)
class Setting:
    """One setting.

    Attributes:
        default: bool, int or float; defines its type.
        description: what it does.
        unit: unit of the value, or ''.
        minimum, maximum: range of a number.
    """

    default: Any
    description: str
    unit: str = ''
    minimum: float | None = None
    maximum: float | None = None

    def check(self, name: str, value: Any) -> Any:
        """Return a value in the type of the default.

        Raises:
            ParameterError: it has the wrong type or is out of range.
        """
        if isinstance(self.default, bool):
            is_valid = isinstance(value, bool)
            allowed = 'true or false'
        else:
            is_whole = isinstance(self.default, int)
            kinds = (int,) if is_whole else (int, float)
            is_valid = (
                isinstance(value, kinds)
                and not isinstance(value, bool)
                and self.minimum is not None
                and self.maximum is not None
                and self.minimum <= value <= self.maximum
            )
            kind = 'a whole number' if is_whole else 'a number'
            allowed = f'{kind} from {self.minimum:g} to {self.maximum:g}'
        if not is_valid:
            unit = f' ({self.unit})' if self.unit else ''
            raise ParameterError(f'{name} cannot be {value!r}: it must be {allowed}{unit}')
        return type(self.default)(value)


SETTINGS: Mapping[str, Setting] = {
    'privacy.blur': Setting(False, 'Replace every face by its average color.'),
    'detector.min_score': Setting(0.6, 'Minimum confidence of the detector.', '', 0, 1),
    'detector.interval': Setting(
        1, 'Search the full image on every Nth image only, and around known faces in between.',
        'images', 1, 100,
    ),
    'detector.max_side_px': Setting(
        PipelineConfig.max_side_px,
        'Longer side of the downscaled copy on which faces are detected. Smaller is faster but '
        'misses small faces.',
        'pixels', 64, 4096,
    ),
    'max_faces': Setting(
        PipelineConfig.max_faces,
        'Maximum number of faces classified per image, the largest first.',
        'faces', 1, 1000,
    ),
    'expression.min_confidence': Setting(
        TRACKER.min_confidence,
        'A face is unknown if its most likely expression is less probable than this.',
        'probability', 0, 1,
    ),
    'smoothing.half_life_s': Setting(
        TRACKER.half_life_s,
        'Time in which the weight of past probabilities halves. 0 turns smoothing off.',
        'seconds', 0, 60,
    ),
    'smoothing.margin': Setting(
        TRACKER.margin,
        'How much more probable another expression must be before the label changes.',
        'probability', 0, 1,
    ),
    'tracker.max_missed_s': Setting(
        TRACKER.max_missed_s, 'A face that is missing for longer gets a new id.', 'seconds', 0, 60
    ),
    'quality.min_side_px': Setting(
        QUALITY.min_side_px, 'A face with a smaller box is unknown.',
        'pixels of the longer side', 0, 4096,
    ),
    'quality.min_frontality': Setting(
        QUALITY.min_frontality,
        'A face turned further away is unknown. 1: frontal, 0: turned by 90 degrees.', '', 0, 1,
    ),
    'quality.min_sharpness': Setting(
        QUALITY.min_sharpness, 'A less sharp face is unknown. Sharp faces have 7 to 12.',
        'cycles per face', 0, 100,
    ),
    'attention.angle_deg': Setting(
        ATTENTION.angle_deg,
        'A face looks at the camera if its head is turned away by less than this.',
        'degrees', 1, 60,
    ),
    'events.min_duration_s': Setting(
        EventConfig.min_duration_s, 'How long a new expression must last before there is an event.',
        'seconds', 0, 60,
    ),
}  # fmt: skip


def to_json(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return all settings as the page reads them."""
    return [parameter_json(name, values[name], **vars(s)) for name, s in SETTINGS.items()]


def to_config(values: Mapping[str, Any], base: VideoConfig) -> VideoConfig:
    """Return a configuration with these values."""
    return replace(
        base,
        blur=values['privacy.blur'],
        detector_interval=values['detector.interval'],
        pipeline=replace(
            base.pipeline,
            max_side_px=values['detector.max_side_px'],
            max_faces=values['max_faces'],
            quality=QualityThresholds(
                min_side_px=values['quality.min_side_px'],
                min_frontality=values['quality.min_frontality'],
                min_sharpness=values['quality.min_sharpness'],
            ),
        ),
        tracker=replace(
            base.tracker,
            max_missed_s=values['tracker.max_missed_s'],
            half_life_s=values['smoothing.half_life_s'],
            margin=values['smoothing.margin'],
            min_confidence=values['expression.min_confidence'],
        ),
        attention=replace(base.attention, angle_deg=values['attention.angle_deg']),
        events=EventConfig(values['events.min_duration_s']),
    )
