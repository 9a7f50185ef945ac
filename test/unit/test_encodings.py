# SPDX-License-Identifier: Apache-2.0
"""Converting image messages to frames, and refusing invalid ones."""

import itertools
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dan_ros.errors import FrameError
from dan_ros.images import bridge, encodings
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


def test_8_bit_color_is_a_view():
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
def test_yuv_keeps_gray_gray(encoding):
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


def semi_planar(image_bgr: np.ndarray, encoding: str, padding: int = 0) -> Message:
    """Encode a picture as nv12, nv21 or nv24, as a camera does."""
    height, width = image_bgr.shape[:2]
    gray, blue, red = planes(image_bgr)
    if encoding != 'nv24':
        blue, red = blue[::2, ::2], red[::2, ::2]
    pair = (red, blue) if encoding == 'nv21' else (blue, red)
    color = np.dstack(pair).reshape(-1, width)
    rows = np.pad(np.vstack([gray, color]), ((0, 0), (0, padding)))
    if encoding == 'nv24':  # a row of color is as long as two of gray, with padding at its end
        color = np.pad(np.dstack(pair).reshape(height, -1), ((0, 0), (0, 2 * padding)))
        rows = np.vstack([rows[:height], color.reshape(-1, width + padding)])
    return Message(height, width, encoding, 0, width + padding, rows.tobytes())


def planes(image_bgr: np.ndarray) -> list[np.ndarray]:
    """Y, Cb and Cr of video, [H, W] each: ITU-R BT.601, section 2.5.1."""
    b, g, r = np.moveaxis(image_bgr.astype(float) / 255, 2, 0)
    y = 0.299 * r + 0.587 * g + 0.114 * b
    values = (16 + 219 * y, 128 + 224 * (b - y) / 1.772, 128 + 224 * (r - y) / 1.402)
    return [value.round().astype(np.uint8) for value in values]


COLORS = np.kron(
    np.uint8([[[255, 0, 0], [0, 255, 0], [0, 0, 255]], [[20, 90, 200], [255] * 3, [0] * 3]]),
    np.ones((4, 4, 1), np.uint8),
)  # uint8 [8, 12, 3] BGR


@pytest.mark.parametrize('padding', [0, 6])
@pytest.mark.parametrize('encoding', ['nv12', 'nv21', 'nv24'])
def test_semi_planar_images_keep_their_colors(encoding, padding):
    frame = image_to_frame(semi_planar(COLORS, encoding, padding))
    assert frame.encoding == 'bgr8'
    np.testing.assert_allclose(frame.image.astype(int), COLORS, atol=4)


@pytest.mark.parametrize(('encoding', 'planes'), [('nv12', 1.5), ('nv21', 1.5), ('nv24', 3)])
def test_a_step_over_all_planes_is_understood(encoding, planes):
    message = semi_planar(COLORS, encoding)
    message.step = int(message.step * planes)
    np.testing.assert_allclose(image_to_frame(message).image.astype(int), COLORS, atol=4)


def test_nv24_has_any_size():
    image = image_to_frame(semi_planar(COLORS[:7, :11], 'nv24')).image
    np.testing.assert_allclose(image.astype(int), COLORS[:7, :11], atol=4)


def test_every_encoding_of_sensor_msgs_is_known_or_has_no_color():
    pictures = ['yuv422', 'yuv422_yuy2', 'uyvy', 'yuyv', 'nv12', 'nv21', 'nv24', '8UC1', '8UC3']
    pictures += [f'{name}{bits}' for name in ('mono', 'bgr', 'rgba') for bits in (8, 16)]
    assert set(pictures) <= set(ENCODINGS)
    for bits, kind in itertools.product((8, 16, 32, 64), 'USF'):
        for channels in ('', 1, 2, 3, 4):
            encoding = f'{bits}{kind}C{channels}'
            if encoding not in ENCODINGS:
                with pytest.raises(FrameError, match='for numbers, not for pictures'):
                    check_image(Message(encoding=encoding))


class Bridge:
    """Replaces cv_bridge by that of a later distribution, with an additional encoding."""

    def encoding_to_dtype_with_channels(self, encoding: str) -> tuple[str, int]:
        if encoding not in ('gbr8', '64FC3'):
            raise TypeError(encoding)
        return ('uint8', 3) if encoding == 'gbr8' else ('float64', 3)

    def imgmsg_to_cv2(self, message: Message, desired_encoding: str) -> np.ndarray:
        if message.encoding != 'gbr8':
            raise TypeError(f'{message.encoding} is not a color format')
        rows = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)
        pixels = rows[:, : 3 * message.width].reshape(message.height, message.width, 3)
        return pixels[..., [1, 0, 2]]


@pytest.fixture
def later_bridge(monkeypatch):
    bridge.bytes_per_pixel.cache_clear()
    monkeypatch.setattr(bridge, 'load_bridge', Bridge)
    yield
    bridge.bytes_per_pixel.cache_clear()


def test_cv_bridge_converts_what_is_unknown_here(later_bridge):
    message = Message(8, 12, 'gbr8', 0, 40, bytes(8 * 40))
    rows = np.zeros((8, 40), np.uint8)
    rows[:, :36] = COLORS[..., [1, 0, 2]].reshape(8, 36)
    message.data = rows.tobytes()
    frame = image_to_frame(message)
    assert (frame.encoding, frame.image.flags.c_contiguous) == ('bgr8', True)
    np.testing.assert_array_equal(frame.image, COLORS)
    for change, cause in (
        ({'step': 35}, 'bad_step'),
        ({'data': message.data[1:]}, 'bad_data'),
        ({'encoding': '64FC3'}, 'bad_encoding'),
        ({'encoding': 'other'}, 'bad_encoding'),
    ):
        with pytest.raises(FrameError) as caught:
            check_image(replace(message, **change))
        assert caught.value.cause == cause


@pytest.mark.parametrize('encoding', ['bgr16', 'rgba8', 'yuv422', 'bayer_grbg8'])
def test_the_real_cv_bridge_agrees_with_this_package(monkeypatch, encoding):
    pytest.importorskip('cv_bridge')
    size = {'bgr16': 6, 'rgba8': 4, 'yuv422': 2, 'bayer_grbg8': 1}[encoding]
    data = np.random.RandomState(0).randint(0, 256, 16 * 16 * size, np.uint8).tobytes()
    message = Message(16, 16, encoding, 0, 16 * size, data)
    ours = to_bgr(message)
    monkeypatch.delitem(encodings._LAYOUTS, encoding)
    np.testing.assert_allclose(image_to_frame(message).image.astype(int), ours, atol=1)


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
    rows = {'nv12': h * 3 // 2, 'nv21': h * 3 // 2, 'nv24': 3 * h}.get(encoding, h)
    try:
        frame = image_to_frame(Message(h, w, encoding, 0, step, bytes(step * rows)))
    except FrameError as error:
        assert error.cause in {'bad_size', 'bad_step', 'bad_data'}  # noqa: PT017
        return
    assert frame.size == (w, h)
    assert frame.image.dtype == np.uint8
