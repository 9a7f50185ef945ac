# SPDX-License-Identifier: Apache-2.0
"""Compares the node with a plain rclpy node, over DDS, each in its own process.

A client sends images at a fixed rate and measures the age of each result. The cases run alternately
in several rounds, each time with a new process in a new ROS domain; the result is the median of the
rounds. All processes use the package's Fast DDS profile for large images.
"""

import itertools
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
from ament_index_python.packages import get_package_share_directory
from client import Client, NodeError, cpu_seconds, dan_node, image_message, start_node
from parts import scene

DAN_NODE, PLAIN = 'dan_node', 'plain node'
PROFILE = 'FASTDDS_DEFAULT_PROFILES_FILE'
ROUNDS = 2
FIRST_DOMAIN = 60
WARM_UP_S = 3.0
SMALL, MEDIUM, LARGE = (640, 480), (1280, 720), (1920, 1080)


@dataclass(frozen=True)
class Case:
    """One measurement.

    Attributes:
        node: `DAN_NODE` or `PLAIN`.
        size: (width, height) of the images, pixels.
        rate_hz: image rate.
        is_compressed: send JPEG instead of raw images.
        seconds: duration of all rounds together; 0 for the one given on the command line.
        parameters: parameters of the node, as 'name:=value'.
    """

    node: str
    size: tuple[int, int]
    rate_hz: float
    is_compressed: bool = False
    seconds: float = 0.0
    parameters: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The node and its parameters."""
        return ', '.join([self.node, *self.parameters]).replace(':=', ' ')

    @property
    def images(self) -> str:
        """Description of the images."""
        transport = 'compressed' if self.is_compressed else 'raw'
        return f'{self.size[0]}x{self.size[1]} {transport}, {self.rate_hz:g} Hz'


CASES = (
    Case(PLAIN, SMALL, 15.0),
    Case(DAN_NODE, SMALL, 15.0),
    Case(PLAIN, SMALL, 30.0),
    Case(DAN_NODE, SMALL, 30.0),
    Case(DAN_NODE, SMALL, 30.0, parameters=('detector.interval:=5',)),
    Case(DAN_NODE, SMALL, 30.0, parameters=('backend.threads:=2',)),
    Case(PLAIN, SMALL, 60.0, seconds=60.0),
    Case(DAN_NODE, SMALL, 60.0, seconds=60.0),
    Case(DAN_NODE, MEDIUM, 60.0, seconds=60.0, parameters=('detector.max_side_px:=1280',)),
    Case(DAN_NODE, SMALL, 30.0, is_compressed=True),
    Case(PLAIN, MEDIUM, 30.0),
    Case(DAN_NODE, MEDIUM, 30.0),
    Case(DAN_NODE, MEDIUM, 30.0, is_compressed=True),
    Case(DAN_NODE, LARGE, 15.0),
    Case(DAN_NODE, LARGE, 15.0, is_compressed=True),
)


@dataclass
class NodeResult:
    """Result of one case.

    Attributes:
        node: the node and its parameters.
        images: description of the images.
        sent_hz, done_hz: images sent and results received per second.
        age_ms, age_99_ms: median and 99th percentile of the age of the results.
        growth: median age in the last quarter divided by that in the second; 1 if it is stable.
        own_ms: mean latency of the node without detection, reduction for it, and network; 0 for
            the plain node.
        cpu_ms: processor time per result.
        memory_mib: resident memory.
        start_s: time from the start of the process to the first result.
        times_fresher, times_less_cpu: age and processor time of the plain node for the same images,
            divided by those of this node; None if the plain node was not measured.
    """

    node: str
    images: str
    sent_hz: float
    done_hz: float
    age_ms: float
    age_99_ms: float
    growth: float
    own_ms: float
    cpu_ms: float
    memory_mib: float
    start_s: float
    times_fresher: float | None = None
    times_less_cpu: float | None = None


def measure_nodes(seconds: float, on_progress: Callable[[str], object]) -> list[NodeResult]:
    """Measure every case.

    Args:
        seconds: duration of a case, all rounds together.
        on_progress: called with a description before each measurement.
    """
    share = Path(get_package_share_directory('dan_ros'))
    os.environ.setdefault(PROFILE, str(share / 'config' / 'fastdds_large_images.xml'))
    results: dict[Case, list[NodeResult]] = {case: [] for case in CASES}
    domains = itertools.count(FIRST_DOMAIN)
    for index in range(ROUNDS):
        for case, of_case in results.items():
            on_progress(f'{case.name}, {case.images}, round {index + 1} of {ROUNDS}')
            of_case.append(_measure(case, (case.seconds or seconds) / ROUNDS, next(domains)))
    return compare_to_plain([median_of(of_case) for of_case in results.values()])


def median_of(results: list[NodeResult]) -> NodeResult:
    """Return the median of each number over the rounds."""
    numbers = [f.name for f in fields(NodeResult) if isinstance(getattr(results[0], f.name), float)]
    medians = {name: statistics.median(getattr(r, name) for r in results) for name in numbers}
    return replace(results[0], **medians)


def compare_to_plain(results: list[NodeResult]) -> list[NodeResult]:
    """Add the ratios to the plain node's results for the same images."""
    plain = {result.images: result for result in results if result.node == PLAIN}
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


