# SPDX-License-Identifier: Apache-2.0
"""Puts arriving images into the buffer of the inference thread."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rclpy.callback_groups import CallbackGroup

from dan_ros.ros.drops import DropReporter
from dan_ros.ros.inference_thread import LatestFrameBuffer, StampedMessage
from dan_ros.ros.statistics import Statistics
from dan_ros.ros.transports import Transport


@dataclass(frozen=True)
class ImageReceiver:
    """Checks arriving images and stores the newest valid one of each camera.

    An invalid image never replaces a valid one.
    """

    transport: Transport  # raw or compressed
    buffer: LatestFrameBuffer[StampedMessage]  # buffer of the inference thread
    statistics: Statistics  # counts the images
    drops: DropReporter  # counts the dropped images
    source_of: Callable[[str], str]  # maps a camera to the name under which its drops are counted
    group: CallbackGroup  # callback group of the image subscriptions

    def receive(self, camera: str, read: Callable[[], Any]) -> None:
        """Take the image message that `read` returns; `camera` is its key in the buffer."""
        received_s = time.monotonic()
        self.statistics.count_received()
        try:
            message = read()
            decode = self.transport.check(message, camera)
        except Exception as error:  # FrameError, or out of memory for a copy
            self.drops.failed(camera, self.source_of(camera), error)
            return
        if self.buffer.put(camera, StampedMessage(message, decode, received_s)):
            self.drops.superseded(self.source_of(camera))
