"""Picture files: whole ones alone are read, and what is written is whole."""

import os
from pathlib import Path

import numpy as np

from dan_ros.errors import DanError, DataError
from dan_ros.images.compressed import is_whole
from dan_ros.images.opencv import MAX_PIXELS, cv2
from dan_ros.storage.atomic import atomic_write_bytes

FLAGS = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
MAX_BYTES = 1_000_000_000  # of a picture's file; MAX_PIXELS uncompressed are fewer
NO_MEMORY = 'there is too little memory to read it'


def read_picture(path: Path) -> np.ndarray | None:
    """Decode a picture as `open_picture` does, or give None for one that it refuses."""
    try:
        return open_picture(path)
    except DataError:
        return None


def open_picture(path: Path) -> np.ndarray:
    """Decode a picture.

    Returns:
        uint8 [h, w, 3], BGR; not turned by its EXIF data.

    Raises:
        DataError: it is missing, damaged, cut short or too large; the message names it.
    """
    try:
        content = _read(path)
        picture = cv2.imdecode(np.frombuffer(content, np.uint8), FLAGS) if content else None
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise DataError(f'{path}: {NO_MEMORY}') from None
        picture = None
    except MemoryError:
        raise DataError(f'{path}: {NO_MEMORY}') from None
    if picture is None:
        raise DataError(
            f'{path}: is not a picture that OpenCV can read, is damaged, or has over {MAX_PIXELS} '
            'pixels'
        )
    return picture


def _read(path: Path) -> bytes:
    """Content of a file, empty where it does not have its end.

    Raises:
        DataError: it can't be read or is too large.
    """
    try:
        with path.open('rb') as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_BYTES:
                raise DataError(f'{path}: has {size} bytes, a picture has {MAX_BYTES} at most')
            content = file.read()
    except FileNotFoundError:
        raise DataError(f'{path}: there is no such file') from None
    except IsADirectoryError:
        raise DataError(f'{path}: is a folder; name the pictures in it') from None
    except (OSError, ValueError) as error:  # ValueError: no file can have this name
        reason = getattr(error, 'strerror', None) or error
        raise DataError(f'{path}: can not be read: {reason}') from None
    return content if is_whole(content) else b''


def write_picture(path: Path, image_bgr: np.ndarray) -> None:
    """Encode uint8 [h, w, 3] as the suffix of `path` says, and write it as `write_encoded` does."""
    write_encoded(path, cv2.imencode(path.suffix, image_bgr)[1].tobytes())


def write_encoded(path: Path, content: bytes) -> None:
    """Write a picture's file, whole or not at all; an older one stays until then.

    Raises:
        DanError: it can't be written; the message names it.
    """
    try:
        atomic_write_bytes(path, content)
    except OSError as error:
        raise DanError(f'{path} can not be written: {error.strerror or error}') from None


def readable(text: str) -> str:
    """Escape what can't be shown or written: bytes of a file's name that are no text."""
    return text.encode(errors='backslashreplace').decode()
