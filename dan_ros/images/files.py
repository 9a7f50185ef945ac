# SPDX-License-Identifier: Apache-2.0
"""Read and write picture files."""

import os
from pathlib import Path

import numpy as np

from dan_ros.errors import DanError, DataError
from dan_ros.images.compressed import is_whole
from dan_ros.images.decode import decode_picture
from dan_ros.images.opencv import MAX_PIXELS, cv2, opencv_path
from dan_ros.storage.atomic import atomic_write_bytes
from dan_ros.storage.file_content import PICTURE, explain_wrong_content

MAX_BYTES = 1_000_000_000  # size of a file; an uncompressed picture of `MAX_PIXELS` is smaller


def open_picture(path: Path) -> np.ndarray:
    """Decode a picture file.

    Returns:
        uint8 [H, W, 3], BGR, turned upright according to its EXIF data.

    Raises:
        DataError: the file is missing, damaged, truncated or too large; the message names it.
    """
    content = _read(path)
    try:
        picture = decode_picture(content)
    except MemoryError:
        raise DataError(f'{path}: there is too little memory to read it') from None
    if picture is None:
        raise DataError(f'{path}: {_why_unreadable(content)}')
    return picture


def is_picture(path: Path) -> bool:
    """Return whether a file begins like a format that OpenCV reads."""
    if not path.is_file():
        return False
    try:
        with opencv_path(str(path)) as opened:
            return bool(cv2.haveImageReader(opened))
    except OSError:
        return False


def _why_unreadable(content: bytes) -> str:
    if words := explain_wrong_content(content, 'a picture that OpenCV can read', PICTURE):
        return words
    if not is_whole(content):
        return 'is truncated: its end is missing; copy or download it again'
    return f'is damaged, has more than {MAX_PIXELS} pixels, or has a format that OpenCV cannot read'


def _read(path: Path) -> bytes:
    """Return the content of a file.

    Raises:
        DataError: the file cannot be read or is too large.
    """
    try:
        with path.open('rb') as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_BYTES:
                raise DataError(f'{path}: has {size} bytes; a picture has at most {MAX_BYTES}')
            return file.read()
    except FileNotFoundError:
        raise DataError(f'{path}: there is no such file') from None
    except IsADirectoryError:
        raise DataError(f'{path}: is a folder; give the pictures in it') from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        reason = getattr(error, 'strerror', None) or error
        raise DataError(f'{path}: cannot be read: {reason}') from None


def write_picture(path: Path, image_bgr: np.ndarray) -> None:
    """Encode uint8 [H, W, 3] in the format of the path's suffix; see `write_encoded`."""
    write_encoded(path, cv2.imencode(path.suffix, image_bgr)[1].tobytes())


def write_encoded(path: Path, content: bytes) -> None:
    """Write an encoded picture to a file, atomically.

    Raises:
        DanError: the file cannot be written; the message names it.
    """
    try:
        atomic_write_bytes(path, content)
    except OSError as error:
        raise DanError(f'{path} cannot be written: {error.strerror or error}') from None
