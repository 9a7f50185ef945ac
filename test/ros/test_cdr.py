# SPDX-License-Identifier: Apache-2.0
"""Messages read directly from their bytes have the fields that rclpy reads."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from dan_ros.errors import FrameError
from dan_ros.images.cdr import read_image, read_picture
from dan_ros.images.encodings import image_to_frame

texts = st.text(st.characters(exclude_characters='\0', exclude_categories=['Cs']), max_size=20)
numbers = st.integers(0, 2**32 - 1)
seconds = st.integers(-(2**31), 2**31 - 1)


def make_header(sec, nanosec, frame_id):
    return sec, nanosec, frame_id


@st.composite
def stamped(draw, kind):
    message = kind()
    message.header.stamp.sec = draw(seconds)
    message.header.stamp.nanosec = draw(numbers)
    message.header.frame_id = draw(texts)
    message.data.frombytes(draw(st.binary(max_size=100)))
    return message


def header_of(message):
    stamp = message.header.stamp
    return stamp.sec, stamp.nanosec, message.header.frame_id


@given(stamped(Image), numbers, numbers, texts, st.integers(0, 255), numbers)
def test_any_image(message, height, width, encoding, is_bigendian, step):
    message.height, message.width, message.step = height, width, step
    message.encoding, message.is_bigendian = encoding, is_bigendian
    read = read_image(serialize_message(message), make_header)
    assert read.header == header_of(message)
    assert (read.height, read.width, read.step) == (height, width, step)
    assert (read.encoding, read.is_bigendian) == (encoding, is_bigendian)
    assert read.data == message.data.tobytes()


@given(stamped(CompressedImage), texts)
def test_any_compressed_image(message, kind):
    message.format = kind
    read = read_picture(serialize_message(message), make_header)
    assert read.header == header_of(message)
    assert (read.format, read.data) == (kind, message.data.tobytes())


@pytest.fixture
def content(smile) -> bytes:
    from dan_ros.ros.publishers import bgr_to_image

    return serialize_message(bgr_to_image(smile, Image().header))


def test_pixels_are_not_copied(content, smile):
    frame = image_to_frame(read_image(content, make_header))
    np.testing.assert_array_equal(frame.image, smile)
    assert np.shares_memory(frame.image, np.frombuffer(content, np.uint8))


def test_a_truncated_message_is_refused(content):
    for end in [*range(80), len(content) // 2, len(content) - 1]:
        with pytest.raises(FrameError) as refused:
            read_image(content[:end], make_header)
        assert refused.value.cause == 'bad_message'


@given(st.binary(max_size=200))
def test_noise_is_read_or_refused(noise):
    for read in (read_image, read_picture):
        for start in (b'', b'\x00\x01\x00\x00', b'\x00\x00\x00\x00'):
            try:
                read(start + noise, make_header)
            except FrameError as error:
                assert error.cause == 'bad_message'  # noqa: PT017


@given(st.binary(min_size=5, max_size=5))
def test_an_invalid_frame_id_is_decoded_as_by_rclpy(name):
    content = bytearray(serialize_message(Image(header=Header(frame_id='camer'), data=[1, 2])))
    place = content.index(b'camer')
    content[place : place + 5] = name
    expected = deserialize_message(bytes(content), Image).header.frame_id
    assert read_image(bytes(content), make_header).header[2] == expected


def test_big_endian_bytes():
    fields = struct.pack('>iI', -5, 7), struct.pack('>I', 4), b'eye\0', struct.pack('>I', 0)
    read = read_picture(
        b'\x00\x00\x00\x00' + b''.join(fields) + struct.pack('>I', 2) + b'ab', make_header
    )
    assert (read.header, read.format, read.data) == ((-5, 7, 'eye'), '', b'ab')
