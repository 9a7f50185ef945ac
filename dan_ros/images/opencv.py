# SPDX-License-Identifier: Apache-2.0
"""OpenCV with a limit on the size of pictures; all modules import `cv2` from here.

OpenCV reads the limit from the environment when it is imported. A limit set by the user is kept.
`compressed` checks the size of pictures before it decodes them; this limit holds for all formats.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

MAX_PIXELS = 250_000_000  # width x height of a picture; 0.75 GB when decoded

os.environ.setdefault('OPENCV_IO_MAX_IMAGE_PIXELS', str(MAX_PIXELS))

import cv2  # noqa: E402

__all__ = [
    'MAX_PIXELS',
    'cv2',
    'is_utf8',
    'new_capture',
    'open_capture',
    'opencv_path',
    'raise_if_out_of_memory',
    'version',
]


def raise_if_out_of_memory(error: cv2.error) -> None:
    """Raise MemoryError if `error` says that OpenCV ran out of memory."""
    if getattr(error, 'code', 0) == cv2.Error.StsNoMem:
        raise MemoryError(error.err) from None


def is_utf8(path: str) -> bool:
    """Return whether a path is valid UTF-8; OpenCV crashes on others."""
    return os.fsencode(path).decode(errors='ignore') == path


@contextmanager
def opencv_path(path: str) -> Iterator[str]:
    """Yield a UTF-8 path by which OpenCV can read a file.

    Raises:
        OSError: the path is not UTF-8, and the file cannot be opened.
    """
    if is_utf8(path):
        yield path
        return
    with open(path, 'rb') as file:
        yield f'/dev/fd/{file.fileno()}'


def new_capture(source: str | int) -> cv2.VideoCapture:
    """Open a video by its path or URL, or a camera by its number; see `isOpened`."""
    try:
        if isinstance(source, int):
            return cv2.VideoCapture(source)
        with opencv_path(source) as path:
            return cv2.VideoCapture(path)
    except (OSError, cv2.error):  # cv2.error: the number of a camera has too many digits
        return cv2.VideoCapture()


@contextmanager
def open_capture(source: str | int) -> Iterator[cv2.VideoCapture]:
    """Open a source as `new_capture` does, and release it at the end of the block."""
    capture = new_capture(source)
    try:
        yield capture
    finally:
        capture.release()


def version() -> tuple[int, int]:
    """Return major and minor version of OpenCV, such as (4, 10)."""
    major, minor = cv2.__version__.split('.')[:2]
    return int(major), int(minor)
