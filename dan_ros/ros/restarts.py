# SPDX-License-Identifier: Apache-2.0
"""Decides whether the launch file restarts a node that exited."""

from dan_ros.ros.spin import BAD_USAGE

QUICK_S = 10.0  # exits in shorter intervals count as quick, seconds
MAX_QUICK_EXITS = 30


class RestartLimit:
    """Stops restarting a node when restarts do not help."""

    def __init__(self) -> None:
        self._last_s = float('-inf')
        self._quick_exits = 0

    def reason_against(self, exit_code: int, now_s: float) -> str:
        """Return why a node that exited should not be started again; '' if it should.

        Args:
            exit_code: exit code of the node; negative for a signal.
            now_s: time of the exit on a monotonic clock, seconds.
        """
        if exit_code == BAD_USAGE:
            return 'correct the error above first'
        is_quick = now_s - self._last_s < QUICK_S
        self._quick_exits = self._quick_exits + 1 if is_quick else 1
        self._last_s = now_s
        if self._quick_exits < MAX_QUICK_EXITS:
            return ''
        return f'{MAX_QUICK_EXITS} exits in a row, each within {QUICK_S:g} s of the previous one'