def _measure(case: Case, seconds: float, domain: int) -> NodeResult:
    start_s = time.monotonic()
    process = start_node(*_arguments(case), ROS_DOMAIN_ID=str(domain))
    image = image_message(scene(*case.size, 1), case.is_compressed)
    topic = 'image/compressed' if case.is_compressed else 'image'
    try:
        with Client(domain, image_type=type(image), topic=topic) as client:
            client.wait_for_result(process, lambda: client.send(image))
            start_s = time.monotonic() - start_s
            client.send_at_rate(image, case.rate_hz, min(WARM_UP_S, seconds))
            client.clear()
            cpu_before_s = cpu_seconds(process)
            client.send_at_rate(image, case.rate_hz, seconds)
            cpu_s = cpu_seconds(process) - cpu_before_s
            memory_mib = process.memory_info().rss / 2**20
            return _summarize(case, client, seconds, cpu_s, memory_mib, start_s)
    finally:
        process.kill()
        process.wait()


def _summarize(
    case: Case, client: Client, seconds: float, cpu_s: float, memory_mib: float, start_s: float
) -> NodeResult:
    ages_ms = client.ages_ms
    if not ages_ms:
        raise NodeError(f'{case.name}, {case.images}: no result in {seconds:g} s; use --seconds')
    quarter = max(1, len(ages_ms) // 4)
    second_quarter = ages_ms[quarter : 2 * quarter] or ages_ms
    return NodeResult(
        node=case.name,
        images=case.images,
        sent_hz=client.sent / seconds,
        done_hz=len(ages_ms) / seconds,
        age_ms=statistics.median(ages_ms),
        age_99_ms=float(np.percentile(ages_ms, 99)),
        growth=statistics.median(ages_ms[-quarter:]) / statistics.median(second_quarter),
        own_ms=_own_ms(client.diagnostics),
        cpu_ms=1e3 * cpu_s / len(ages_ms),
        memory_mib=memory_mib,
        start_s=start_s,
    )


def _own_ms(diagnostics: list[dict[str, str]]) -> float:
    """Return the mean latency without reduction, detection and network; 0 if it is unknown."""
    steps = ('step_ms.reduce', 'step_ms.detect', 'step_ms.infer')
    known = [values for values in diagnostics if 'latency_ms' in values]
    own = [
        float(values['latency_ms']) - sum(float(values.get(s, 0)) for s in steps)
        for values in known
    ]
    return statistics.fmean(own or [0.0])


def _arguments(case: Case) -> list[str]:
    if case.node == PLAIN:
        return ['-m', 'naive.node']
    transport = 'compressed' if case.is_compressed else 'raw'
    parameters = (f'image_transport:={transport}', *case.parameters)
    options = itertools.chain.from_iterable(('-p', parameter) for parameter in parameters)
    return [dan_node(), '--ros-args', *options]
