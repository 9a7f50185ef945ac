# SPDX-License-Identifier: Apache-2.0
"""Settings of tracking and smoothing."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TrackerConfig:
    """Settings of a `FaceTracker`.

    Attributes:
        max_missed_s: longest time a face may be missing and keep its id, seconds. Pauses of the
            camera do not count.
        max_distance: largest distance between a face and its predicted position, in face sizes.
        min_hits: consecutive frames in which a new face must be found before it gets an id.
        half_life_s: time in which the weight of past frames halves, seconds; 0 turns smoothing and
            label hysteresis off.
        margin: lead in probability that another class needs before the label changes, [0, 1].
        min_confidence: probability below which the label is `labels.UNKNOWN`, [0, 1].
    """

    max_missed_s: float = 1.0
    max_distance: float = 1.0
    min_hits: int = 1
    half_life_s: float = 0.3
    margin: float = 0.05
    min_confidence: float = 0.35
