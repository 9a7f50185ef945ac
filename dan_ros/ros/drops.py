# SPDX-License-Identifier: Apache-2.0
"""Dropped images: counted by cause and camera, the first of each logged."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dan_ros.errors import FrameError, GpuLostError, GpuMemoryError, count_of
from dan_ros.ros.statistics import Statistics

LOG = logging.getLogger(__name__)
MAX_LOST = 10_000  # largest plausible number of lost images between two reports
LOST_HINT = (
    'the middleware loses images on their way: see docs/troubleshooting.md, or set '
    'qos.reliability to reliable'
)


@dataclass(frozen=True)
class DropReporter:
    """Counts and logs dropped images. Its methods may be called from any thread."""

    statistics: Statistics  # receives the counts
    logger: Any  # logger of the node
    on_gpu_lost: Callable[[Exception], None]  # called when this process cannot use the GPU any more

    def superseded(self, camera: str) -> None:
        """Count an image that a newer one replaced."""
        LOG.debug('dropped an image of %s: superseded by a newer one', camera)
        self.statistics.count_dropped('superseded', camera)

    def deactivated(self, images: int) -> None:
        """Count images that were not processed before the stream was closed."""
        if images:
            self.statistics.count_dropped('deactivated', '', images)

    def lost(self, camera: str, images: int) -> None:
        """Count images that were sent and did not arrive.

        Fast DDS sometimes reports about 2^31 images at once; such a report counts as one.
        """
        if images == 0:
            return
        if not 0 < images <= MAX_LOST:
            self.logger.warning(
                f'the middleware reports {count_of(images, "lost image")} of {camera} at once, '
                'which is implausible: each such report is counted as one',
                once=True,
            )
            images = 1
        LOG.debug('%s of %s lost by the middleware', count_of(images, 'image'), camera)
        if self.statistics.count_dropped('lost', camera, images):
            self.logger.warning(f'{LOST_HINT} ({camera})')

    def failed(self, camera: str, source: str, error: Exception) -> None:
        """Count an image that could not be processed.

        `camera` is for the log; the image is counted under the name `source`.
        """
        if isinstance(error, GpuLostError):
            self.on_gpu_lost(error)
        cause = _cause_of(error)
        LOG.debug('dropped an image of %s: %s, %s', camera, cause, error)
        if self.statistics.count_dropped(cause, source):
            self.logger.warning(
                f'dropped an image of {camera}: {error} (further ones are counted in /diagnostics '
                f'as frames_dropped.{cause})'
            )


def _cause_of(error: Exception) -> str:
    if isinstance(error, FrameError):
        return error.cause
    return 'out_of_memory' if isinstance(error, (GpuMemoryError, MemoryError)) else 'failed'
