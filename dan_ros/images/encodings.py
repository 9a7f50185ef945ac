# SPDX-License-Identifier: Apache-2.0
"""Convert sensor_msgs/Image, or an object with the same fields, to `Frame`, without ROS.

8-bit color and gray images become views of the message's data; nothing is copied. OpenCV converts
other encodings to bgr8 or mono8, and cv_bridge, where it is installed, those that are not listed
here.
"""

import re
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from dan_ros.errors import FrameError, count_of
from dan_ros.images import bridge
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
    """Memory layout of an encoding."""

    channels: int  # values per pixel
    bytes_per_value: int  # 1 or 2; only the upper 8 of 16 bits are kept, as in cv_bridge
    result: str  # encoding of the frame
    code: int | None = None  # OpenCV's conversion to `result`, or None
    # Each pair of pixels in a row shares its color, so the width must be even.
    is_paired: bool = False
    # Rows of data per row of the image; above 1, color lies below the gray values.
    planes: float = 1

    @property
    def bytes_per_pixel(self) -> int:
        return self.bytes_per_value * self.channels

    def rows(self, height: int) -> int:
        """Rows of data in an image of `height` pixels."""
        return int(height * self.planes)

    def stride(self, message: ImageMessage) -> int:
        """Bytes from one row of data to the next.

        That is the step, but some drivers of planar encodings set the step to the bytes of one row
        in all planes.
        """
        is_sum = self.planes > 1 and message.step == message.width * self.planes
        if is_sum and len(message.data) == message.step * message.height:
            return message.width
        return message.step


def _layouts() -> dict[str, _Layout]:
    table = {}
    for name, channels in {'bgr': 3, 'rgb': 3, 'bgra': 4, 'rgba': 4, 'mono': 1}.items():
        for size in (1, 2):
            table[f'{name}{8 * size}'] = _Layout(channels, size, f'{name}8')
    table |= {'8UC1': table['mono8'], '16UC1': table['mono16']}
    table |= {'8UC3': table['bgr8'], '8UC4': table['bgra8']}
    table |= {'16UC3': table['bgr16'], '16UC4': table['bgra16']}
    bayer = {  # OpenCV names a Bayer pattern by its second row, ROS by its first
        'rggb': cv2.COLOR_BayerBG2BGR,
        'bggr': cv2.COLOR_BayerRG2BGR,
        'gbrg': cv2.COLOR_BayerGR2BGR,
        'grbg': cv2.COLOR_BayerGB2BGR,
    }
    for name, code in bayer.items():
        for size in (1, 2):
            table[f'bayer_{name}{8 * size}'] = _Layout(1, size, 'bgr8', code)
    uyvy = _Layout(2, 1, 'bgr8', cv2.COLOR_YUV2BGR_UYVY, is_paired=True)
    yuyv = _Layout(2, 1, 'bgr8', cv2.COLOR_YUV2BGR_YUY2, is_paired=True)
    table |= {'uyvy': uyvy, 'yuv422': uyvy, 'yuyv': yuyv, 'yuv422_yuy2': yuyv}
    for name, code in {'nv12': cv2.COLOR_YUV2BGR_NV12, 'nv21': cv2.COLOR_YUV2BGR_NV21}.items():
        table[name] = _Layout(1, 1, 'bgr8', code, is_paired=True, planes=1.5)
    table['nv24'] = _Layout(1, 1, 'bgr8', planes=3)
    return table


def _full_range() -> np.ndarray:
    """Return the table that stretches Y, Cr and Cb of video to [0, 255]: uint8 [1, 256, 3].

    In video, Y has the range [16, 235] and Cr and Cb [16, 240]: ITU-R BT.601, section 2.5.3.
    """
    value = np.arange(256)
    gray = (value - 16) * 255 / 219
    color = (value - 128) * 255 / 224 + 128
    return np.dstack([gray, color, color]).round().clip(0, 255).astype(np.uint8)


_LAYOUTS = _layouts()
_FULL_RANGE = _full_range()
ENCODINGS = tuple(_LAYOUTS)
NUMBERS = re.compile('(8|16|32|64)[USF]C[0-9]*')  # types of sensor_msgs without a color
_TO_BGR = {
    'rgb8': cv2.COLOR_RGB2BGR,
    'bgra8': cv2.COLOR_BGRA2BGR,
    'rgba8': cv2.COLOR_RGBA2BGR,
    'mono8': cv2.COLOR_GRAY2BGR,
}


