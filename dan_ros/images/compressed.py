"""Compressed pictures: their size by their header, and whole ones alone decoded.

JPEG and PNG, what ROS 2's image transport sends. OpenCV would fill what is missing of a cut short
JPEG with grey, and reserve memory for whatever size a header claims.
"""

import numpy as np

from dan_ros.errors import FrameError
from dan_ros.images.opencv import cv2, raise_if_out_of_memory
from dan_ros.types import Frame

JPEG_START, JPEG_END = b'\xff\xd8', b'\xff\xd9'
PNG_START, PNG_END = b'\x89PNG\r\n\x1a\n', b'IEND\xaeB`\x82'
# Start of frame: all of 0xC0 to 0xCF but Huffman tables, the reserved one, arithmetic coding.
JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
JPEG_STANDALONE = frozenset({0x01, *range(0xD0, 0xD8)})  # markers without a length
TAIL_BYTES = 4096  # some cameras pad a JPEG behind its end
JPEG_SCAN = b'\xff\xda'
MAX_SCANS = 32  # encoders make about ten; each costs time as the whole picture does


def is_whole(content: bytes) -> bool:
    """Whether a picture's file has its end, as far as its kind has one that can be told."""
    if content.startswith(JPEG_START):
        return JPEG_END in content[-TAIL_BYTES:]
    if content.startswith(PNG_START):
        return PNG_END in content[-TAIL_BYTES:]
    return bool(content)


def check_compressed(content: bytes, max_pixels: int) -> None:
    """Check by its header and its end that a picture is whole and of bearable size.

    Args:
        content: the picture's file.
        max_pixels: largest width times height.

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
        raise FrameError('bad_data', f'a compressed image that ends early, {len(content)} bytes')
    if content.startswith(JPEG_START) and (scans := content.count(JPEG_SCAN)) > MAX_SCANS:
        raise FrameError('bad_data', f'a JPEG of {scans} scans, more than any encoder makes')


def compressed_to_frame(content: bytes, max_pixels: int) -> Frame:
    """Decode a picture to bgr8, as it was sent: no turning by its EXIF data.

    A JPEG that lost bytes in its middle and has its end can not be told from a sound one: OpenCV
    warns on standard error, and what is missing is grey or shifted.

    Raises:
        FrameError: see `check_compressed`; also where the picture is damaged inside.
        MemoryError: there is no room for the pixels.
    """
    check_compressed(content, max_pixels)
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error as error:
        raise_if_out_of_memory(error)
        raise FrameError('bad_data', f'a compressed image that is damaged: {error.err}') from None
    if image is None:
        raise FrameError('bad_data', 'a compressed image that is damaged')
    if image.shape[1::-1] != _size_of(content):
        raise FrameError('bad_data', 'a compressed image of another size than its header says')
    return Frame(image)


def _size_of(content: bytes) -> tuple[int, int]:
    """Width and height by the header.

    Raises:
        FrameError: with the cause 'bad_format' or 'bad_data'.
    """
    if content.startswith(JPEG_START):
        return _jpeg_size(content)
    if content.startswith(PNG_START):
        return _png_size(content)
    raise FrameError(
        'bad_format', f'{len(content)} bytes that are neither JPEG nor PNG: {content[:8].hex()!r}'
    )


def _png_size(content: bytes) -> tuple[int, int]:
    """Width and height; the header chunk has to come first."""
    if content[12:16] != b'IHDR' or len(content) < 24:
        raise FrameError('bad_data', 'a PNG without its header')
    return int.from_bytes(content[16:20], 'big'), int.from_bytes(content[20:24], 'big')


def _jpeg_size(content: bytes) -> tuple[int, int]:
    """Width and height, from the first start of frame."""
    place = 2
    while place + 4 <= len(content):
        if content[place] != 0xFF:
            break
        marker = content[place + 1]
        if marker == 0x00:  # no marker: decoders pass over it, and see what we would skip
            break
        if marker == 0xFF:  # padding
            place += 1
        elif marker in JPEG_STANDALONE:
            place += 2
        elif marker in JPEG_FRAMES and place + 9 <= len(content):
            height = int.from_bytes(content[place + 5 : place + 7], 'big')
            return int.from_bytes(content[place + 7 : place + 9], 'big'), height
        else:
            place += 2 + int.from_bytes(content[place + 2 : place + 4], 'big')
    raise FrameError('bad_data', 'a JPEG without its header')
