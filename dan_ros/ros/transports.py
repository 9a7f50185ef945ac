# SPDX-License-Identifier: Apache-2.0
"""Image transports: raw or compressed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from builtin_interfaces.msg import Time
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from dan_ros.images.cdr import read_image, read_picture
from dan_ros.images.compressed import COMPRESSED_SUFFIX, check_compressed, decode_checked
from dan_ros.images.encodings import check_image, checked_image_to_frame
from dan_ros.types import Frame

RAW, COMPRESSED = 'raw', 'compressed'
TRANSPORTS = (RAW, COMPRESSED)


@dataclass(frozen=True)
class Transport:
    """One way to transport images.

    Attributes:
        message_type: class of the messages.
        suffix: end of the topic, after the name of the camera.
        read: parses a serialized message, or raises a FrameError; fast.
        check: returns a function that decodes the message; raises a FrameError if the message is
            invalid. It is fast; the returned function may be slow and may raise a FrameError.
    """

    message_type: type
    suffix: str
    read: Callable[[bytes], Any]
    check: Callable[[Any], Callable[[], Frame]]


def suffix_of(name: str) -> str:
    """Return what a transport of `TRANSPORTS` appends to the name of the image topic."""
    return COMPRESSED_SUFFIX if name == COMPRESSED else ''


def open_transport(name: str, max_pixels: Callable[[], int]) -> Transport:
    """Create a transport.

    Args:
        name: one of `TRANSPORTS`.
        max_pixels: returns the size of the largest compressed image to decode.
    """
    if name == RAW:
        return Transport(Image, '', lambda content: read_image(content, _header), _check_raw)
    return Transport(
        CompressedImage,
        COMPRESSED_SUFFIX,
        lambda content: read_picture(content, _header),
        lambda message: _check_compressed(message, max_pixels()),
    )


def _check_raw(message: Any) -> Callable[[], Frame]:
    check_image(message)
    return lambda: checked_image_to_frame(message)


def _check_compressed(message: Any, max_pixels: int) -> Callable[[], Frame]:
    size = check_compressed(message.data, max_pixels)
    return lambda: decode_checked(message.data, size)


def _header(sec: int, nanosec: int, frame_id: str) -> Header:
    return Header(stamp=Time(sec=sec, nanosec=nanosec), frame_id=frame_id)
