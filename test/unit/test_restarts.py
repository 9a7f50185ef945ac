# SPDX-License-Identifier: Apache-2.0
"""When a launch file stops restarting a node."""

import pytest

from dan_ros.ros.restarts import MAX_QUICK_EXITS, QUICK_S, RestartLimit


def exits(codes: list[int], period_s: float) -> list[str]:
    limit = RestartLimit()
    return [limit.reason_against(code, 100 + period_s * i) for i, code in enumerate(codes)]


@pytest.mark.parametrize('code', [-11, 0, 1, 3])
def test_quick_exits_end_at_last(code):
    reasons = exits([code] * MAX_QUICK_EXITS, QUICK_S / 2)
    assert not any(reasons[:-1])
    assert f'{MAX_QUICK_EXITS} exits in a row' in reasons[-1]


def test_rare_exits_never_end():
    assert not any(exits([3] * 10 * MAX_QUICK_EXITS, QUICK_S))


def test_a_good_run_starts_the_count_again():
    limit, now_s = RestartLimit(), 0.0
    for _ in range(5):
        for _ in range(MAX_QUICK_EXITS - 1):
            now_s += 1
            assert not limit.reason_against(1, now_s)
        now_s += QUICK_S


def test_bad_usage_ends_at_once():
    assert exits([3, 2], 1)[1] == 'correct the error above first'
