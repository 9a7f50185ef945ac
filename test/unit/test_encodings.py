# SPDX-License-Identifier: Apache-2.0
"""From image messages to frames, sound ones and others."""

from dataclasses import dataclass, field, replace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dan_ros.errors import FrameError
from dan_ros.images.encodings import ENCODINGS, check_image, image_to_frame

HEIGHT, WIDTH = 6, 8


@dataclass
class Message:
    """The fields of sensor_msgs/Image."""

    height: int = HEIGHT
    width: int = WIDTH
    encoding: str = 'bgr8'
    is_bigendian: int = 0
    step: int = 3 * WIDTH
    data: bytes = field(default=bytes(3 * WIDTH * HEIGHT))


def message_of(values: np.ndarray, encoding: str, big_endian: bool = False) -> Message:
    order = '>' if big_endian else '<'
    raw = values.astype(values.dtype.newbyteorder(order)).tobytes()
    step = len(raw) // values.shape[0]
    return Message(values.shape[0], values.shape[1], encoding, int(big_endian), step, raw)


def to_bgr(message) -> np.ndarray:
    frame = image_to_frame(message)
    code = {'rgb8': cv2.COLOR_RGB2BGR, 'bgra8': cv2.COLOR_BGRA2BGR, 'rgba8': cv2.COLOR_RGBA2BGR}
    if frame.encoding == 'mono8':
        return cv2.cvtColor(frame.image, cv2.COLOR_GRAY2BGR)
    return (
        cv2.cvtColor(frame.image, code[frame.encoding]) if frame.encoding in code else frame.image
    )


def test_8_bit_colour_is_a_view():
    data = np.arange(3 * WIDTH * HEIGHT, dtype=np.uint8)
    frame = image_to_frame(Message(data=data))
    assert np.shares_memory(frame.image, data)
    np.testing.assert_array_equal(frame.image.ravel(), data)


@pytest.mark.parametrize(('encoding', 'channels'), [('bgr8', 3), ('rgba8', 4), ('mono8', 1)])
def test_padded_rows_are_a_view_without_the_padding(encoding, channels):
    step = WIDTH * channels + 5
    rows = np.random.RandomState(0).randint(0, 256, (HEIGHT, step), np.uint8)
    data = rows.ravel()
    frame = image_to_frame(Message(encoding=encoding, step=step, data=data))
    assert np.shares_memory(frame.image, data)
    expected = rows[:, : WIDTH * channels]
    np.testing.assert_array_equal(frame.image.reshape(HEIGHT, -1), expected)


@pytest.mark.parametrize('big_endian', [False, True])
@pytest.mark.parametrize('encoding', ['mono16', 'bgr16'])
def test_16_bit_in_both_byte_orders(encoding, big_endian):
    shape = (HEIGHT, WIDTH) if encoding == 'mono16' else (HEIGHT, WIDTH, 3)
    values = np.full(shape, 0x7B01, np.uint16)
    assert (to_bgr(message_of(values, encoding, big_endian)) == 0x7B).all()


@pytest.mark.parametrize('pattern', ['rggb', 'bggr', 'gbrg', 'grbg'])
@pytest.mark.parametrize('bits', [8, 16])
def test_bayer_pattern_is_read_as_ros_names_it(pattern, bits):
    """A scene that is purely red lights only the cells called r."""
    tile = np.array([255 if cell == 'r' else 0 for cell in pattern]).reshape(2, 2)
    mosaic = np.tile(tile, (8, 8)).astype(np.uint8)
    if bits == 16:
        mosaic = mosaic.astype(np.uint16) << 8
    blue, green, red = to_bgr(message_of(mosaic, f'bayer_{pattern}{bits}'))[4:-4, 4:-4].mean((0, 1))
    assert red > 200
    assert blue < 60
    assert green < 60


@pytest.mark.parametrize('encoding', ['uyvy', 'yuv422', 'yuyv', 'yuv422_yuy2', 'nv21'])
def test_yuv_keeps_grey_grey(encoding):
    luma, chroma = 126, 128
    if encoding == 'nv21':
        rows = np.full((HEIGHT * 3 // 2, WIDTH), chroma, np.uint8)
        rows[:HEIGHT] = luma
        message = Message(encoding=encoding, step=WIDTH, data=rows.tobytes())
    else:
        first = chroma if encoding in ('uyvy', 'yuv422') else luma
        pair = (first, luma + chroma - first)
        values = np.broadcast_to(np.uint8(pair), (HEIGHT, WIDTH, 2))
        message = message_of(values, encoding)
    np.testing.assert_allclose(to_bgr(message), 128, atol=2)


BAD = {
    'bad_encoding': [{'encoding': '32FC1'}, {'encoding': ''}, {'encoding': 'x' * 1000}],
    'bad_size': [
        {'width': 0},
        {'height': 0},
        {'encoding': 'uyvy', 'width': 7, 'step': 24},
        {'encoding': 'nv21', 'height': 5},
    ],
    'bad_step': [{'step': 0}, {'step': 3 * WIDTH - 1}, {'width': 2**32 - 1}],
    'bad_data': [
        {'data': b''},
        {'data': bytes(3 * WIDTH * HEIGHT - 1)},
        {'data': bytes(3 * WIDTH * HEIGHT + 1)},
        {'height': 2**32 - 1},
        {'step': 2**32 - 1},
    ],
}


@pytest.mark.parametrize(
    ('cause', 'change'), [(cause, change) for cause, changes in BAD.items() for change in changes]
)
def test_what_does_not_fit_is_refused_by_cause(cause, change):
    message = replace(Message(), **change)
    with pytest.raises(FrameError) as caught:
        check_image(message)
    assert caught.value.cause == cause
    assert len(str(caught.value)) < 500


@given(st.sampled_from(ENCODINGS), st.integers(1, 6), st.integers(1, 6), st.integers(0, 9))
def test_every_encoding_at_every_size_gives_a_frame_or_a_frame_error(encoding, w, h, padding):
    per_pixel = {'16': 2, 'yu': 2, 'uy': 2}
    size = next((v for k, v in per_pixel.items() if k in encoding), 1)
    size *= next(
        (
            n
            for k, n in (('gba', 4), ('bgra', 4), ('C4', 4), ('gb', 3), ('bgr', 3))
            if k in encoding and 'bayer' not in encoding
        ),
        1,
    )
    step = w * size + padding
    rows = h * 3 // 2 if encoding == 'nv21' else h
    try:
        frame = image_to_frame(Message(h, w, encoding, 0, step, bytes(step * rows)))
    except FrameError as error:
        assert error.cause in {'bad_size', 'bad_step', 'bad_data'}  # noqa: PT017
        return
    assert frame.size == (w, h)
    assert frame.image.dtype == np.uint8
