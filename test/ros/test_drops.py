# SPDX-License-Identifier: Apache-2.0
"""Counts of lost images."""

import pytest

from dan_ros.ros.drops import DropReporter
from dan_ros.ros.statistics import Statistics


class Log(list[str]):
    """Replaces the node's logger."""

    def warning(self, message: str, **options: bool) -> None:
        self.append(message)


@pytest.mark.parametrize(
    ('reports', 'total'), [([1, 5, 400], 406), ([3, 2**31, 2**31 - 5, -7], 6), ([0], 0)]
)
def test_lost_images_are_counted_as_far_as_that_can_be(reports, total):
    statistics, log = Statistics(), Log()
    drops = DropReporter(statistics, log, print)
    for images in reports:
        drops.lost('/image', images)
    assert statistics.report().dropped.get('lost', 0) == total
    assert any('implausible' in line for line in log) == (max(reports) > 1000)
