# SPDX-License-Identifier: Apache-2.0
"""Counters of the node."""

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

# Why images are dropped, as in `frames_dropped.<cause>`; docs/faults.md explains them.
CAUSES = (
    'superseded',
    'lost',
    'deactivated',
    'bad_message',
    'bad_encoding',
    'bad_format',
    'bad_size',
    'bad_step',
    'bad_data',
    'too_large',
    'out_of_memory',
    'failed',
)


@dataclass
class _Window:
    """Counts since the last report."""

    since_s: float = field(default_factory=time.monotonic)
    processed: int = 0
    latency_sum_s: float = 0.0
    dropped: Counter[tuple[str, str]] = field(default_factory=Counter)  # number by cause and camera
    timed: int = 0
    stages_s: dict[str, float] = field(default_factory=lambda: defaultdict(float))


@dataclass(frozen=True)
class Report:
    """Counts since the start of the node, and rates since the last report."""

    received: int  # images since the start
    processed: int  # images since the start
    dropped: dict[str, int]  # images since the start, by cause
    # Images since the last report, by cause and camera.
    recently_dropped: dict[tuple[str, str], int]
    fps: float  # images processed per second
    # Mean time from the arrival of an image to its last message; 0 without images.
    latency_ms: float
    # Mean time per image of each of `inference_thread.STAGES`; {} without images.
    stages_ms: dict[str, float]
    unjudged: dict[str, int]  # faces since the start that were not classified, by reason
    # Faces since the start of cameras with depth, by outcome; see `depth.OUTCOMES`.
    depth: dict[str, int]
    depth_dropped: dict[str, int]  # depth images since the start that were not used, by cause


class Statistics:
    """Counters of the node; every method may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._received = 0
        self._processed = 0
        self._unjudged: Counter[str] = Counter()
        self._dropped = Counter(dict.fromkeys(CAUSES, 0))  # every cause is reported, even if 0
        self._known_drops: set[tuple[str, str]] = set()  # cause and camera
        self._depth: Counter[str] = Counter()
        self._depth_dropped: Counter[tuple[str, str]] = Counter()  # number by cause and topic
        self._window = _Window()

    def count_received(self) -> None:
        """Count an image that arrived."""
        with self._lock:
            self._received += 1

    def count_dropped(self, cause: str, camera: str, images: int = 1) -> bool:
        """Count dropped images; return whether this cause is new for the camera."""
        with self._lock:
            is_first = (cause, camera) not in self._known_drops
            self._known_drops.add((cause, camera))
            self._dropped[cause] += images
            self._window.dropped[cause, camera] += images
            return is_first

    def count_processed(self, latency_s: float, reasons: Sequence[str]) -> None:
        """Count a processed image.

        Args:
            latency_s: time from its arrival to its last message.
            reasons: for each of its faces, why it was not classified, or ''.
        """
        with self._lock:
            self._processed += 1
            self._window.processed += 1
            self._window.latency_sum_s += latency_s
            self._unjudged.update(reason for reason in reasons if reason)

    def count_depth(self, outcomes: Mapping[str, int]) -> None:
        """Count faces of cameras with depth, by outcome."""
        with self._lock:
            for outcome, faces in outcomes.items():
                self._depth[outcome] += faces

    def count_depth_dropped(self, cause: str, topic: str) -> bool:
        """Count a depth image that is not used; return whether the cause is new for the topic."""
        with self._lock:
            self._depth_dropped[cause, topic] += 1
            return self._depth_dropped[cause, topic] == 1

    def count_stages(self, images: int, seconds: Mapping[str, float]) -> None:
        """Add the seconds spent in each stage, summed over `images` images."""
        with self._lock:
            self._window.timed += images
            for stage, value in seconds.items():
                self._window.stages_s[stage] += value

    def report(self) -> Report:
        """Read all counters and start a new window for the rates."""
        with self._lock:
            dropped_depth: Counter[str] = Counter()
            for (cause, _), images in self._depth_dropped.items():
                dropped_depth[cause] += images
            window, self._window = self._window, _Window()
            seconds = max(self._window.since_s - window.since_s, 1e-9)
            return Report(
                received=self._received,
                processed=self._processed,
                dropped=dict(self._dropped),
                recently_dropped=dict(window.dropped),
                fps=window.processed / seconds,
                latency_ms=1e3 * window.latency_sum_s / max(window.processed, 1),
                stages_ms={s: 1e3 * v / max(window.timed, 1) for s, v in window.stages_s.items()},
                unjudged=dict(self._unjudged),
                depth=dict(self._depth),
                depth_dropped=dict(dropped_depth),
            )
