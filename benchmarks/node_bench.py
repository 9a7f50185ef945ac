"""The node over DDS against a plain rclpy node, each in a process of its own.

A client here sends images at a rate, each stamped with the time it is sent, and notes how old each
result is when it comes. The cases take turns, each with new processes; what is given is the median
of the turns. All processes use the package's profile for large images, as README.md advises;
without it the middleware alone takes ten milliseconds for an image.
"""

import itertools
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import rclpy
from ament_index_python.packages import get_package_prefix, get_package_share_directory
from diagnostic_msgs.msg import DiagnosticArray
from parts import scene
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image

from dan_ros.msg import FacialExpressionArray
from dan_ros.ros.publishers import bgr_to_image

HERE = Path(__file__).parent
PATIENCE_S = 60.0
SECOND_NS = 1_000_000_000
OURS, NAIVE = 'dan_node', 'plain node'
PROFILE = 'FASTDDS_DEFAULT_PROFILES_FILE'
STEP, LATENCY = 'step_ms.', 'latency_ms'
REDUCE, DETECT, INFER = 'reduce', 'detect', 'infer'
PIPELINE = (REDUCE, DETECT, 'crop', INFER)  # steps of a frame that are the pipeline's


@dataclass(frozen=True)
class Case:
    """What to measure.

    Attributes:
        node: which.
        size: (width, height) of the images.
        rate_hz: of the images.
        is_compressed: whether they come as JPEG.
        seconds: for how long, all turns together; 0 is as long as the others.
        parameters: of the node.
    """

    node: str
    size: tuple[int, int]
    rate_hz: float
    is_compressed: bool = False
    seconds: float = 0.0
    parameters: tuple[str, ...] = ()


SMALL, MIDDLE, LARGE = (640, 480), (1280, 720), (1920, 1080)
MINUTE = 60.0
TURNS = 2
FIRST_DOMAIN = 60
CASES = (
    Case(NAIVE, SMALL, 15.0),
    Case(OURS, SMALL, 15.0),
    Case(NAIVE, SMALL, 30.0),
    Case(OURS, SMALL, 30.0),
    Case(OURS, SMALL, 30.0, parameters=('detector.interval:=5',)),
    Case(OURS, SMALL, 30.0, parameters=('backend.threads:=2',)),
    Case(NAIVE, SMALL, 60.0, seconds=MINUTE),
    Case(OURS, SMALL, 60.0, seconds=MINUTE),
    Case(OURS, MIDDLE, 60.0, seconds=MINUTE, parameters=('detector.max_side_px:=1280',)),
    Case(OURS, SMALL, 30.0, is_compressed=True),
    Case(NAIVE, MIDDLE, 30.0),
    Case(OURS, MIDDLE, 30.0),
    Case(OURS, MIDDLE, 30.0, is_compressed=True),
    Case(OURS, LARGE, 15.0),
    Case(OURS, LARGE, 15.0, is_compressed=True),
)


@dataclass
class NodeResult:
    """How a node did.

    Attributes:
        node: which, and its parameters.
        images: size, and whether they were compressed.
        sent_hz, done_hz: images sent and results received a second.
        age_ms, age_99_ms: median and 99th percentile of the time from sending an image to its
            result.
        growth: median age in the last quarter over that in the second: 1 where it does not grow.
        pipeline_ms: mean from image to probabilities, by the node's diagnostics; 0 for the plain
            node, which has none.
        own_ms: mean from receipt of an image to its last message, less detection (with what
            reduces the image for it) and network.
        own_with_reduce_ms: the same with what reduces the image for the detector.
        cpu_ms: processor time of the node's process a result.
        memory_mib: resident.
        start_s: from the start of the process to its first result.
        times_fresher, times_less_cpu: median age of the plain node's results of the same images in
            the same run, over this one's; and processor time a result. None where it was not run.
    """

    node: str
    images: str
    sent_hz: float
    done_hz: float
    age_ms: float
    age_99_ms: float
    growth: float
    pipeline_ms: float
    own_ms: float
    own_with_reduce_ms: float
    cpu_ms: float
    memory_mib: float
    start_s: float
    times_fresher: float | None = None
    times_less_cpu: float | None = None


def measure_nodes(seconds: float, say: Callable[[str], object]) -> list[NodeResult]:
    """Every case in some turns, each in a process of its own.

    Args:
        seconds: of a case, all its turns together.
        say: told what is measured.
    """
    share = Path(get_package_share_directory('dan_ros'))
    os.environ.setdefault(PROFILE, str(share / 'config' / 'fastdds_large_images.xml'))
    turns: dict[Case, list[NodeResult]] = {case: [] for case in CASES}
    domains = itertools.count(FIRST_DOMAIN)
    for turn in range(TURNS):
        for case, results in turns.items():
            say(f'{_name(case)}, {_images(case)}, turn {turn + 1} of {TURNS} ...')
            window_s = (case.seconds or seconds) / TURNS
            results.append(_measure(case, window_s, next(domains)))
    return compare_to_plain([median_of(results) for results in turns.values()])


def median_of(results: list[NodeResult]) -> NodeResult:
    """Of each number the median over the turns."""
    numbers = [f.name for f in fields(NodeResult) if isinstance(getattr(results[0], f.name), float)]
    medians = {name: statistics.median(getattr(r, name) for r in results) for name in numbers}
    return replace(results[0], **medians)


