"""How times are measured: in turns, medians, in one run."""

import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

WARM_UP_RUNS = 3
TURN_RUNS, UNCOUNTED_RUNS = 5, 2
PAUSE_S = 0.03  # in which the threads of the way before, which may wait busily, fall asleep

T = TypeVar('T')


@dataclass(frozen=True)
class Limit:
    """When a measurement ends: after so many rounds or seconds, but never within the first round.

    Attributes:
        rounds: every way has a turn in each.
        seconds: since the beginning, with the time in which the ways get warm.
    """

    rounds: int = 1_000_000
    seconds: float = math.inf


@dataclass
class Comparison:
    """Times of several ways to do the same, measured in turns.

    Attributes:
        title: what is done.
        baseline: name of the way that the others are compared with.
        times_ms: median of each.
    """

    title: str
    baseline: str
    times_ms: dict[str, float] = field(default_factory=dict)

    @property
    def times_faster(self) -> dict[str, float]:
        """Of each, than the baseline."""
        return {name: self.times_ms[self.baseline] / ms for name, ms in self.times_ms.items()}


def run_interleaved(ways: Mapping[str, Callable[[], T]], limit: Limit) -> dict[str, list[T]]:
    """Run every way in turns, and collect what the runs that count return.

    Turns spread whatever else the machine does over all of them; what counts is the ratio. A turn
    is some runs after a pause, of which the first do not count, so that no way pays for what the
    one before left in the caches and on the cores.
    """
    begun_s = time.monotonic()
    for run in ways.values():
        for _ in range(WARM_UP_RUNS):
            run()
    returned: dict[str, list[T]] = {name: [] for name in ways}
    rounds = 0
    while not rounds or (rounds < limit.rounds and time.monotonic() - begun_s < limit.seconds):
        for name, run in ways.items():
            time.sleep(PAUSE_S)
            returned[name] += [run() for _ in range(TURN_RUNS)][UNCOUNTED_RUNS:]
        rounds += 1
    return returned


def compare(
    title: str,
    ways: Mapping[str, Callable[[], object]],
    baseline: str,
    limit: Limit,
    images: Mapping[str, int] | None = None,
) -> Comparison:
    """Run every way in turns and take the median time of each.

    Args:
        title: what is done.
        ways: by name.
        baseline: one of the names.
        limit: when to end.
        images: how many images a run of a way looks at, 1 where nothing is said; times are for one.
    """
    timed = {name: _timed(run, (images or {}).get(name, 1)) for name, run in ways.items()}
    times_ms = run_interleaved(timed, limit)
    medians = {name: statistics.median(values) for name, values in times_ms.items()}
    return Comparison(title, baseline, medians)


def _timed(run: Callable[[], object], images: int) -> Callable[[], float]:
    def measure() -> float:
        started_s = time.perf_counter()
        run()
        return 1e3 * (time.perf_counter() - started_s) / images

    return measure
