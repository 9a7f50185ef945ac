# SPDX-License-Identifier: Apache-2.0
"""A value that changes only once a new one has lasted."""

from dataclasses import dataclass
from typing import Generic, TypeVar

Value = TypeVar('Value')


@dataclass(frozen=True)
class Change(Generic[Value]):
    """A change of a debounced value."""

    previous: Value  # value before the change
    lasted_s: float  # how long that value lasted, seconds


class Debounced(Generic[Value]):
    """Holds a value until another one has lasted for a given time.

    Args:
        value: first value.
        now_ns: time at which it began, nanoseconds.

    Attributes:
        value: the accepted value.
        since_ns: time of its first observation, not of its acceptance, nanoseconds.

    Example:
        >>> label = Debounced('neutral', 0)
        >>> label.update('happy', 1_000_000_000, 0.3)
        >>> label.update('happy', 1_300_000_000, 0.3)
        Change(previous='neutral', lasted_s=1.0)
        >>> label.lasted_s(1_500_000_000)
        0.5
    """

    def __init__(self, value: Value, now_ns: int) -> None:
        self.value = value
        self.since_ns = now_ns
        self._next, self._next_ns = value, now_ns

    def update(self, value: Value, now_ns: int, min_s: float) -> Change[Value] | None:
        """Add an observation.

        Args:
            value: the value observed.
            now_ns: time of the observation, nanoseconds, not before the last one.
            min_s: how long a new value must be observed without interruption, seconds.

        Returns:
            The change, or None if the value stays.
        """
        if value != self._next:
            self._next, self._next_ns = value, now_ns
        if value == self.value or now_ns - self._next_ns < min_s * 1e9:
            return None
        change = Change(self.value, (self._next_ns - self.since_ns) / 1e9)
        self.value, self.since_ns = value, self._next_ns
        return change

    def lasted_s(self, now_ns: int) -> float:
        """Return how long the value has lasted, seconds."""
        return (now_ns - self.since_ns) / 1e9
