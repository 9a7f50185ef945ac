# SPDX-License-Identifier: Apache-2.0
"""Time of the frames of one camera; docs/adr/0012-time-stamps.md explains the rules."""

EQUAL_STAMPS = 3  # identical stamps in a row before we assume that the driver sets none
MAX_STEP_BACK_NS = 500_000_000  # largest step back within one recording, nanoseconds
FIRST_STAMPS = 5  # stamps at the start of a recording that identify a short loop
MAX_BEHIND = 5  # frames in a row behind the newest stamp before we assume a corrected clock
WALL_CLOCK_NS = 10**17  # stamps above it come from a wall clock, not a simulation, nanoseconds
MIN_JUMP_NS = 60_000_000_000  # smallest step ahead that may be a corrected clock, nanoseconds
MAX_SPEED = 1000  # fastest playback of a recording; a larger step ahead is a corrected clock
UNORDERED_FRAMES = 300  # frames after a step back for which the stamps count as unordered


class FrameClock:
    """Turns the stamps of a camera into a time that never steps back.

    Arrival times replace stamps that are frozen or jump ahead, and fill the gaps between coarse
    ones. The time does not advance while stamps are out of order, and follows a clock that is
    corrected.

    Attributes:
        now_ns: time of the newest frame, nanoseconds.
    """

    def __init__(self) -> None:
        self.now_ns = 0
        self._first: list[int] = []
        self._last_ns: int | None = None
        self._newest_ns = 0
        self._before_ns = 0  # newest stamp before the last step forward
        self._arrived_ns: int | None = None
        self._equal = 0
        self._behind = 0
        self._ahead_ns = 0  # time added by arrival times since the stamps last changed
        self._ordered = UNORDERED_FRAMES

    @property
    def is_frozen(self) -> bool:
        """Whether the stamps have stopped changing."""
        return self._equal >= EQUAL_STAMPS

    @property
    def is_unordered(self) -> bool:
        """Whether a recent stamp was before the one of the previous frame."""
        return self._ordered < UNORDERED_FRAMES

    def is_restart(self, stamp_ns: int) -> bool:
        """Return whether a stamp begins a new recording, as in a looping bag or reset simulation.

        It steps back far, or to one of the first stamps of the current recording. The step back
        after a single stamp from the future is not a restart, nor is a missing stamp (zero) among
        those of a wall clock.
        """
        if self._last_ns is None or stamp_ns >= self._newest_ns or stamp_ns == self._last_ns:
            return False
        if stamp_ns == 0 and self._newest_ns > WALL_CLOCK_NS:
            return False
        return self._before_ns - stamp_ns > MAX_STEP_BACK_NS or stamp_ns in self._first

    def advance(self, stamp_ns: int, arrived_ns: int | None) -> int:
        """Return the time of the next frame, nanoseconds.

        Args:
            stamp_ns: stamp of the frame, nanoseconds.
            arrived_ns: arrival on a monotonic clock, nanoseconds; None if unknown.
        """
        if self._last_ns is None:
            self.now_ns = self._newest_ns = self._before_ns = stamp_ns
        self._equal = self._equal + 1 if stamp_ns == self._last_ns else 1
        self._ordered += 1
        passed_ns = None
        if arrived_ns is not None and self._arrived_ns is not None:
            passed_ns = max(arrived_ns - self._arrived_ns, 0)
        if self.is_frozen and passed_ns is not None:
            self._ahead_ns += passed_ns
            self.now_ns += passed_ns
        elif stamp_ns > self._newest_ns:
            self._add_stamp(stamp_ns, passed_ns)
        elif stamp_ns < self._newest_ns:
            self._fall_behind(stamp_ns)
        self._last_ns, self._arrived_ns = stamp_ns, arrived_ns
        if len(self._first) < FIRST_STAMPS:
            self._first.append(stamp_ns)
        return self.now_ns

    def _add_stamp(self, stamp_ns: int, passed_ns: int | None) -> None:
        step_ns = stamp_ns - self._newest_ns
        if passed_ns is not None and step_ns > max(MIN_JUMP_NS, MAX_SPEED * passed_ns):
            step_ns = passed_ns
        self.now_ns += max(step_ns - self._ahead_ns, 0)  # minus the time that was already added
        self._before_ns, self._newest_ns = self._newest_ns, stamp_ns
        self._ahead_ns = self._behind = 0

    def _fall_behind(self, stamp_ns: int) -> None:
        """Stop the time until the stamps catch up, or until their clock counts as corrected."""
        if self._last_ns is not None and stamp_ns < self._last_ns:
            self._ordered = 0
        self._behind += 1
        is_after_spike = stamp_ns and self._newest_ns - stamp_ns > MAX_STEP_BACK_NS
        if self._behind >= MAX_BEHIND or is_after_spike:
            self._before_ns = self._newest_ns = stamp_ns
            self._ahead_ns = self._behind = 0
