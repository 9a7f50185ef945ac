# SPDX-License-Identifier: Apache-2.0
"""Publishes the node's status on /diagnostics at 1 Hz.

Its own thread uses the steady clock. So it also publishes under simulated time without /clock, in
every lifecycle state, and while a long configure blocks the executor.
"""

import threading
from collections.abc import Callable

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node

from dan_ros.ros.status import Status

PERIOD_S = 1.0
ERROR_PERIOD_S = 10  # interval between two errors about diagnostics, seconds


class DiagnosticsPublisher:
    """Publishes a status every second from its own thread.

    `get_status` is called in that thread; it must be fast and thread-safe.
    """

    def __init__(self, node: Node, get_status: Callable[[], Status]) -> None:
        self._node = node
        self._get_status = get_status
        self._publisher = node.create_publisher(DiagnosticArray, '/diagnostics', 10)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name='diagnostics', daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread and wait for its end."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(PERIOD_S):
            try:
                self._publish(self._get_status())
            except Exception as error:  # the thread must survive any error
                if self._stopping.is_set() or not self._node.context.ok():
                    return
                self._node.get_logger().error(
                    f'diagnostics: {error}', throttle_duration_sec=ERROR_PERIOD_S
                )

    def _publish(self, status: Status) -> None:
        array = DiagnosticArray()
        array.header.stamp = self._node.get_clock().now().to_msg()
        array.status = [
            DiagnosticStatus(
                level=status.level,
                name=f'{self._node.get_fully_qualified_name().lstrip("/")}: facial expressions',
                message=status.message,
                hardware_id=status.values.get('device', ''),
                values=[KeyValue(key=key, value=value) for key, value in status.values.items()],
            )
        ]
        self._publisher.publish(array)
