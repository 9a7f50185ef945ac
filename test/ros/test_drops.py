# SPDX-License-Identifier: Apache-2.0
"""Dropped images: counts, and the status of the node."""

from unittest.mock import MagicMock

import pytest

from dan_ros.ros.drops import DropReporter
from dan_ros.ros.statistics import Statistics
from dan_ros.ros.status import Snapshot, status_of


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


@pytest.mark.parametrize(
    ('cause', 'is_warned'), [('superseded', False), ('deactivated', False), ('bad_step', True)]
)
def test_only_faults_are_warnings_of_the_status(cause, is_warned):
    statistics = Statistics()
    statistics.count_dropped(cause, '/image')
    models = MagicMock()
    models.selection.warning = ''
    models.video.pipeline.backend.warning = models.video.pipeline.detector.warning = ''
    models.video.pipeline.backend.details.return_value = {}
    status = status_of(Snapshot('active', True, '', 'auto', statistics.report(), models, 0, []))
    assert ('images dropped: 1 ' in status.message) == is_warned, status.message
    assert status.values[f'frames_dropped.{cause}'] == '1'
