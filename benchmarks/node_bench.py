"""The node over DDS against a plain rclpy node, each in a process of its own.

A client here sends images at a rate, each stamped with the time it is sent, and notes how old each
result is when it comes.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import rclpy
from ament_index_python.packages import get_package_prefix
from parts import scene
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image

from dan_ros.msg import FacialExpressionArray
from dan_ros.ros.messages import bgr_to_image

HERE = Path(__file__).parent
READY = 'waiting for images'
PATIENCE_S = 60.0
SECOND_NS = 1_000_000_000
OURS, NAIVE = 'dan_node', 'plain node'
# node, width, height, compressed, rate
CASES = (
    (NAIVE, 640, 480, False, 15.0),
    (OURS, 640, 480, False, 15.0),
    (NAIVE, 640, 480, False, 30.0),
    (OURS, 640, 480, False, 30.0),
    (NAIVE, 640, 480, False, 60.0),
    (OURS, 640, 480, False, 60.0),
    (OURS, 640, 480, True, 30.0),
    (OURS, 1280, 720, False, 30.0),
    (OURS, 1280, 720, True, 30.0),
    (OURS, 1920, 1080, False, 15.0),
    (OURS, 1920, 1080, True, 15.0),
)


@dataclass
class NodeResult:
    """How a node did.

    Attributes:
        node: which.
        images: size, and whether they were compressed.
        sent_hz, done_hz: images sent and results received a second.
        age_ms, age_99_ms: median and 99th percentile of the time from sending an image to its
            result.
        growth: median age in the last quarter over that in the second: 1 where it does not grow.
        cpu_ms: processor time of the node's process a result.
        memory_mib: resident.
        start_s: from the start of the process to its first result.
    """

    node: str
    images: str
    sent_hz: float
    done_hz: float
    age_ms: float
    age_99_ms: float
    growth: float
    cpu_ms: float
    memory_mib: float
    start_s: float


def measure_nodes(seconds: float, say: Callable[[str], object]) -> list[NodeResult]:
    """Every case in turn."""
    results = []
    for number, case in enumerate(CASES):
        node, width, height, compressed, rate_hz = case
        how = 'compressed' if compressed else 'raw'
        say(f'{node}, {width}x{height} {how} at {rate_hz:g} Hz ...')
        results.append(_measure(*case, seconds, domain=60 + number))
    return results


def _measure(
    node: str,
    width: int,
    height: int,
    compressed: bool,
    rate_hz: float,
    seconds: float,
    domain: int,
) -> NodeResult:
    started_s = time.monotonic()
    process = _start(node, compressed, domain)
    try:
        with Client(domain, scene(width, height, 1), compressed) as client:
            client.send_until_answered(process)
            start_s = time.monotonic() - started_s
            client.send(rate_hz, min(3.0, seconds))  # warm
            watched = psutil.Process(process.pid)
            before = sum(watched.cpu_times()[:2])
            client.ages_ns.clear()
            sent = client.send(rate_hz, seconds)
            cpu_s = sum(watched.cpu_times()[:2]) - before
            ages_ms = [age / 1e6 for age in client.ages_ns]
            quarter = max(1, len(ages_ms) // 4)
            return NodeResult(
                node,
                f'{width}x{height} {"compressed" if compressed else "raw"}',
                sent / seconds,
                len(ages_ms) / seconds,
                statistics.median(ages_ms),
                float(np.percentile(ages_ms, 99)),
                statistics.median(ages_ms[-quarter:])
                / statistics.median(ages_ms[quarter : 2 * quarter] or ages_ms),
                1e3 * cpu_s / max(len(ages_ms), 1),
                watched.memory_info().rss / 2**20,
                start_s,
            )
    finally:
        process.kill()
        process.wait()


def _start(node: str, compressed: bool, domain: int) -> subprocess.Popen[bytes]:
    program = Path(get_package_prefix('dan_ros'), 'lib', 'dan_ros', 'dan_node')
    arguments = [str(program), '--ros-args']
    arguments += ['-p', f'image_transport:={"compressed" if compressed else "raw"}']
    # Images beyond 512 KiB need it with Fast DDS; the plain node's subscription is reliable, too.
    arguments += ['-p', 'qos.reliability:=reliable']
    if node == NAIVE:
        arguments = ['-m', 'naive.node']
    return subprocess.Popen(  # noqa: S603
        [sys.executable, *arguments],
        cwd=HERE,
        env={**os.environ, 'ROS_DOMAIN_ID': str(domain)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


class Client:
    """Sends an image again and again, and collects the ages of the results."""

    def __init__(self, domain: int, image_bgr: np.ndarray, compressed: bool) -> None:
        self.ages_ns: list[int] = []
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
