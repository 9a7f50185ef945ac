# SPDX-License-Identifier: Apache-2.0
"""Check and decode compressed pictures: JPEG and PNG, as ROS 2's image transport sends them.

A JPEG consists of blocks of 8 x 8 pixels. Each can be decoded as 4 x 4, 2 x 2 or one pixel. Half
the size of a camera's 1920 x 1080 pixels suffices to detect faces, and takes a third less time.

Pictures are checked before they are decoded, because OpenCV fills the missing part of a truncated
JPEG with gray, and allocates memory for any size that a header claims.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from dan_ros.errors import FrameError, count_of
from dan_ros.images.opencv import cv2, raise_if_out_of_memory
from dan_ros.types import Frame

COMPRESSED_SUFFIX = '/compressed'  # suffix of the topic, after the name of the camera
FLAGS = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION  # for decoding
REDUCED = {  # divisor of the size -> flag for decoding
    8: cv2.IMREAD_REDUCED_COLOR_8,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    1: cv2.IMREAD_COLOR,
}
JPEG_START, PNG_START = b'\xff\xd8', b'\x89PNG\r\n\x1a\n'
# JPEG markers: https://www.w3.org/Graphics/JPEG/itu-t81.pdf, table B.1
START_OF_IMAGE, END_OF_IMAGE, START_OF_SCAN = 0xD8, 0xD9, 0xDA
START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # has the size
# The next significant marker, found as in libjpeg: fill bytes, escaped bytes of a scan and
# restart markers are skipped.
MARKER = re.compile(rb'\xff[^\x00\x01\xd0-\xd7\xff]')
MAX_SEGMENTS = 10_000  # markers that are read in a JPEG; a photo has a few hundred at most
MAX_SCANS = 32  # scans of a JPEG; encoders write about ten, each takes as long as a full decode


@dataclass(frozen=True)
class _Structure:
    """Information from a JPEG or PNG that needs no decoding."""

    size: tuple[int, int] | None  # (width, height), pixels, or None if the header is missing
    is_whole: bool  # whether the end was found; bytes after it are ignored
    scans: int = 1  # number of scans of a JPEG


def is_whole(content: bytes) -> bool:
    """Return whether a JPEG or PNG is complete, and other content is not empty.

    Bytes after the end are ignored, such as the video of a motion photo or the padding of a fixed
    buffer.
    """
    if content.startswith((JPEG_START, PNG_START)):
        return _read_structure(content).is_whole
    return bool(content)


def check_compressed(content: bytes, max_pixels: int) -> tuple[int, int]:
    """Check that a picture is complete and not too large, without decoding it.

    `max_pixels` is the largest width x height.

    Returns:
        (width, height) from the header, pixels.

    Raises:
        FrameError: with the cause 'bad_format', 'bad_size', 'bad_data' or 'too_large'.
    """
    structure = _read_structure(content)
    if structure.size is None:
        raise FrameError('bad_data', 'a JPEG or PNG without its header')
    width, height = structure.size
    if width < 1 or height < 1:
        raise FrameError('bad_size', f'a compressed image of {width} x {height} pixels')
    if width * height > max_pixels:
        raise FrameError(
            'too_large',
            f'a compressed image of {width} x {height} pixels, more than limits.max_pixels '
            f'({max_pixels})',
        )
    if not structure.is_whole:
        raise FrameError(
            'bad_data', f'a compressed image truncated at {count_of(len(content), "byte")}'
        )
    if structure.scans > MAX_SCANS:
        raise FrameError(
            'bad_data', f'a JPEG with {structure.scans} scans; at most {MAX_SCANS} are decoded'
        )
    return width, height


def compressed_to_frame(content: bytes, max_pixels: int) -> Frame:
    """Check a picture and decode it.

    Raises:
        FrameError: see `check_compressed` and `decode_checked`.
        MemoryError: there is too little memory for the pixels.
    """
    return decode_checked(content, check_compressed(content, max_pixels))


def decode_checked(content: bytes, size: tuple[int, int]) -> Frame:
    """Decode a picture that passed `check_compressed`, which returned `size`, to bgr8.

    Its EXIF rotation is ignored.

    A JPEG that lost bytes in the middle is not detected: OpenCV only warns on standard error, and
    the missing part is gray or shifted.

    Raises:
        FrameError: the picture is damaged (cause 'bad_data').
        MemoryError: there is too little memory for the pixels.
    """
    return Frame(_decode(content, size, 1))


class JpegDecoder:
    """Decodes the images of one camera in the size that is needed.

    Faces are detected on a small copy, and large faces are also classified from it. For small
    faces, the image is decoded again in its full size. The next images are then decoded in full
    size at once, until a smaller copy is enough.
    """

    def __init__(self) -> None:
        self._last: _Jpeg | None = None

    def decode(self, content: bytes, size: tuple[int, int], max_side_px: int) -> Frame:
        """Decode a picture that passed `check_compressed`, as `decode_checked` does.

        `max_side_px` is the longer side of the copy on which faces are detected.

        Returns:
            A frame of the picture in its full size; its method `pixels` may return a smaller copy.

        Raises:
            FrameError, MemoryError: see `decode_checked`.
        """
        if not content.startswith(JPEG_START):
            return decode_checked(content, size)
        last_scale = self._last.needed_scale if self._last else 0.0
        self._last = jpeg = _Jpeg(content, size)
        jpeg.decode(max(max_side_px / max(size), last_scale))
        return _JpegFrame(jpeg)


class _Jpeg:
    """A JPEG that is decoded again if more pixels are needed.

    Attributes:
        size: (width, height), pixels.
        needed_scale: largest size in which it was needed, relative to its full size.
    """

    def __init__(self, content: bytes, size: tuple[int, int]) -> None:
        self.size = size
        self.needed_scale = 0.0
        self._content = content
        self._divisor = 0
        self._pixels = np.empty((0, 0, 3), np.uint8)

    def decode(self, min_scale: float) -> np.ndarray:
        """Return a copy of at least `min_scale` times the full size, or the full size."""
        min_scale = min(min_scale, 1.0)
        if self._divisor == 0 or self._divisor * min_scale > 1:
            self._divisor = next(n for n in REDUCED if n * min_scale <= 1)
            self._pixels = _decode(self._content, self.size, self._divisor)
        return self._pixels


class _JpegFrame(Frame):
    """A frame whose pixels are decoded when they are needed."""

    _jpeg: _Jpeg

    def __init__(self, jpeg: _Jpeg) -> None:
        object.__setattr__(self, '_jpeg', jpeg)

    @property
    def size(self) -> tuple[int, int]:
        return self._jpeg.size

    @property
    def image(self) -> np.ndarray:
        return self.pixels(1.0)

    def pixels(self, min_scale: float) -> np.ndarray:
        jpeg = self._jpeg
        jpeg.needed_scale = max(jpeg.needed_scale, min_scale)
        return jpeg.decode(min_scale)


def _decode(content: bytes, size: tuple[int, int], divisor: int) -> np.ndarray:
    """Decode a picture to uint8 [H, W, 3] BGR, with its size divided and rounded up."""
    flags = REDUCED[divisor] | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error as error:
        raise_if_out_of_memory(error)
        raise FrameError('bad_data', f'a damaged compressed image: {error.err}') from None
    if image is None:
        raise FrameError('bad_data', 'a damaged compressed image')
    if image.shape[1::-1] != (-(-size[0] // divisor), -(-size[1] // divisor)):
        raise FrameError('bad_data', 'a compressed image whose size differs from its header')
    return image


def _read_structure(content: bytes) -> _Structure:
    """Read the structure of the first picture in `content`.

    Raises:
        FrameError: it is neither JPEG nor PNG (cause 'bad_format').
    """
    if content.startswith(JPEG_START):
        return _read_jpeg(content)
    if content.startswith(PNG_START):
        return _read_png(content)
    size = count_of(len(content), 'byte')
    raise FrameError('bad_format', f'{size} that are neither JPEG nor PNG: {content[:8].hex()!r}')


def _read_jpeg(content: bytes) -> _Structure:
    """Walk through the markers of a JPEG up to its end."""
    size, has_junk, scans, place = None, False, 0, len(JPEG_START)
    for _ in range(MAX_SEGMENTS):
        found = MARKER.search(content, place)
        code = content[found.end() - 1] if found else START_OF_IMAGE
        if found is None or code in (START_OF_IMAGE, END_OF_IMAGE):  # end of this picture
            return _Structure(size, code == END_OF_IMAGE, scans)
        segment = content[found.end() : found.end() + 7]
        if scans == 0:  # decoders skip invalid bytes differently: a size after them may be wrong
            has_junk |= bool(content[place : found.start()].strip(b'\xff'))
        if code in START_OF_FRAME and size is None and not has_junk and len(segment) == 7:
            size = int.from_bytes(segment[5:], 'big'), int.from_bytes(segment[3:5], 'big')
        scans += code == START_OF_SCAN
        place = found.end() + int.from_bytes(segment[:2], 'big')
    return _Structure(size, False, scans)


def _read_png(content: bytes) -> _Structure:
    size = None
    if content[12:16] == b'IHDR' and len(content) >= 24:
        size = int.from_bytes(content[16:20], 'big'), int.from_bytes(content[20:24], 'big')
    return _Structure(size, is_whole=b'IEND' in png_chunks(content))


def png_chunks(content: bytes) -> Iterator[bytes]:
    """Yield the names of the complete chunks of a PNG, in file order.

    Source: https://www.w3.org/TR/png-3/#5Chunk-layout
    """
    place = len(PNG_START)
    while (end := place + 12 + int.from_bytes(content[place : place + 4], 'big')) <= len(content):
        yield content[place + 4 : place + 8]
        place = end
