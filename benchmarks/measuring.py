"""How the benchmarks measure: in turns, medians, in one run."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

WARM_UP_RUNS = 3
TURN_RUNS, UNCOUNTED_RUNS = 5, 2
PAUSE_S = 0.03  # in which the threads of the way before, which may wait busily, fall asleep


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


def compare(
    title: str, ways: Mapping[str, Callable[[], object]], baseline: str, rounds: int
) -> Comparison:
    """Run every way in turns and take the median of each.

    Turns spread whatever else the machine does over all of them; what counts is the ratio. A turn
    is some runs after a pause, of which the first do not count, so that no way pays for what the
    one before left in the caches and on the cores.
    """
    for run in ways.values():
        for _ in range(WARM_UP_RUNS):
            run()
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, run in ways.items():
            time.sleep(PAUSE_S)
            times[name] += [_time_ms(run) for _ in range(TURN_RUNS)][UNCOUNTED_RUNS:]
    medians = {name: statistics.median(values) for name, values in times.items()}
    return Comparison(title, baseline, medians)


def _time_ms(run: Callable[[], object]) -> float:
    started_s = time.perf_counter()
    run()
    return 1e3 * (time.perf_counter() - started_s)


def machine() -> dict[str, str]:
    """What it was measured on."""
    import onnxruntime
    import torch

    model = platform.processor() or platform.machine()
    try:
        with open('/proc/cpuinfo', encoding='utf-8') as file:
            names = [line for line in file if line.startswith('model name')]
        model = names[0].partition(':')[2].strip() if names else model
    except OSError:
        pass
    return {
        'cpu': model,
        'cores': str(len(os.sched_getaffinity(0))),
        'python': platform.python_version(),
        'onnxruntime': onnxruntime.__version__,
        'torch': torch.__version__,
    }
