# SPDX-License-Identifier: Apache-2.0
"""Endless images from a camera, a stream, a video, pictures, or a moving sample face.

The sample face is the astronaut portrait of scikit-image (NASA, public domain).
"""

import itertools
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dan_ros.errors import DanError, DataError, count_of
from dan_ros.images.files import is_picture, open_picture
from dan_ros.images.opencv import cv2, new_capture
from dan_ros.storage.file_content import VIDEO, explain_wrong_file

WIDTH, HEIGHT = 640, 480  # size of the images with the moving face, pixels
FACE_CENTER = (223.0, 120.0)  # x, y of the astronaut's face, pixels of the portrait
PICTURE_S = 2.0  # time per picture of a folder, seconds
DEFAULT_RATE_HZ = 30.0  # rate of sources that do not define one
MIN_RATE_HZ, MAX_RATE_HZ = 0.1, 1000.0
RETRY_S = 1.0  # interval at which an unreadable video or camera is reopened, seconds
URL = re.compile(r'[A-Za-z][A-Za-z0-9+.-]+://')

Images = Iterator[np.ndarray | None]
Warn = Callable[[str], object]


@dataclass
class Source(Iterator[np.ndarray | None]):
    """Endless images: uint8 [H, W, 3] BGR, or None while an image cannot be read."""

    images: Images  # yields the images
    rate_hz: float  # images per second
    is_live: bool = False  # whether the next image comes when it is taken, as from a camera

    def __next__(self) -> np.ndarray | None:
        return next(self.images)


def open_source(
    source: str, rate_hz: float | None = None, warn: Warn = lambda message: None
) -> Source:
    """Open a source of images.

    Args:
        source: '' for the moving face, the number or path of a camera, the URL of a stream, or the
            path of a picture, a folder of pictures or a video, which are repeated.
        rate_hz: images per second; None for the rate of the video or camera, else 30.
        warn: called with a message for each file of a folder that is left out.

    Raises:
        DanError: the source is missing or cannot be read.
    """
    if not source:
        rate_hz = rate_hz or DEFAULT_RATE_HZ
        return Source(moving_face(rate_hz), rate_hz)
    if source.isdecimal():
        return _open_video(int(source), f'camera {source}', rate_hz)
    if URL.match(source):
        return _open_video(source, source, rate_hz)
    try:
        return _open_path(Path(source).expanduser(), rate_hz, warn)
    except OSError as error:
        raise DanError(f'{source} cannot be read: {error.strerror}') from None
    except RuntimeError as error:  # unknown user after ~
        raise DanError(f'{source} cannot be read: {error}') from None


def _open_path(path: Path, rate_hz: float | None, warn: Warn) -> Source:
    if path.is_char_device():
        number = re.fullmatch(r'/dev/video(\d+)', str(path.resolve()))
        return _open_video(int(number[1]) if number else str(path), str(path), rate_hz)
    if path.is_dir():
        files = sorted(f for f in path.iterdir() if f.is_file() and not f.name.startswith('.'))
        return _open_pictures(files, rate_hz, warn)
    if not path.is_file():
        raise DanError(f'there is no file or folder {path}')
    if is_picture(path):
        return _open_pictures([path], rate_hz, warn)
    return _open_video(str(path), str(path), rate_hz)


def moving_face(rate_hz: float) -> Images:
    """Yield images of the astronaut, who moves and changes size in a cycle of 12 s.

    Raises:
        DanError: scikit-image, which contains the portrait, is not installed.
    """
    try:
        from skimage.data import astronaut
    except ModuleNotFoundError:
        raise DanError(
            'the moving face needs scikit-image: run `pip install scikit-image` or set a source'
        ) from None
    portrait = np.ascontiguousarray(astronaut()[..., ::-1], np.uint8)  # type: ignore[no-untyped-call]
    return (_place(portrait, index / rate_hz) for index in itertools.count())


def _place(portrait: np.ndarray, time_s: float) -> np.ndarray:
    """Return the image of the moving face at a time."""
    phase = 2 * np.pi * time_s / 12
    scale = 1.0 + 0.35 * np.sin(3 * phase)
    x = WIDTH * (0.5 + 0.25 * np.sin(phase))
    y = HEIGHT * (0.42 + 0.12 * np.cos(2 * phase))
    placement = np.array(
        [[scale, 0, x - scale * FACE_CENTER[0]], [0, scale, y - scale * FACE_CENTER[1]]], np.float32
    )
    image: np.ndarray = cv2.warpAffine(
        portrait, placement, (WIDTH, HEIGHT), borderValue=(190, 180, 175)
    )
    return image


def _open_pictures(paths: list[Path], rate_hz: float | None, warn: Warn) -> Source:
    rate_hz = rate_hz or DEFAULT_RATE_HZ
    images = _pictures(paths, max(1, round(PICTURE_S * rate_hz)), warn)
    first = next(images)
    if first is None:
        raise DanError(f'there is no readable picture among {count_of(len(paths), "file")}')
    return Source(itertools.chain([first], images), rate_hz)


def _pictures(paths: list[Path], repeats: int, warn: Warn) -> Images:
    """Yield each picture several times, then the next, in an endless cycle; read one at a time."""
    while True:
        readable = []
        for path in paths:
            try:
                picture = _read(path)
            except DataError as error:
                warn(f'left out: {error}')
                continue
            readable.append(path)
            yield from itertools.repeat(picture, repeats)
        if not readable:
            yield None
        paths = readable


def _read(path: Path) -> np.ndarray:
    if not is_picture(path):  # reads only the start of the file, which may be a long video
        expected = 'a picture that OpenCV can read'
        raise DataError(f'{path} {explain_wrong_file(path, expected) or f"is not {expected}"}')
    return open_picture(path)


def _open_video(source: int | str, name: str, rate_hz: float | None) -> Source:
    capture = new_capture(source)
    if not capture.isOpened():
        words = explain_wrong_file(Path(name), 'a picture or video that OpenCV can read', VIDEO)
        unknown = 'no such camera or stream, no access to it, or not a video that OpenCV can read'
        raise DanError(f'{name} cannot be opened: {f"it {words}" if words else unknown}')
    own_rate_hz = capture.get(cv2.CAP_PROP_FPS)
    if not MIN_RATE_HZ <= own_rate_hz <= MAX_RATE_HZ:
        own_rate_hz = DEFAULT_RATE_HZ
    is_live = not Path(name).is_file()
    return Source(_frames(capture, source), rate_hz or own_rate_hz, is_live)


def _frames(capture: cv2.VideoCapture, source: int | str) -> Images:
    """Yield the frames of a video, which is reopened at its end; None while it cannot be read.

    A video that was filmed with a rotated camera is turned upright.
    """
    while True:
        capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)
        succeeded, frame = is_readable, _ = capture.read()
        while succeeded:
            yield frame
            succeeded, frame = capture.read()
        capture.release()
        retry_s = time.monotonic() + (0 if is_readable else RETRY_S)
        while time.monotonic() < retry_s:
            yield None
        capture = new_capture(source)
