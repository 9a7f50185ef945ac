# SPDX-License-Identifier: Apache-2.0
"""Decode picture files as viewers show them: upright, and in 8 bits per color.

OpenCV decodes. Pillow reads the orientation, because old versions of OpenCV read it only in JPEG.
"""

import io
import warnings

import numpy as np
from PIL import Image, ImageChops

from dan_ros.images.compressed import FLAGS, PNG_START, is_whole, png_chunks
from dan_ros.images.opencv import MAX_PIXELS, cv2, raise_if_out_of_memory

Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2  # Pillow refuses more than twice as many
warnings.filterwarnings('ignore', module='PIL')  # damaged EXIF data is ignored

ORIENTED_FORMATS = ('JPEG', 'PNG', 'WEBP', 'AVIF')  # OpenCV itself always turns a TIFF upright
ORIENTATION = 0x0112  # EXIF tag
# EXIF orientation -> whether to transpose the picture, then the code for `cv2.flip`.
# Source: CIPA DC-008 (Exif 2.32), 4.6.4 A, Orientation.
TURNS = {
    1: (False, None),
    2: (False, 1),
    3: (False, -1),
    4: (False, 0),
    5: (True, None),
    6: (True, 1),
    7: (True, -1),
    8: (True, 0),
}
# Chunks of a PNG that can state the orientation; without them Pillow would decode the picture.
PNG_METADATA = frozenset({b'eXIf', b'tEXt', b'zTXt', b'iTXt'})
SENSOR_BITS = (8, 10, 12, 14, 16)  # bits per color that cameras store in 16-bit files
DARK = 64  # 8-bit level that a 16-bit file with values of at most 14 bits does not reach


def decode_picture(content: bytes) -> np.ndarray | None:
    """Decode a picture file and turn it upright.

    Args:
        content: the whole file, in any format that OpenCV reads. Bytes after its end are ignored;
            of several pictures the first is taken.

    Returns:
        uint8 [H, W, 3], BGR, or None if it is damaged, truncated, too large, or of another format.

    Raises:
        MemoryError: there is too little memory for the pixels.
    """
    if not is_whole(content):
        return None
    header = _open_header(content)
    if header is not None and header.mode == 'CMYK' and 'adobe' not in header.info:
        pixels = _decode_cmyk(header)
    else:
        pixels = _decode(content)
    if header is None or pixels is None:
        return pixels
    return _turn(pixels, _orientation(header, content))


def _decode(content: bytes) -> np.ndarray | None:
    """Decode with OpenCV, as it is stored."""
    buffer = np.frombuffer(content, np.uint8)
    try:
        pixels = cv2.imdecode(buffer, FLAGS)
        if pixels is None or pixels.max() >= DARK:
            return pixels
        deep: np.ndarray | None = cv2.imdecode(buffer, FLAGS | cv2.IMREAD_ANYDEPTH)
    except cv2.error as error:
        raise_if_out_of_memory(error)
        return None
    if deep is None or deep.dtype != np.uint16:
        return pixels
    bits = next(bits for bits in SENSOR_BITS if deep.max() < 1 << bits)
    shifted: np.ndarray = deep >> (bits - 8)
    return shifted.astype(np.uint8)


def _decode_cmyk(header: Image.Image) -> np.ndarray | None:
    """Decode a CMYK JPEG without Adobe's marker.

    Adobe stores inverted values. OpenCV and Pillow assume inverted values in every CMYK JPEG.
    """
    try:
        rgb = ImageChops.invert(header).convert('RGB')
    except OSError:  # damaged
        return None
    return cv2.cvtColor(np.asarray(rgb), cv2.COLOR_RGB2BGR)


def _open_header(content: bytes) -> Image.Image | None:
    """Read the metadata of a picture; return None if it cannot state an orientation."""
    try:
        return Image.open(io.BytesIO(content), formats=ORIENTED_FORMATS)
    except MemoryError:
        raise
    except Exception:  # Pillow raises many classes for damaged files
        return None


def _orientation(header: Image.Image, content: bytes) -> int:
    """Return the orientation by EXIF or XMP; 1 (upright) if it is missing or invalid."""
    if content.startswith(PNG_START) and PNG_METADATA.isdisjoint(png_chunks(content)):
        return 1
    try:
        value = header.getexif().get(ORIENTATION)
    except MemoryError:
        raise
    except Exception:  # many classes, see `_open_header`
        return 1
    return value if value in TURNS else 1


def _turn(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turn a picture upright.

    >>> _turn(np.array([[1, 2], [3, 4]], np.uint8), 6).tolist()
    [[3, 1], [4, 2]]
    """
    is_transposed, flip_code = TURNS[orientation]
    if is_transposed:
        pixels = cv2.transpose(pixels)
    return pixels if flip_code is None else cv2.flip(pixels, flip_code)