def compare_to_plain(results: list[NodeResult]) -> list[NodeResult]:
    """The same results with their ratios to the plain node's of the same images."""
    plain = {result.images: result for result in results if result.node == NAIVE}
    return [
        replace(
            result,
            times_fresher=plain[result.images].age_ms / result.age_ms,
            times_less_cpu=plain[result.images].cpu_ms / result.cpu_ms,
        )
        if result.images in plain
        else result
        for result in results
    ]


def _name(case: Case) -> str:
    return ', '.join([case.node, *case.parameters]).replace(':=', ' ')


def _images(case: Case) -> str:
    kind = 'compressed' if case.is_compressed else 'raw'
    return f'{case.size[0]}x{case.size[1]} {kind}, {case.rate_hz:g} Hz'


def _measure(case: Case, seconds: float, domain: int) -> NodeResult:
    started_s = time.monotonic()
    process = _start(case, domain)
    try:
        with Client(domain, scene(*case.size, 1), case.is_compressed) as client:
            client.send_until_answered(process)
            start_s = time.monotonic() - started_s
            client.send(case.rate_hz, min(3.0, seconds))  # warm
            watched = psutil.Process(process.pid)
            before = sum(watched.cpu_times()[:2])
            client.ages_ns.clear()
            client.steps_ms.clear()
            sent = client.send(case.rate_hz, seconds)
            cpu_s = sum(watched.cpu_times()[:2]) - before
            ages_ms = [age / 1e6 for age in client.ages_ns]
            quarter = max(1, len(ages_ms) // 4)
            return NodeResult(
                _name(case),
                _images(case),
                sent / seconds,
                len(ages_ms) / seconds,
                statistics.median(ages_ms),
                float(np.percentile(ages_ms, 99)),
                statistics.median(ages_ms[-quarter:])
                / statistics.median(ages_ms[quarter : 2 * quarter] or ages_ms),
                sum(client.mean_ms(step) for step in PIPELINE),
                client.mean_ms(LATENCY) - sum(map(client.mean_ms, (REDUCE, DETECT, INFER))),
                client.mean_ms(LATENCY) - sum(map(client.mean_ms, (DETECT, INFER))),
                1e3 * cpu_s / max(len(ages_ms), 1),
                watched.memory_info().rss / 2**20,
                start_s,
            )
    finally:
        process.kill()
        process.wait()


def _start(case: Case, domain: int) -> subprocess.Popen[bytes]:
    program = Path(get_package_prefix('dan_ros'), 'lib', 'dan_ros', 'dan_node')
    transport = 'compressed' if case.is_compressed else 'raw'
    arguments = [str(program), '--ros-args', '-p', f'image_transport:={transport}']
    for parameter in case.parameters:
        arguments += ['-p', parameter]
    if case.node == NAIVE:
        arguments = ['-m', 'naive.node']
    return subprocess.Popen(  # noqa: S603
        [sys.executable, *arguments],
        cwd=HERE,
        env={**os.environ, 'ROS_DOMAIN_ID': str(domain)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


class Client:
    """Sends an image again and again, and collects the ages of the results.

    Attributes:
        ages_ns: of each result when it came.
        steps_ms: what the node's diagnostics said of each step, a value a second.
    """

    def __init__(self, domain: int, image_bgr: np.ndarray, compressed: bool) -> None:
        self.ages_ns: list[int] = []
        self.steps_ms: dict[str, list[float]] = defaultdict(list)
        self._context = rclpy.Context()
        rclpy.init(context=self._context, domain_id=domain)
        self._node = rclpy.create_node('client', context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._message: Any = bgr_to_image(image_bgr, FacialExpressionArray().header)
        if compressed:
            content = cv2.imencode('.jpg', image_bgr)[1].tobytes()
            self._message = CompressedImage(format='jpeg', data=content)
        self._publisher = self._node.create_publisher(
            CompressedImage if compressed else Image,
            'image/compressed' if compressed else 'image',
            QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE),
        )
        self._node.create_subscription(
            FacialExpressionArray, 'facial_expressions', self._on_result, 100
        )
        self._node.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)

    def __enter__(self) -> 'Client':
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown()
        self._node.destroy_node()
        rclpy.shutdown(context=self._context)

    def send(self, rate_hz: float, seconds: float) -> int:
        """Send at a rate; gives the number sent."""
        begun_s = time.monotonic()
        sent = 0
        while (now_s := time.monotonic() - begun_s) < seconds:
            if now_s * rate_hz >= sent:
                self._send_one()
                sent += 1
            self._executor.spin_once(timeout_sec=max(0.0, sent / rate_hz - now_s))
        return sent

    def send_until_answered(self, process: subprocess.Popen[bytes]) -> None:
        """Send until the first result comes."""
        end_s = time.monotonic() + PATIENCE_S
        while not self.ages_ns:
            if process.poll() is not None or time.monotonic() > end_s:
                raise RuntimeError(f'the node gave no result: exit code {process.poll()}')
            self.send(30.0, 0.1)

    def _send_one(self) -> None:
        stamp = self._message.header.stamp
        stamp.sec, stamp.nanosec = divmod(time.monotonic_ns(), SECOND_NS)
        self._publisher.publish(self._message)

    def _on_result(self, result: FacialExpressionArray) -> None:
        stamp = result.header.stamp
        self.ages_ns.append(time.monotonic_ns() - stamp.sec * SECOND_NS - stamp.nanosec)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for entry in message.status[0].values:
            if entry.key == LATENCY or entry.key.startswith(STEP):
                self.steps_ms[entry.key.removeprefix(STEP)].append(float(entry.value))

    def mean_ms(self, step: str) -> float:
        """Mean of a step, or of `LATENCY`; 0 if the node says nothing of it."""
        return statistics.fmean(self.steps_ms[step] or [0.0])
