# SPDX-License-Identifier: Apache-2.0
"""Check and decode compressed pictures: JPEG and PNG, as ROS 2's image transport sends them.

Pictures are checked before they are decoded, because OpenCV fills the missing part of a truncated
JPEG with gray, and allocates memory for any size that a header claims.
"""

import numpy as np

from dan_ros.errors import FrameError
from dan_ros.images.opencv import cv2, raise_if_out_of_memory
from dan_ros.types import Frame

JPEG_START, JPEG_END, JPEG_SCAN = b'\xff\xd8', b'\xff\xd9', b'\xff\xda'
PNG_START, PNG_END = b'\x89PNG\r\n\x1a\n', b'IEND\xaeB`\x82'
# JPEG markers: https://www.w3.org/Graphics/JPEG/itu-t81.pdf, table B.1
JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # start of frame: has the size
JPEG_STANDALONE = frozenset({0x01, *range(0xD0, 0xD8)})  # markers without a length
TAIL_BYTES = 4096  # the end marker must be in these last bytes; some cameras add padding
MAX_SCANS = 32  # scans of a JPEG; encoders write about ten, each takes as long as a full decode


def is_whole(content: bytes) -> bool:
    """Return whether a JPEG or PNG has its end marker, or any other content is not empty."""
    for start, end in ((JPEG_START, JPEG_END), (PNG_START, PNG_END)):
        if content.startswith(start):
            return end in content[-TAIL_BYTES:]
    return bool(content)


def check_compressed(content: bytes, max_pixels: int) -> tuple[int, int]:
    """Check that a picture is complete and not too large, without decoding it.

    Args:
        content: the JPEG or PNG file.
        max_pixels: largest width x height.

    Returns:
        (width, height) from the header, pixels.

    Raises:
        FrameError: with the cause 'bad_format', 'bad_size', 'bad_data' or 'too_large'.
    """
    width, height = _size_of(content)
    if width < 1 or height < 1:
        raise FrameError('bad_size', f'a compressed image of {width} x {height} pixels')
    if width * height > max_pixels:
        raise FrameError(
            'too_large',
            f'a compressed image of {width} x {height} pixels, more than limits.max_pixels '
            f'({max_pixels})',
        )
    if not is_whole(content):
        raise FrameError('bad_data', f'a compressed image truncated at {len(content)} bytes')
    if content.startswith(JPEG_START) and (scans := content.count(JPEG_SCAN)) > MAX_SCANS:
        raise FrameError('bad_data', f'a JPEG with {scans} scans; at most {MAX_SCANS} are decoded')
    return width, height


def compressed_to_frame(content: bytes, max_pixels: int) -> Frame:
    """Check a picture and decode it.

    Raises:
        FrameError: see `check_compressed` and `decode_checked`.
        MemoryError: there is too little memory for the pixels.
    """
    return decode_checked(content, check_compressed(content, max_pixels))


def decode_checked(content: bytes, size: tuple[int, int]) -> Frame:
    """Decode a picture that passed `check_compressed` to bgr8; its EXIF rotation is ignored.

    A JPEG that lost bytes in the middle is not detected: OpenCV only warns on standard error, and
    the missing part is gray or shifted.

    Args:
        content: the JPEG or PNG file.
        size: what `check_compressed` returned.

    Raises:
        FrameError: the picture is damaged (cause 'bad_data').
        MemoryError: there is too little memory for the pixels.
    """
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error as error:
        raise_if_out_of_memory(error)
        raise FrameError('bad_data', f'a damaged compressed image: {error.err}') from None
    if image is None:
        raise FrameError('bad_data', 'a damaged compressed image')
    if image.shape[1::-1] != size:
        raise FrameError('bad_data', 'a compressed image whose size differs from its header')
    return Frame(image)


def _size_of(content: bytes) -> tuple[int, int]:
    """Return (width, height) from the header.

    Raises:
        FrameError: with the cause 'bad_format' or 'bad_data'.
    """
    if content.startswith(JPEG_START):
        return _jpeg_size(content)
    if not content.startswith(PNG_START):
        raise FrameError(
            'bad_format', f'{len(content)} bytes that are not JPEG or PNG: {content[:8].hex()!r}'
        )
    if content[12:16] != b'IHDR' or len(content) < 24:
        raise FrameError('bad_data', 'a PNG without its header')
    return int.from_bytes(content[16:20], 'big'), int.from_bytes(content[20:24], 'big')


def _jpeg_size(content: bytes) -> tuple[int, int]:
    """Return (width, height) from the first start of frame.

    Raises:
        FrameError: no start of frame was found (cause 'bad_data').
    """
    place = 2
    while place + 4 <= len(content) and content[place] == 0xFF:
        marker = content[place + 1]
        if marker == 0xFF:  # padding
            place += 1
        elif marker in JPEG_STANDALONE:
            place += 2
        elif marker in JPEG_FRAMES and place + 9 <= len(content):
            height = int.from_bytes(content[place + 5 : place + 7], 'big')
            return int.from_bytes(content[place + 7 : place + 9], 'big'), height
        elif marker == 0x00:  # not a marker: decoders skip it, so sizes could differ
            break
        else:
            place += 2 + int.from_bytes(content[place + 2 : place + 4], 'big')
    raise FrameError('bad_data', 'a JPEG without its header')
