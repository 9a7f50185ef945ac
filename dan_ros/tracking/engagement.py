# SPDX-License-Identifier: Apache-2.0
"""Levels of engagement of faces: whether a person and the camera face each other, over time.

The measure is the visual social engagement of Webb and Lemaignan 2022, "Measuring Visual Social
Engagement from Proxemics and Gaze", https://doi.org/10.1109/RO-MAN53752.2022.9900801. The levels
are those of hri_msgs/EngagementLevel, with the bounds of https://github.com/ros4hri/hri_engagement.
"""

from enum import IntEnum

from dan_ros.faces.head_pose import HeadPose
from dan_ros.tracking.attention import visual_social_engagement

# Visual social engagement above which an image counts as engaged: face to face, up to 3.3 m.
MIN_ENGAGEMENT = 0.3
HALF_LIFE_S = 1.0  # half-life of past images in the share of engaged ones, seconds


class EngagementLevel(IntEnum):
    """Constants of hri_msgs/EngagementLevel."""

    UNKNOWN = 0
    DISENGAGED = 1
    ENGAGING = 2
    ENGAGED = 3
    DISENGAGING = 4


class EngagementTracker:
    """Follows the engagement of one face.

    Attributes:
        level: the present level; UNKNOWN until the first pose.
    """

    def __init__(self) -> None:
        self.level = EngagementLevel.UNKNOWN
        self._share = 0.0  # share of engaged images, recent ones weigh more, [0, 1]
        self._time_ns = 0

    def update(self, pose: HeadPose | None, time_ns: int) -> EngagementLevel:
        """Add an image.

        Args:
            pose: pose of the face; None if unknown, which changes nothing.
            time_ns: time of the image, nanoseconds.

        Returns:
            The level, which changes by one step at most.
        """
        if pose is None:
            return self.level
        if self.level == EngagementLevel.UNKNOWN:
            self.level, self._time_ns = EngagementLevel.DISENGAGED, time_ns
        is_engaged = visual_social_engagement(pose) > MIN_ENGAGEMENT
        past = 0.5 ** (max(time_ns - self._time_ns, 0) / 1e9 / HALF_LIFE_S)
        self._share = past * self._share + (1 - past) * is_engaged
        self._time_ns = max(self._time_ns, time_ns)
        self.level = _next_level(self.level, self._share)
        return self.level


def _next_level(level: EngagementLevel, share: float) -> EngagementLevel:
    """Return the next level; the bounds overlap, so that a level does not flicker."""
    bounds = {  # level: share below which, share above which, and what follows
        EngagementLevel.DISENGAGED: (0.0, level, 0.3, EngagementLevel.ENGAGING),
        EngagementLevel.ENGAGING: (0.2, EngagementLevel.DISENGAGED, 0.75, EngagementLevel.ENGAGED),
        EngagementLevel.ENGAGED: (0.7, EngagementLevel.DISENGAGING, 1.0, level),
        EngagementLevel.DISENGAGING: (
            0.25, EngagementLevel.DISENGAGED, 0.8, EngagementLevel.ENGAGED
        ),
    }  # fmt: skip
    low, lower, high, higher = bounds[level]
    return lower if share < low else higher if share > high else level