def check_image(message: ImageMessage) -> None:
    """Check that the fields of an image are consistent; takes microseconds, reads no pixels.

    Raises:
        FrameError: with the cause 'bad_encoding', 'bad_size', 'bad_step' or 'bad_data'.
    """
    layout = _LAYOUTS.get(message.encoding) or _layout_of_bridge(message.encoding)
    height, width = message.height, message.width
    if height < 1 or width < 1:
        raise FrameError('bad_size', f'an image of {width} x {height} pixels')
    if layout.is_paired and width % 2:
        raise FrameError('bad_size', f'{message.encoding} needs an even width, not {width}')
    if layout.rows(height) != height * layout.planes:
        raise FrameError('bad_size', f'{message.encoding} needs an even height, not {height}')
    if message.step < width * layout.bytes_per_pixel:
        raise FrameError(
            'bad_step',
            f'step {message.step} is below {width * layout.bytes_per_pixel}, the bytes of a row '
            f'({message.encoding}, width {width})',
        )
    expected = layout.stride(message) * layout.rows(height)
    if len(message.data) != expected:
        raise FrameError(
            'bad_data',
            f'{count_of(len(message.data), "byte")} of data, but step x height is {expected} '
            f'({width} x {height} {message.encoding}, step {message.step})',
        )


def _layout_of_bridge(encoding: str) -> _Layout:
    """Return the layout of an encoding that only cv_bridge supports.

    Raises:
        FrameError: with the cause 'bad_encoding': cv_bridge does not support it or is not
            installed.
    """
    if pixel_bytes := bridge.bytes_per_pixel(encoding):
        return _Layout(pixel_bytes, 1, bridge.RESULT)
    name = repr(encoding[:40])
    if NUMBERS.fullmatch(encoding):
        raise FrameError('bad_encoding', f'the encoding {name} is for numbers, not for pictures')
    hint = '' if bridge.load_bridge() else '; cv_bridge, which may support more, is not installed'
    raise FrameError(
        'bad_encoding', f'unknown encoding {name}; known are {", ".join(ENCODINGS)}{hint}'
    )


def image_to_frame(message: ImageMessage) -> Frame:
    """Check an image and convert it; see `checked_image_to_frame`.

    Raises:
        FrameError: see `check_image`; or OpenCV cannot convert an image of this size.
    """
    check_image(message)
    return checked_image_to_frame(message)


def checked_image_to_frame(message: ImageMessage) -> Frame:
    """Convert an image that passed `check_image`; 8-bit color and gray become views of its data.

    Raises:
        FrameError: OpenCV cannot convert an image of this size (cause 'bad_size').
        MemoryError: there is too little memory for the pixels.
    """
    layout = _LAYOUTS.get(message.encoding)
    try:
        if layout is None:
            return Frame(bridge.message_to_bgr(message), bridge.RESULT)
        return Frame(_convert(message, layout), layout.result)
    except cv2.error as error:
        raise_if_out_of_memory(error)
        raise FrameError(
            'bad_size',
            f'{message.width} x {message.height} {message.encoding} cannot be converted: '
            f'{error.err}',
        ) from None


def _convert(message: ImageMessage, layout: _Layout) -> np.ndarray:
    data = np.frombuffer(message.data, np.uint8)
    data = data.reshape(layout.rows(message.height), layout.stride(message))
    if message.encoding == 'nv24':
        return _nv24_to_bgr(data, message.height, message.width)
    data = data[:, : message.width * layout.bytes_per_pixel]
    if layout.bytes_per_value == 2:
        upper = 0 if message.is_bigendian else 1
        data = np.ascontiguousarray(data[:, upper::2])  # uint8 [rows, 2 N] to [rows, N]
    image = _split_pixels(data, layout.channels)
    return image if layout.code is None else cv2.cvtColor(image, layout.code)


def _nv24_to_bgr(data: np.ndarray, height: int, width: int) -> np.ndarray:
    """Convert Y, uint8 [H, stride], above interleaved U and V, uint8 [H, 2 * stride], to BGR.

    OpenCV has no such conversion.
    """
    color = data[height:].reshape(height, -1)[:, : 2 * width].reshape(height, width, 2)
    ycrcb = cv2.merge([data[:height, :width], color[..., 1], color[..., 0]])
    return cv2.cvtColor(cv2.LUT(ycrcb, _FULL_RANGE), cv2.COLOR_YCrCb2BGR)


def to_bgr(image: np.ndarray, encoding: str) -> np.ndarray:
    """Convert an image in one of `types.FRAME_ENCODINGS` to uint8 [H, W, 3] BGR; keep bgr8."""
    return cv2.cvtColor(image, _TO_BGR[encoding]) if encoding in _TO_BGR else image


def _split_pixels(data: np.ndarray, channels: int) -> np.ndarray:
    """View rows, uint8 [H, W * C], as pixels, uint8 [H, W, C], or [H, W] for one channel."""
    if channels == 1:
        return data
    shape = (data.shape[0], data.shape[1] // channels, channels)
    strides = (data.strides[0], channels, 1)  # `reshape` would copy rows that have padding
    return np.lib.stride_tricks.as_strided(data, shape, strides, writeable=False)
