# SPDX-License-Identifier: Apache-2.0
"""Read image messages from their serialized bytes without copying pixels.

rclpy's own conversion copies an image of 1920x1080 three times, which blocks all threads for a
millisecond. ROS 2 middlewares serialize messages as CDR (OMG, "DDS Interoperability Wire Protocol"
2.5, section 10, https://www.omg.org/spec/DDSI-RTPS): two bytes for the byte order, two for options,
then the fields in order. Numbers are aligned to their size. A length precedes each string and
sequence. Fields: sensor_msgs in https://github.com/ros2/common_interfaces.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dan_ros.errors import FrameError, count_of

MakeHeader = Callable[[int, int, str], Any]  # called with seconds, nanoseconds, frame_id
BYTE_ORDERS = {b'\x00\x00': '>', b'\x00\x01': '<'}  # CDR_BE, CDR_LE
START = 4  # offset of the first field, bytes; alignment counts from here


@dataclass(frozen=True)
class SerializedImage:
    """A sensor_msgs/Image; `header` is what `make_header` returned, `data` a view."""

    header: Any
    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: memoryview


@dataclass(frozen=True)
class SerializedPicture:
    """A sensor_msgs/CompressedImage; `header` is what `make_header` returned."""

    header: Any
    format: str
    data: bytes


class _Reader:
    """Reads the fields one after another."""

    def __init__(self, content: bytes) -> None:
        self._content = memoryview(content)
        self._place = START
        order = BYTE_ORDERS.get(content[:2])
        if order is None:
            raise FrameError('bad_message', f'unknown serialization {content[:4].hex()!r}')
        self._order = order

    def number(self, code: str) -> int:
        """Read a number of 1 or 4 bytes; `code` as in `struct`."""
        size = struct.calcsize(code)
        self._place += (START - self._place) % size
        (value,) = struct.unpack_from(self._order + code, self._take(size))
        return int(value)

    def text(self) -> str:
        """Read a string up to its first null; invalid UTF-8 is replaced, as in rclpy."""
        return bytes(self._take(self.number('I'))).partition(b'\0')[0].decode(errors='replace')

    def octets(self) -> memoryview:
        """Return a view of a sequence of bytes."""
        return self._take(self.number('I'))

    def header(self, make_header: MakeHeader) -> Any:
        """Read a std_msgs/Header."""
        return make_header(self.number('i'), self.number('I'), self.text())

    def _take(self, size: int) -> memoryview:
        part = self._content[self._place : self._place + size]
        if len(part) < size:
            raise FrameError(
                'bad_message', f'a message truncated at {count_of(len(self._content), "byte")}'
            )
        self._place += size
        return part


def read_image(content: bytes, make_header: MakeHeader) -> SerializedImage:
    """Read a sensor_msgs/Image.

    Raises:
        FrameError: the message is malformed or truncated (cause 'bad_message').
    """
    reader = _Reader(content)
    return SerializedImage(
        header=reader.header(make_header),
        height=reader.number('I'),
        width=reader.number('I'),
        encoding=reader.text(),
        is_bigendian=reader.number('B'),
        step=reader.number('I'),
        data=reader.octets(),
    )


def read_picture(content: bytes, make_header: MakeHeader) -> SerializedPicture:
    """Read a sensor_msgs/CompressedImage; arguments and errors as for `read_image`."""
    reader = _Reader(content)
    return SerializedPicture(reader.header(make_header), reader.text(), bytes(reader.octets()))
