"""Images read from the bytes they travel in, their pixels left where they are.

Made into a message of rclpy, an image of 1920x1080 is copied three times, which takes a millisecond
and holds up every thread. Here its pixels stay a view.

ROS 2's middlewares serialise by CDR (OMG, "DDS Interoperability Wire Protocol" 2.5, section 10,
https://www.omg.org/spec/DDSI-RTPS): two bytes say the byte order, two are options; then come the
fields in their order, numbers at multiples of their size, and strings and sequences behind their
length. The fields: https://github.com/ros2/common_interfaces, sensor_msgs.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dan_ros.errors import FrameError

MakeHeader = Callable[[int, int, str], Any]
BYTE_ORDERS = {b'\x00\x00': '>', b'\x00\x01': '<'}  # CDR_BE, CDR_LE
START = 4  # of the first field; alignment counts from here


@dataclass(frozen=True)
class SerialisedImage:
    """sensor_msgs/Image; see `images.ImageMessage`.

    Attributes:
        header: as the caller wants it.
        data: a view into the bytes it was read from.
    """

    header: Any
    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: memoryview


@dataclass(frozen=True)
class SerialisedPicture:
    """sensor_msgs/CompressedImage.

    Attributes:
        header: as the caller wants it.
        data: the picture's file.
    """

    header: Any
    format: str
    data: bytes


class _Reader:
    """Takes one field after the other."""

    def __init__(self, content: bytes) -> None:
        self._content = memoryview(content)
        self._place = START
        order = BYTE_ORDERS.get(content[:2])
        if order is None:
            raise FrameError('bad_message', f'a message in an unknown form, {content[:4].hex()!r}')
        self._order = order

    def number(self, kind: str) -> int:
        """A number; `kind` as in `struct`, of 1 or 4 bytes."""
        size = struct.calcsize(kind)
        self._place += (START - self._place) % size
        (value,) = struct.unpack_from(self._order + kind, self._take(size))
        return int(value)

    def text(self) -> str:
        """A string, up to its first zero; as in rclpy, what is no UTF-8 is replaced."""
        return bytes(self._take(self.number('I'))).partition(b'\0')[0].decode(errors='replace')

    def octets(self) -> memoryview:
        """A sequence of bytes, where it lies."""
        return self._take(self.number('I'))

    def _take(self, size: int) -> memoryview:
        end = self._place + size
        if end > len(self._content):
            raise FrameError(
                'bad_message', f'a message of {len(self._content)} bytes that ends before its time'
            )
        part = self._content[self._place : end]
        self._place = end
        return part

    def header(self, make_header: MakeHeader) -> Any:
        """std_msgs/Header."""
        return make_header(self.number('i'), self.number('I'), self.text())


def read_image(content: bytes, make_header: MakeHeader) -> SerialisedImage:
    """Read a sensor_msgs/Image.

    Args:
        content: as serialised by the middleware.
        make_header: makes a header of the stamp's seconds and nanoseconds, and the frame's id.

    Raises:
        FrameError: with the cause 'bad_message': these bytes are none.
    """
    reader = _Reader(content)
    return SerialisedImage(
        header=reader.header(make_header),
        height=reader.number('I'),
        width=reader.number('I'),
        encoding=reader.text(),
        is_bigendian=reader.number('B'),
        step=reader.number('I'),
        data=reader.octets(),
    )


def read_picture(content: bytes, make_header: MakeHeader) -> SerialisedPicture:
    """Read a sensor_msgs/CompressedImage; arguments as of `read_image`.

    Raises:
        FrameError: with the cause 'bad_message': these bytes are none.
    """
    reader = _Reader(content)
    return SerialisedPicture(reader.header(make_header), reader.text(), bytes(reader.octets()))
