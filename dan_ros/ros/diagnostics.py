"""What the node counts, and how it tells: /diagnostics at 1 Hz.

A thread of its own keeps the beat on the steady clock: also under simulated time without /clock, in
every lifecycle state, and while a long configure holds the executor.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node

# Why images are dropped, in the words of `frames_dropped.<cause>`; docs/faults.md explains them.
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
PERIOD_S = 1.0
SILENCE_S = 2.0  # a camera silent for longer is worth a warning

OK = DiagnosticStatus.OK
WARN = DiagnosticStatus.WARN
ERROR = DiagnosticStatus.ERROR


@dataclass
class _Window:
    """What happened since the last report."""

    since_s: float = field(default_factory=time.monotonic)
    processed: int = 0
    latency_sum_s: float = 0.0
    dropped: Counter[tuple[str, str]] = field(default_factory=Counter)  # by cause and camera
    timed: int = 0
    steps_s: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Report:
    """Counts since the start, and rates since the last report.

    Attributes:
        received, processed: frames since the start.
        dropped: frames since the start, by cause.
        dropped_lately: frames since the last report, by cause and camera.
        fps: frames processed a second.
        latency_ms: mean from receipt of an image to its last message out; 0 with no frame.
        steps_ms: mean of each step of a frame, see `worker.STEPS`; {} with no frame.
        faces: in the last frame of each camera, all cameras together.
        unjudged: faces that could not be judged since the start, by reason.
        silent: cameras that sent nothing for longer than `SILENCE_S`.
    """

    received: int
    processed: int
    dropped: dict[str, int]
    dropped_lately: dict[tuple[str, str], int]
    fps: float
    latency_ms: float
    steps_ms: dict[str, float]
    faces: int
    unjudged: dict[str, int]
    silent: tuple[str, ...]


class Statistics:
    """Counters of the node; every method may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._received = 0
        self._processed = 0
        self._faces: dict[str, int] = {}
        self._unjudged: Counter[str] = Counter()
        self._dropped = Counter(dict.fromkeys(CAUSES, 0))  # all are told, so that 0 can be read
        self._named: set[tuple[str, str]] = set()  # causes and cameras that had one
        self._received_at_s: dict[str, float] = {}
        self._window = _Window()

    def expect_images(self, cameras: Iterable[str]) -> None:
        """From now on these cameras are in view, and their silence counts; of none, for no one."""
        with self._lock:
            self._received_at_s = dict.fromkeys(cameras, time.monotonic())
            self._faces = {}

    def count_received(self, camera: str) -> None:
        """An image came."""
        with self._lock:
            self._received += 1
            if camera in self._received_at_s:
                self._received_at_s[camera] = time.monotonic()

    def count_dropped(self, cause: str, camera: str, frames: int = 1) -> bool:
        """Images of a camera were dropped; whether it is its first time for this cause."""
        with self._lock:
            is_first = (cause, camera) not in self._named
            self._named.add((cause, camera))
            self._dropped[cause] += frames
            self._window.dropped[cause, camera] += frames
            return is_first

    def count_processed(self, latency_s: float) -> None:
        """A frame was published, so long after it was received."""
        with self._lock:
            self._processed += 1
            self._window.processed += 1
            self._window.latency_sum_s += latency_s

    def count_steps(self, frames: int, seconds: Mapping[str, float]) -> None:
        """The steps of some frames that were processed together took so long."""
        with self._lock:
            self._window.timed += frames
            for step, value in seconds.items():
                self._window.steps_s[step] += value

    def count_faces(self, camera: str, reasons: Sequence[str]) -> None:
        """So many faces are in a camera's view; why each can't be judged, or ''."""
        with self._lock:
            self._faces[camera] = len(reasons)
            self._unjudged.update(reason for reason in reasons if reason)

    def forget_faces(self, camera: str) -> None:
        """A camera's faces are gone with it."""
        with self._lock:
            self._faces.pop(camera, None)

    def report(self) -> Report:
        """Read everything and open a new window for the rates."""
        with self._lock:
            window, self._window = self._window, _Window()
            seconds = max(self._window.since_s - window.since_s, 1e-9)
            return Report(
                received=self._received,
                processed=self._processed,
                dropped=dict(self._dropped),
                dropped_lately=dict(window.dropped),
                fps=window.processed / seconds,
                latency_ms=1e3 * window.latency_sum_s / max(window.processed, 1),
                steps_ms={s: 1e3 * v / max(window.timed, 1) for s, v in window.steps_s.items()},
                faces=sum(self._faces.values()),
                unjudged=dict(self._unjudged),
                silent=tuple(
                    camera
                    for camera, at_s in self._received_at_s.items()
                    if self._window.since_s - at_s > SILENCE_S
                ),
            )


Status = tuple[bytes, str, dict[str, str]]


class DiagnosticsPublisher:
    """Publishes a status on /diagnostics every second, from its own thread.

    Args:
        node: gives the publisher, the name and the stamp.
        status: called for level, message and further keys; must be quick and safe in any thread.
    """

    def __init__(self, node: Node, status: Callable[[Report], Status], statistics: Statistics):
        self._node = node
        self._status = status
        self._statistics = statistics
        self._publisher = node.create_publisher(DiagnosticArray, '/diagnostics', 10)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name='diagnostics', daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; returns when it has ended."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(PERIOD_S):
            try:
                self._publish()
            except Exception as error:  # the thread must outlive whatever a status can raise
                if self._stopping.is_set() or not self._node.context.ok():
                    return
                self._node.get_logger().error(f'diagnostics: {error}', throttle_duration_sec=10)

    def _publish(self) -> None:
        report = self._statistics.report()
        level, message, details = self._status(report)
        values = {
            'frames_received': report.received,
            'frames_processed': report.processed,
            **{f'frames_dropped.{cause}': count for cause, count in report.dropped.items()},
            'fps': f'{report.fps:.1f}',
            'latency_ms': f'{report.latency_ms:.1f}',
            **{f'step_ms.{step}': f'{ms:.2f}' for step, ms in report.steps_ms.items()},
            'faces': report.faces,
            **{f'faces_unjudged.{reason}': n for reason, n in report.unjudged.items()},
            **details,
        }
        array = DiagnosticArray()
        array.header.stamp = self._node.get_clock().now().to_msg()
        array.status = [
            DiagnosticStatus(
                level=level,
                name=f'{self._node.get_fully_qualified_name().lstrip("/")}: facial expressions',
                message=message,
                hardware_id=details.get('device', ''),
                values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
            )
        ]
        self._publisher.publish(array)
