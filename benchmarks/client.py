# SPDX-License-Identifier: Apache-2.0
"""Starts nodes and talks to them over DDS: sends images and records the age of each result."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import rclpy
from ament_index_python.packages import get_package_prefix
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CompressedImage, Image

from dan_ros.msg import FacialExpressionArray

HERE = Path(__file__).parent
START_TIMEOUT_S = 60.0
NS_PER_S = 1_000_000_000


class NodeError(Exception):
    """The node under test ended or does not answer."""


def start_node(*arguments: str, log: Path | None = None, **variables: str) -> psutil.Popen:
    """Start a Python program in its own session, so that Ctrl-C does not reach it.

    Args:
        arguments: arguments of the Python interpreter.
        log: file for the output; None to discard it.
        variables: additional environment variables.
    """
    with open(log or os.devnull, 'w', encoding='utf-8') as output:
        return psutil.Popen(
            [sys.executable, *arguments],
            cwd=HERE,
            env={**os.environ, **variables},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def dan_node() -> str:
    """Return the path of the node's executable."""
    return str(Path(get_package_prefix('dan_ros'), 'lib', 'dan_ros', 'dan_node'))


def cpu_seconds(process: psutil.Process) -> float:
    """Return the processor time that a process has used."""
    return float(sum(process.cpu_times()[:2]))


def image_message(image_bgr: np.ndarray, is_compressed: bool) -> Image | CompressedImage:
    """Return an image message with the pixels, uint8 [H, W, 3], raw or as a JPEG."""
    if is_compressed:
        return CompressedImage(format='jpeg', data=cv2.imencode('.jpg', image_bgr)[1].tobytes())
    height, width = image_bgr.shape[:2]
    message = Image(height=height, width=width, encoding='bgr8', step=3 * width)
    message.data.frombytes(image_bgr.tobytes())
    return message


class Client:
    """Publishes images and records the node's messages.

    Args:
        domain: ROS domain; None for the one of the environment.
        namespace: namespace of the node.
        image_type: `Image` or `CompressedImage`.
        topic: topic of the images.

    Attributes:
        node: this client's own ROS node.
        sent: number of images sent.
        ages_ms: time from sending an image to receiving its result.
        diagnostics: key-value pairs of each diagnostic status of the node.
    """

    def __init__(
        self,
        domain: int | None = None,
        namespace: str = '',
        image_type: type = Image,
        topic: str = 'image',
    ) -> None:
        self.sent = 0
        self.ages_ms: list[float] = []
        self.diagnostics: list[dict[str, str]] = []
        self._status_prefix = namespace.removeprefix('/')
        self._context = rclpy.Context()
        no_signals = SignalHandlerOptions.NO
        rclpy.init(context=self._context, domain_id=domain, signal_handler_options=no_signals)
        self.node = rclpy.create_node('client', namespace=namespace, context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        qos = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
        self._publisher = self.node.create_publisher(image_type, topic, qos)
        subscribe = self.node.create_subscription
        subscribe(FacialExpressionArray, 'facial_expressions', self._on_result, 100)
        subscribe(DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)

    def __enter__(self) -> 'Client':
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self._context)

    def clear(self) -> None:
        """Clear everything recorded."""
        self.sent = 0
        self.ages_ms.clear()
        self.diagnostics.clear()

    def spin(self, seconds: float) -> None:
        """Handle one message; wait for it at most `seconds`."""
        self._executor.spin_once(timeout_sec=max(0.0, seconds))

    def send(self, image: Any) -> None:
        """Publish an image, stamped with the current monotonic time."""
        stamp = image.header.stamp
        stamp.sec, stamp.nanosec = divmod(time.monotonic_ns(), NS_PER_S)
        self._publisher.publish(image)
        self.sent += 1

    def send_at_rate(self, image: Any, rate_hz: float, seconds: float) -> None:
        """Publish an image repeatedly and receive results."""
        start_s, first = time.monotonic(), self.sent
        while (now_s := time.monotonic() - start_s) < seconds:
            if now_s * rate_hz >= self.sent - first:
                self.send(image)
            self.spin((self.sent - first) / rate_hz - now_s)

    def wait_for_result(self, process: psutil.Popen, send: Callable[[], object]) -> None:
        """Call `send` every 0.1 s until the first result arrives.

        Raises:
            NodeError: the process ended, or there is no result after 60 s.
        """
        end_s = time.monotonic() + START_TIMEOUT_S
        while not self.ages_ms:
            if process.poll() is not None or time.monotonic() > end_s:
                raise NodeError(f'the node gave no result; exit code {process.poll()}')
            send()
            self.spin(0.1)

    def _on_result(self, result: FacialExpressionArray) -> None:
        stamp = result.header.stamp
        sent_ns = stamp.sec * NS_PER_S + stamp.nanosec
        self.ages_ms.append((time.monotonic_ns() - sent_ns) / 1e6)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        status = message.status[0]
        if status.name.startswith(self._status_prefix):
            self.diagnostics.append({entry.key: entry.value for entry in status.values})
