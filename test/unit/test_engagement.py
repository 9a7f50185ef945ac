# SPDX-License-Identifier: Apache-2.0
"""Levels of engagement of scripted heads: their order, delay and stability."""

import numpy as np
import pytest

from dan_ros.faces.head_pose import HeadPose
from dan_ros.tracking.engagement import EngagementLevel, EngagementTracker

FACING = np.array([0.5, 0.5, -0.5, 0.5])  # the face's x axis points to the camera
AWAY = np.array([0.5, -0.5, 0.5, 0.5])  # seen from behind
PERIOD_NS = 33_333_333


def levels_of(script):
    """Each level with the time at which it began, s, for pairs of a pose and its duration, s."""
    tracker, time_ns, found = EngagementTracker(), 10**18, []
    for pose, seconds in script:
        for _ in range(round(seconds * 30)):
            level = tracker.update(pose, time_ns)
            if not found or found[-1][0] != level:
                found.append((level, (time_ns - 10**18) / 1e9))
            time_ns += PERIOD_NS
    return found


def at(distance_m, rotation=FACING):
    return HeadPose(np.array([0.0, 0.0, distance_m]), rotation)


def test_a_visitor_engages_and_disengages_step_by_step():
    found = levels_of([(at(1.5, AWAY), 1), (at(1.5), 5), (at(1.5, AWAY), 5)])
    names = ['DISENGAGED', 'ENGAGING', 'ENGAGED', 'DISENGAGING', 'DISENGAGED']
    assert [level.name for level, _ in found] == names
    # A share of 0.3 takes 0.51 half-lives, 0.75 two; falling from 0.97 to 0.7 and 0.25 takes 0.47
    # and 1.95.
    assert [time for _, time in found] == pytest.approx([0, 1.5, 3.0, 6.5, 8.0], abs=0.1)


@pytest.mark.parametrize(
    'pose', [at(1.5, AWAY), at(5.0), HeadPose(np.array([3.0, 0, 0.5]), FACING)]
)
def test_who_is_turned_away_far_or_aside_is_disengaged(pose):
    assert levels_of([(pose, 5)]) == [(EngagementLevel.DISENGAGED, 0)]


def test_without_a_pose_nothing_is_known_and_nothing_changes():
    assert levels_of([(None, 1)]) == [(EngagementLevel.UNKNOWN, 0)]
    (*_, (level, _)) = levels_of([(at(1), 4), (None, 10)])
    assert level == EngagementLevel.ENGAGED


def test_glances_do_not_flicker():
    found = levels_of([(at(1), 4)] + [(at(1, AWAY), 0.1), (at(1), 0.4)] * 20)
    assert found[-1][0] == EngagementLevel.ENGAGED
    assert len(found) == 3


def test_stamps_that_step_back_add_no_time():
    tracker = EngagementTracker()
    for time_ns in (10**18, 0, 10**18, 5, 10**18):
        assert tracker.update(at(1), time_ns) == EngagementLevel.DISENGAGED
