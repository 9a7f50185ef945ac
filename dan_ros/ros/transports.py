"""How images travel: raw or compressed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from builtin_interfaces.msg import Time
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from dan_ros.images.cdr import read_image, read_picture
from dan_ros.images.compressed import check_compressed, compressed_to_frame
from dan_ros.images.encodings import check_image, image_to_frame
from dan_ros.types import Frame

RAW, COMPRESSED = 'raw', 'compressed'
TRANSPORTS = (RAW, COMPRESSED)


@dataclass(frozen=True)
class Transport:
    """How images travel.

    Attributes:
        message_type: class of the messages.
        suffix: of the topic, behind the name of the camera.
        read: parses a serialized message, or raises a FrameError; fast.
        check: raises a FrameError if a message is invalid; fast.
        to_frame: decodes a valid message, or raises a FrameError.
    """

    message_type: type
    suffix: str
    read: Callable[[bytes], Any]
    check: Callable[[Any], None]
    to_frame: Callable[[Any], Frame]


def open_transport(name: str, max_pixels: Callable[[], int]) -> Transport:
    """Create a transport.

    Args:
        name: one of `TRANSPORTS`.
        max_pixels: returns the size of the largest compressed image to decode.
    """
    if name == RAW:
        return Transport(
            Image, '', lambda content: read_image(content, _header), check_image, image_to_frame
        )
    return Transport(
        CompressedImage,
        '/compressed',
        lambda content: read_picture(content, _header),
        lambda message: check_compressed(message.data, max_pixels()),
        lambda message: compressed_to_frame(message.data, max_pixels()),
    )


def _header(sec: int, nanosec: int, frame_id: str) -> Header:
    return Header(stamp=Time(sec=sec, nanosec=nanosec), frame_id=frame_id)
