# SPDX-License-Identifier: Apache-2.0
"""Strategies for image messages that are almost valid: one field or a few bytes are wrong."""

import zlib
from dataclasses import dataclass, replace
from functools import cache

import cv2
import numpy as np
from hypothesis import strategies as st
from sensor_msgs.msg import CameraInfo
from skimage.data import astronaut
from std_msgs.msg import Header

BYTES_PER_PIXEL = {
    'bgr8': 3, 'rgb8': 3, 'bgra8': 4, 'rgba8': 4, 'mono8': 1, '8UC1': 1, '8UC3': 3, '8UC4': 4,
    'bgr16': 6, 'rgb16': 6, 'bgra16': 8, 'rgba16': 8, 'mono16': 2, '16UC1': 2,
    'bayer_rggb8': 1, 'bayer_bggr8': 1, 'bayer_gbrg8': 1, 'bayer_grbg8': 1,
    'bayer_rggb16': 2, 'bayer_bggr16': 2, 'bayer_gbrg16': 2, 'bayer_grbg16': 2,
    'uyvy': 2, 'yuyv': 2, 'yuv422': 2, 'yuv422_yuy2': 2,
    'nv12': 1, 'nv21': 1, 'nv24': 1, '16UC3': 6, '16UC4': 8,
}  # fmt: skip
MAX_UINT32 = 2**32 - 1
EDGES = (0, 1, 2, 3, 255, 256, 65_535, 65_536, 2**31 - 1, 2**31, MAX_UINT32)


@dataclass(frozen=True)
class OddImage:
    """The fields of sensor_msgs/Image."""

    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: bytes


