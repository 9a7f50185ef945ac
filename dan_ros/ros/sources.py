"""What comes from one camera: its images, raw or compressed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from builtin_interfaces.msg import Time
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from dan_ros.images.cdr import read_image, read_picture
from dan_ros.images.compressed import check_compressed, compressed_to_frame
from dan_ros.images.encodings import check_image, image_to_frame
from dan_ros.ros.qos import SubscriptionEventCallbacks, create_with_events
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
        read: makes a message of its serialised form, or raises a FrameError; quick.
        check: raises a FrameError if a message is not sound; quick.
        to_frame: makes a frame of a sound message, or raises a FrameError.
    """

    kind: type
    suffix: str
    read: Callable[[bytes], Any]
    check: Callable[[Any], None]
    to_frame: Callable[[Any], Frame]


def open_transport(name: str, max_pixels: Callable[[], int]) -> Transport:
    """One of `TRANSPORTS`; `max_pixels` gives the largest compressed picture to decode."""
    if name == RAW:
        return Transport(
            Image, '', lambda content: read_image(content, _header), check_image, image_to_frame
        )
    return Transport(
        CompressedImage,
        '/compressed',
        lambda content: read_picture(content, _header),
        lambda picture: check_compressed(picture.data, max_pixels()),
        lambda picture: compressed_to_frame(picture.data, max_pixels()),
    )


def _header(sec: int, nanosec: int, frame_id: str) -> Header:
    return Header(stamp=Time(sec=sec, nanosec=nanosec), frame_id=frame_id)


def subscribe_to_images(
    node: Node,
    camera: str,
    transport: Transport,
    reliability: str,
    on_image: Callable[[bytes], None],
    events: SubscriptionEventCallbacks,
) -> Any:
    """Subscribe to a camera's images, the newest alone.

    Args:
        node: subscribes.
        camera: resolved name of the image topic; compressed images come on a topic below it.
        transport: how images travel.
        reliability: best_effort or reliable.
        on_image: called with each image in its serialised form, which `transport.read` reads.
        events: called when images are lost, or a publisher's QoS does not fit.
    """
    qos = QoSProfile(
        history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy[reliability.upper()]
    )
    return create_with_events(
        node,
        lambda callbacks: node.create_subscription(
            transport.kind,
            camera + transport.suffix,
            on_image,
            qos,
            raw=True,
            event_callbacks=callbacks,
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        ),
        events,
    )
