"""What comes from one camera: its images, raw or compressed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CompressedImage, Image

from dan_ros.compressed import check_compressed, compressed_to_frame
from dan_ros.images import check_image, image_to_frame
from dan_ros.ros.qos_events import SubscriptionEventCallbacks, create_with_events
from dan_ros.types import Frame

RAW, COMPRESSED = 'raw', 'compressed'
TRANSPORTS = (RAW, COMPRESSED)
IMAGES, CROPPED_FACES = 'images', 'cropped_faces'
INPUTS = (IMAGES, CROPPED_FACES)


@dataclass(frozen=True)
class Transport:
    """How images travel.

    Attributes:
        kind: of the messages.
        suffix: of the topic.
        check: raises a FrameError if a message is not sound; quick.
        to_frame: makes a frame of a sound message, or raises a FrameError.
    """

    kind: type
    suffix: str
    check: Callable[[Any], None]
    to_frame: Callable[[Any], Frame]


def open_transport(name: str, max_pixels: Callable[[], int]) -> Transport:
    """One of `TRANSPORTS`; `max_pixels` gives the largest compressed picture to decode."""
    if name == RAW:
        return Transport(Image, '', check_image, image_to_frame)
    return Transport(
        CompressedImage,
        '/compressed',
        lambda message: check_compressed(bytes(message.data), max_pixels()),
        lambda message: compressed_to_frame(bytes(message.data), max_pixels()),
    )


def subscribe_to_images(
    node: Node,
    camera: str,
    transport: Transport,
    reliability: str,
    on_message: Callable[[Any], None],
    events: SubscriptionEventCallbacks,
) -> Any:
    """Subscribe to a camera's images, the newest alone.

    Args:
        node: subscribes.
        camera: resolved name of the image topic; compressed images come on a topic below it.
        transport: how images travel.
        reliability: best_effort or reliable.
        on_message: called with each image.
        events: called when images are lost, or a publisher's QoS does not fit.
    """
    qos = QoSProfile(
        history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy[reliability.upper()]
    )
    return create_with_events(
        lambda callbacks: node.create_subscription(
            transport.kind,
            camera + transport.suffix,
            on_message,
            qos,
            event_callbacks=callbacks,
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        ),
        events,
    )