def _pixels(seed: int, length: int) -> bytes:
    """Noise or part of a face; made from a seed, because hypothesis is slow with long bytes."""
    if seed % 3 == 0:
        face = astronaut()[63:176, 166:279].tobytes()
        return (face * (length // len(face) + 1))[:length]
    return np.random.default_rng(seed).bytes(length)


@st.composite
def valid_images(draw: st.DrawFn) -> OddImage:
    """Images with consistent fields; only the width of YUV may be odd, which is refused."""
    encoding = draw(st.sampled_from(sorted(BYTES_PER_PIXEL)))
    sizes = st.one_of(st.integers(1, 12), st.integers(1, 160))
    height, width = draw(sizes), draw(sizes)
    if draw(st.integers(0, 19)) == 0:  # one row or column
        height, width = draw(st.sampled_from([(1, 2000), (2000, 1), (2, 3000)]))
    step = width * BYTES_PER_PIXEL[encoding] + draw(st.sampled_from([0, 0, 0, 1, 7, 64]))
    rows = {'nv12': height * 3 // 2, 'nv21': height * 3 // 2, 'nv24': height * 3}.get(
        encoding, height
    )
    data = _pixels(draw(st.integers(0, 999)), step * rows)
    return OddImage(height, width, encoding, draw(st.integers(0, 1)), step, data)


@st.composite
def odd_images(draw: st.DrawFn) -> OddImage:
    """Valid images with up to two changed fields."""
    image = draw(valid_images())
    for _ in range(draw(st.sampled_from([0, 0, 1, 1, 1, 2]))):
        name = draw(st.sampled_from(['height', 'width', 'step', 'encoding', 'endian', 'data']))
        if name == 'encoding':
            others = st.one_of(st.sampled_from(sorted(BYTES_PER_PIXEL)), st.text(max_size=12))
            image = replace(image, encoding=draw(others))
        elif name == 'endian':
            image = replace(image, is_bigendian=draw(st.integers(0, 255)))
        elif name == 'data':
            image = replace(image, data=draw(_odd_lengths(image.data)))
        else:
            near = max(0, getattr(image, name) + draw(st.integers(-3, 3)))
            image = replace(image, **{name: draw(st.sampled_from([near] * 9 + list(EDGES)))})
    return image


def _odd_lengths(data: bytes) -> st.SearchStrategy[bytes]:
    return st.one_of(
        st.integers(0, len(data)).map(lambda length: data[:length]),
        st.integers(1, 9).map(lambda more: data + bytes(more)),
        st.sampled_from([b'', data * 2, data[:-1]]),
    )


@cache
def pictures() -> tuple[bytes, ...]:
    """JPEG and PNG files of many kinds, of a face with 96 x 112 pixels."""
    color = np.ascontiguousarray(astronaut()[63:175, 166:262, ::-1])
    gray = cv2.cvtColor(color, cv2.COLOR_BGR2GRAY)
    alpha = np.dstack([color, gray])
    kinds = (
        ('.jpg', color, ()),
        ('.jpg', color, (cv2.IMWRITE_JPEG_QUALITY, 20)),
        ('.jpg', color, (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)),
        ('.jpg', color, (cv2.IMWRITE_JPEG_RST_INTERVAL, 3)),
        ('.jpg', color, (cv2.IMWRITE_JPEG_OPTIMIZE, 1)),
        ('.jpg', gray, ()),
        ('.png', color, ()),
        ('.png', color, (cv2.IMWRITE_PNG_COMPRESSION, 0)),
        ('.png', gray, ()),
        ('.png', alpha, ()),
        ('.png', gray.astype(np.uint16) * 257, ()),
        ('.png', (gray > 128).astype(np.uint8) * 255, (cv2.IMWRITE_PNG_BILEVEL, 1)),
    )
    return tuple(
        cv2.imencode(suffix, image, list(options))[1].tobytes() for suffix, image, options in kinds
    )


@st.composite
def odd_pictures(draw: st.DrawFn) -> bytes:
    """Valid files with up to three changes; one in twenty is noise after a valid start."""
    if draw(st.integers(0, 19)) == 0:
        start = draw(st.sampled_from([b'', b'\xff\xd8', b'\xff\xd8\xff\xc0', pictures()[6][:16]]))
        return start + draw(st.binary(max_size=300))
    content = draw(st.sampled_from(pictures()))
    for _ in range(draw(st.sampled_from([0, 1, 1, 1, 2, 3]))):
        content = draw(_changed(content))
    if content.startswith(b'\x89PNG') and draw(st.booleans()):
        content = _with_right_checksums(content)
    return content


@st.composite
def _changed(draw: st.DrawFn, content: bytes) -> bytes:
    """Content with one change, half of the time near the start, where the headers are."""
    last = max(len(content) - 1, 0)
    start = draw(st.one_of(st.integers(0, min(700, last)), st.integers(0, last)))
    end = min(len(content), start + draw(st.sampled_from([1, 1, 2, 4, 40, 2000])))
    change = draw(st.sampled_from(['cut', 'set', 'edge', 'drop', 'double', 'splice', 'insert']))
    if change == 'cut':
        return content[:start]
    if change == 'drop':
        return content[:start] + content[end:]
    if change == 'double':
        return content[:end] + content[start:]
    if change == 'splice':
        other = draw(st.sampled_from(pictures()))
        return content[:start] + other[draw(st.integers(0, len(other))) :]
    if change == 'edge':
        value = draw(st.sampled_from(EDGES)).to_bytes(4, 'big')
        return content[:start] + value + content[start + 4 :]
    noise = draw(st.binary(min_size=1, max_size=8))
    return content[:start] + noise + content[start + len(noise) * (change == 'set') :]


def _with_right_checksums(content: bytes) -> bytes:
    """Give each chunk of a PNG the right checksum, as an attacker would."""
    fixed, place = bytearray(content), 8
    while place + 12 <= len(fixed):
        length = int.from_bytes(fixed[place : place + 4], 'big')
        end = place + 8 + length
        if end + 4 > len(fixed):
            break
        fixed[end : end + 4] = zlib.crc32(fixed[place + 4 : end]).to_bytes(4, 'big')
        place = end + 4
    return bytes(fixed)


@st.composite
def odd_headers(draw: st.DrawFn) -> Header:
    """Headers with any stamp, including negative ones and more than 10^9 nanoseconds."""
    header = Header(frame_id=draw(st.text(max_size=20)))
    header.stamp.sec = draw(st.one_of(st.integers(-(2**31), 2**31 - 1), st.integers(0, 3)))
    header.stamp.nanosec = draw(st.one_of(st.sampled_from(EDGES), st.integers(0, 999_999_999)))
    return header


odd_numbers = st.one_of(
    st.floats(0, 1000),
    st.floats(),
    st.sampled_from([0.0, 1.0, float('nan'), float('inf'), 1e308, -1e308, 5e-324]),
)


@st.composite
def odd_calibrations(draw: st.DrawFn) -> CameraInfo:
    """Calibrations of a camera with 320 x 240 pixels, with some changed numbers."""
    sizes = st.sampled_from([*EDGES, 160, 240, 320])
    matrix = [400.0, 0.0, 160.0, 0.0, 400.0, 120.0, 0.0, 0.0, 1.0]
    for _ in range(draw(st.integers(0, 3))):
        matrix[draw(st.integers(0, 8))] = draw(odd_numbers)
    info = CameraInfo(
        width=320,
        height=240,
        distortion_model=draw(st.sampled_from(['plumb_bob', 'equidistant', 'none', ''])),
        d=draw(st.lists(odd_numbers, max_size=15)),
        k=matrix,
        p=[*matrix[:3], 0.0, *matrix[3:6], 0.0, *matrix[6:], 0.0],
    )
    for _ in range(draw(st.integers(0, 2))):
        place = draw(st.sampled_from([info, info, info.roi]))
        names = ['width', 'height'] + (
            ['binning_x', 'binning_y'] if place is info else ['x_offset', 'y_offset']
        )
        setattr(place, draw(st.sampled_from(names)), draw(sizes))
    return info
