"""Picture files: whole ones alone are read, and what is written is whole."""

from pathlib import Path

import numpy as np

from dan_ros.compressed import is_whole
from dan_ros.errors import DanError
from dan_ros.files import write_content
from dan_ros.opencv import MOST_PIXELS, cv2

FLAGS = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION


def read_picture(path: Path) -> np.ndarray | None:
    """Decode a picture, or give None for one that is missing, damaged, cut short or too large.

    Returns:
        uint8 [h, w, 3], BGR; not turned by its EXIF data.
    """
    try:
        content = path.read_bytes()
    except OSError:
        return None
    if not is_whole(content):
        return None
    try:
        return cv2.imdecode(np.frombuffer(content, np.uint8), FLAGS)
    except cv2.error:
        return None


def why_unreadable(path: Path) -> str:
    """Why `read_picture` gave None, for people."""
    if not path.exists():
        return 'there is no such file'
    if path.is_dir():
        return 'is a folder; name the pictures in it'
    return f'is not a picture that OpenCV can read, is damaged, or has over {MOST_PIXELS} pixels'


def write_picture(path: Path, image_bgr: np.ndarray) -> None:
    """Encode uint8 [h, w, 3] as the suffix of `path` says, and write it as `write_encoded` does."""
    write_encoded(path, cv2.imencode(path.suffix, image_bgr)[1].tobytes())


def write_encoded(path: Path, content: bytes) -> None:
    """Write a picture's file, whole or not at all; an older one stays until then.

    Raises:
        DanError: it can't be written; the message names it.
    """
    try:
        write_content(path, content)
    except OSError as error:
        raise DanError(f'{path} can not be written: {error.strerror or error}') from None
