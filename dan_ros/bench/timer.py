# SPDX-License-Identifier: Apache-2.0
"""Interleaved timing: variants of one task run alternately and are compared by their medians."""

import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

WARM_UP_RUNS = 3  # runs of each variant before the first block
BLOCK_RUNS = 5  # consecutive runs of one variant
DISCARDED_RUNS = 2  # runs at the start of a block that are not counted
PAUSE_S = 0.03  # pause before each block, in which spinning threads of the last variant go to sleep

T = TypeVar('T')


@dataclass(frozen=True)
class Limit:
    """Limits of a measurement; the first round is always completed."""

    rounds: int = 1_000_000  # maximum number of rounds. Each variant runs one block per round.
    seconds: float = math.inf  # maximum duration, warm-up included


@dataclass
class Comparison:
    """Times of several variants of one task."""

    title: str  # the task
    baseline: str  # name of the variant that the others are compared with
    # Median time of each variant, milliseconds.
    times_ms: dict[str, float] = field(default_factory=dict)

    @property
    def times_faster(self) -> dict[str, float]:
        """Time of the baseline divided by the time of each variant."""
        return {name: self.times_ms[self.baseline] / ms for name, ms in self.times_ms.items()}

    def to_json(self) -> dict[str, Any]:
        """Return the attributes and `times_faster`."""
        return {**asdict(self), 'times_faster': self.times_faster}


def run_interleaved(variants: Mapping[str, Callable[[], T]], limit: Limit) -> dict[str, list[T]]:
    """Run all variants alternately and collect the results of their counted runs.

    Interleaving distributes other load on the machine over all variants, so their ratios are
    reliable. The first runs of each block are discarded, so that the caches and threads of the
    previous variant do not affect the next one.

    Example:
        >>> values = run_interleaved({'one': lambda: 1, 'two': lambda: 2}, Limit(rounds=1))
        >>> values['two']
        [2, 2, 2]
    """
    started_s = time.monotonic()
    for run in variants.values():
        for _ in range(WARM_UP_RUNS):
            run()
    returned: dict[str, list[T]] = {name: [] for name in variants}
    rounds = 0
    while not rounds or (rounds < limit.rounds and time.monotonic() - started_s < limit.seconds):
        for name, run in variants.items():
            time.sleep(PAUSE_S)
            returned[name] += [run() for _ in range(BLOCK_RUNS)][DISCARDED_RUNS:]
        rounds += 1
    return returned


def compare(
    title: str,
    variants: Mapping[str, Callable[[], object]],
    limit: Limit,
    images: Mapping[str, int] | None = None,
    baseline: str = '',
) -> Comparison:
    """Time all variants alternately and take the median of each.

    Args:
        title, variants, limit: the task, the functions to time by name, and when to end.
        images: number of images per run of a variant, default 1. Times are per image.
        baseline: name of the variant to compare with, default the first.
    """
    timed = {name: _timed(run, (images or {}).get(name, 1)) for name, run in variants.items()}
    times_ms = run_interleaved(timed, limit)
    medians = {name: statistics.median(values) for name, values in times_ms.items()}
    return Comparison(title, baseline or next(iter(variants)), medians)


def elapsed_ms(run: Callable[[], object]) -> float:
    """Return the duration of one call, milliseconds."""
    started_s = time.perf_counter()
    run()
    return 1e3 * (time.perf_counter() - started_s)


def _timed(run: Callable[[], object], images: int) -> Callable[[], float]:
    return lambda: elapsed_ms(run) / images
