# SPDX-License-Identifier: Apache-2.0
"""Time spent in each stage of a repeated task."""

import time


class StageTimer:
    """Measures consecutive stages.

    Attributes:
        seconds: time spent in each stage since `restart`.
    """

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Clear all times and start the first stage."""
        self.seconds: dict[str, float] = {}
        self._last_s = time.perf_counter()

    def lap(self, stage: str) -> None:
        """Add to `stage` the time since the last call."""
        now_s = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now_s - self._last_s
        self._last_s = now_s
