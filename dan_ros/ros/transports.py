# SPDX-License-Identifier: Apache-2.0
"""Image transports: raw or compressed."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from builtin_interfaces.msg import Time
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from dan_ros.images.cdr import read_image, read_picture
from dan_ros.images.compressed import COMPRESSED_SUFFIX, JpegDecoder, check_compressed
from dan_ros.images.encodings import check_image, checked_image_to_frame
from dan_ros.types import Frame

RAW, COMPRESSED = 'raw', 'compressed'
TRANSPORTS = (RAW, COMPRESSED)


@dataclass(frozen=True)
class Transport:
    """One way to transport images."""

    message_type: type  # class of the messages
    read: Callable[[bytes], Any]  # parses a serialized message, or raises a FrameError; fast
    # Takes a message and the name of its camera, and returns a function that decodes the message;
    # raises a FrameError if the message is invalid. It is fast; the returned function may be slow
    # and may raise a FrameError.
    check: Callable[[Any, str], Callable[[], Frame]]


def suffix_of(name: str) -> str:
    """Return what a transport of `TRANSPORTS` appends to the name of the image topic."""
    return COMPRESSED_SUFFIX if name == COMPRESSED else ''


def open_transport(
    name: str, max_pixels: Callable[[], int], max_side_px: Callable[[], int]
) -> Transport:
    """Create a transport.

    `max_pixels` returns the size of the largest compressed image to decode, `max_side_px` the
    longer side of the copy on which faces are detected.
    """
    if name == RAW:
        return Transport(Image, read_raw, _check_raw)
    decoders: defaultdict[str, JpegDecoder] = defaultdict(JpegDecoder)

    def check(message: Any, camera: str) -> Callable[[], Frame]:
        size, decoder = check_compressed(message.data, max_pixels()), decoders[camera]
        return lambda: decoder.decode(message.data, size, max_side_px())

    return Transport(CompressedImage, lambda content: read_picture(content, _header), check)


def read_raw(content: bytes) -> Any:
    """Parse a serialized sensor_msgs/Image to a `cdr.SerializedImage`.

    Raises:
        FrameError: it is malformed.
    """
    return read_image(content, _header)


def _check_raw(message: Any, camera: str) -> Callable[[], Frame]:
    check_image(message)
    return lambda: checked_image_to_frame(message)


def _header(sec: int, nanosec: int, frame_id: str) -> Header:
    return Header(stamp=Time(sec=sec, nanosec=nanosec), frame_id=frame_id)
