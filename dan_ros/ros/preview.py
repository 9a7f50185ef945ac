# SPDX-License-Identifier: Apache-2.0
"""Publishes small JPEG pictures of a camera for viewers such as `dan-ros view`.

They never show the faces that the node hides.
"""

import re
import time
from array import array
from concurrent.futures import Future, ThreadPoolExecutor

from rclpy.node import Node
from sensor_msgs.msg import CompressedImage

from dan_ros.images.compressed import COMPRESSED_SUFFIX
from dan_ros.images.jpeg import to_preview
from dan_ros.ros.inference_thread import FrameResult
from dan_ros.ros.qos import QosMonitor, create_output

PERIOD_S = 0.08  # shortest time between two pictures of a camera, seconds
ERROR_PERIOD_S = 10  # interval between two errors about pictures, seconds


def preview_topic(node_name: str, camera: str) -> str:
    """Return the topic with the pictures of a camera.

    It is in the node's namespace, since another node may hide other faces of the same camera.

    >>> preview_topic('/head/dan_node', '/head/left/image_raw')
    '/head/dan_node/preview/left/image_raw/compressed'
    >>> preview_topic('/head/dan_node', '/headset/image_raw')
    '/head/dan_node/preview/headset/image_raw/compressed'
    """
    namespace = node_name.rpartition('/')[0] + '/'
    return f'{node_name}/preview/{camera.removeprefix(namespace).lstrip("/")}{COMPRESSED_SUFFIX}'


def to_format(size: tuple[int, int]) -> str:
    """Return the format of a picture, which includes the size of the original image.

    It starts with the format that image_transport expects.

    >>> to_format((1920, 1080))
    'bgr8; jpeg compressed bgr8; of 1920x1080'
    """
    return f'bgr8; jpeg compressed bgr8; of {size[0]}x{size[1]}'


def original_size(picture_format: str) -> tuple[int, int] | None:
    """Return the size that `to_format` wrote, (width, height); None if there is none."""
    found = re.search(r'; of (\d+)x(\d+)$', picture_format)
    return (int(found[1]), int(found[2])) if found else None


class PreviewPublisher:
    """Draws in its own thread, and only while somebody subscribes."""

    def __init__(self, node: Node, camera: str, qos_monitor: QosMonitor) -> None:
        self._node = node
        topic = preview_topic(node.get_fully_qualified_name(), camera)
        self._publisher = create_output(
            node, node.create_publisher, CompressedImage, topic, qos_monitor
        )
        self._thread = ThreadPoolExecutor(1, 'preview')
        self._drawing: Future[None] | None = None
        self._due_s = 0.0

    def publish(self, result: FrameResult) -> None:
        """Publish an image unless the last one was just published or is still being drawn."""
        now_s = time.monotonic()
        if now_s < self._due_s or self._publisher.get_subscription_count() == 0:
            return
        if self._drawing is None or self._drawing.done():
            self._due_s = now_s + PERIOD_S
            self._drawing = self._thread.submit(self._draw, result)

    def close(self) -> None:
        """Remove the publisher after the present picture."""
        self._thread.shutdown()
        self._node.destroy_publisher(self._publisher)

    def _draw(self, result: FrameResult) -> None:
        try:
            message = CompressedImage(header=result.header, format=to_format(result.size))
            message.data = array('B', to_preview(result.frame))
            self._publisher.publish(message)
        except Exception as error:  # the results are already published, so nothing is dropped
            self._node.get_logger().error(f'preview: {error}', throttle_duration_sec=ERROR_PERIOD_S)
