"""From an image message to a `Frame`, without ROS: anything with the fields of sensor_msgs/Image.

8-bit colour and grey come as views into the message, nothing is copied. The other common encodings
are converted to bgr8 or mono8 by OpenCV.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from dan_ros.errors import FrameError
from dan_ros.images.opencv import cv2, raise_if_out_of_memory
from dan_ros.types import Frame


class ImageMessage(Protocol):
    """The fields of sensor_msgs/Image that are read here."""

    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: 'np.ndarray | bytes'


@dataclass(frozen=True)
class _Layout:
    """How one encoding lies in memory.

    Attributes:
        shape: values per pixel, or () for one.
        bytes_per_value: 1 or 2.
        result: encoding of the frame it becomes.
        convert: makes [H, W(, C)] of that encoding; None where it is that already.
        rows: rows of data per row of pixels, as (numerator, denominator).
    """

    shape: tuple[int, ...]
    bytes_per_value: int
    result: str
    convert: Callable[[np.ndarray], np.ndarray] | None = None
    rows: tuple[int, int] = (1, 1)

    @property
    def bytes_per_pixel(self) -> int:
        return self.bytes_per_value * (self.shape[0] if self.shape else 1)


def _by_opencv(code: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda values: cv2.cvtColor(values, code)


def _upper_byte(values: np.ndarray) -> np.ndarray:
    """uint16 to uint8, of values that fill their 16 bits, as cv_bridge takes them as well."""
    return (values >> 8).astype(np.uint8)


def _by_opencv_of_upper_byte(code: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda values: cv2.cvtColor(_upper_byte(values), code)


def _layouts() -> dict[str, _Layout]:
    channels = {'bgr': 3, 'rgb': 3, 'bgra': 4, 'rgba': 4}
    table = {f'{name}8': _Layout((count,), 1, f'{name}8') for name, count in channels.items()}
    table |= {
        f'{name}16': _Layout((count,), 2, f'{name}8', _upper_byte)
        for name, count in channels.items()
    }
    table |= {name: _Layout((), 1, 'mono8') for name in ('mono8', '8UC1')}
    table |= {name: _Layout((), 2, 'mono8', _upper_byte) for name in ('mono16', '16UC1')}
    table |= {'8UC3': table['bgr8'], '8UC4': table['bgra8']}
    # OpenCV names a Bayer pattern by its second row, ROS by its first.
    bayer = {
        'rggb': cv2.COLOR_BayerBG2BGR,
        'bggr': cv2.COLOR_BayerRG2BGR,
        'gbrg': cv2.COLOR_BayerGR2BGR,
        'grbg': cv2.COLOR_BayerGB2BGR,
    }
    for name, code in bayer.items():
        table[f'bayer_{name}8'] = _Layout((), 1, 'bgr8', _by_opencv(code))
        table[f'bayer_{name}16'] = _Layout((), 2, 'bgr8', _by_opencv_of_upper_byte(code))
    yuv = {'uyvy': cv2.COLOR_YUV2BGR_UYVY, 'yuyv': cv2.COLOR_YUV2BGR_YUY2}
    for names, code in ((('uyvy', 'yuv422'), yuv['uyvy']), (('yuyv', 'yuv422_yuy2'), yuv['yuyv'])):
        table |= {name: _Layout((2,), 1, 'bgr8', _by_opencv(code)) for name in names}
    table['nv21'] = _Layout((), 1, 'bgr8', _by_opencv(cv2.COLOR_YUV2BGR_NV21), rows=(3, 2))
    return table


_TO_BGR = {
    'rgb8': cv2.COLOR_RGB2BGR,
    'bgra8': cv2.COLOR_BGRA2BGR,
    'rgba8': cv2.COLOR_RGBA2BGR,
    'mono8': cv2.COLOR_GRAY2BGR,
}
_LAYOUTS = _layouts()
_EVEN_WIDTH = ('uyvy', 'yuyv', 'yuv422', 'yuv422_yuy2', 'nv21')
ENCODINGS = tuple(_LAYOUTS)


def check_image(message: ImageMessage) -> None:
    """Check that an image fits its own description; reads no pixel, costs microseconds.

    Raises:
        FrameError: with the cause 'bad_encoding', 'bad_size', 'bad_step' or 'bad_data'.
    """
    layout = _LAYOUTS.get(message.encoding)
    if layout is None:
        raise FrameError(
            'bad_encoding',
            f'unknown encoding {message.encoding[:40]!r}; known are {", ".join(ENCODINGS)}',
        )
    height, width = message.height, message.width
    if height < 1 or width < 1:
        raise FrameError('bad_size', f'the image is {width} x {height} pixels')
    if message.encoding in _EVEN_WIDTH and width % 2:
        raise FrameError('bad_size', f'{message.encoding} needs an even width, not {width}')
    if layout.rows != (1, 1) and height % 2:
        raise FrameError('bad_size', f'{message.encoding} needs an even height, not {height}')
    if message.step < width * layout.bytes_per_pixel:
        raise FrameError(
            'bad_step',
            f'step {message.step} is below the {width * layout.bytes_per_pixel} bytes of a row '
            f'({width} pixels of {message.encoding})',
        )
    expected = message.step * _data_rows(layout, height)
    if len(message.data) != expected:
        raise FrameError(
            'bad_data',
            f'{len(message.data)} bytes of data, but step x height are {expected} '
            f'({width} x {height} {message.encoding}, step {message.step})',
        )


def image_to_frame(message: ImageMessage) -> Frame:
    """Make a `Frame` of a checked image; for 8-bit colour and grey a view into its data.

    Raises:
        FrameError: it does not fit its own description, see `check_image`.
    """
    check_image(message)
    layout = _LAYOUTS[message.encoding]
    rows = _data_rows(layout, message.height)
    data = np.frombuffer(message.data, np.uint8).reshape(rows, message.step)
    data = data[:, : message.width * layout.bytes_per_pixel]
    values = _as_values(data, layout, bool(message.is_bigendian))
    image = values.reshape(rows, message.width, *layout.shape) if layout.shape else values
    if layout.convert is not None:
        try:
            image = layout.convert(image)
        except cv2.error as error:
            raise_if_out_of_memory(error)
            raise FrameError(
                'bad_size',
                f'{message.width} x {message.height} {message.encoding} can not be converted: '
                f'{error.err}',
            ) from None
    return Frame(image, layout.result)


def to_bgr(image: np.ndarray, encoding: str) -> np.ndarray:
    """uint8 [H, W, 3] in BGR of an image in one of `FRAME_ENCODINGS`; itself where it is BGR."""
    return cv2.cvtColor(image, _TO_BGR[encoding]) if encoding in _TO_BGR else image


def _data_rows(layout: _Layout, height: int) -> int:
    return height * layout.rows[0] // layout.rows[1]


def _as_values(data: np.ndarray, layout: _Layout, big_endian: bool) -> np.ndarray:
    """Rows of bytes as rows of values, without padding; a view where the memory allows."""
    if layout.bytes_per_value == 1:
        if layout.shape and not data.flags.c_contiguous:
            # Padded rows can be split into pixels without a copy only through strides.
            shape = (data.shape[0], data.shape[1] // layout.shape[0], layout.shape[0])
            strides = (data.strides[0], layout.shape[0], 1)
            return np.lib.stride_tricks.as_strided(data, shape, strides, writeable=False)
        return data
    swapped = big_endian != (sys.byteorder == 'big')
    values = np.ascontiguousarray(data).view(np.uint16)
    return values.byteswap() if swapped else values
