# SPDX-License-Identifier: Apache-2.0
"""Writes one annotated video per camera."""

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dan_ros.errors import DataError, count_of
from dan_ros.images.opencv import cv2, is_utf8, open_capture
from dan_ros.images.resize import resize

CODEC = 'mp4v'  # part of every OpenCV build that can write videos
MAX_SIDE_PX = 8190  # limit of the codec
MAX_NAME_CHARACTERS = 200  # length of a file name; file systems allow 255 bytes
DEFAULT_HZ = 30.0  # frame rate if that of the bag is unknown
MIN_HZ, MAX_HZ = 0.1, 240.0  # frame rates that players support


@dataclass
class _Video:
    """A video that is being written.

    Attributes:
        path: path of the file.
        writer: OpenCV's writer of the file.
        size: (width, height), pixels.
        written: number of images written so far.
    """

    path: Path
    writer: cv2.VideoWriter
    size: tuple[int, int]
    written: int = 0


class Videos:
    """Writes `<camera>.mp4` for each camera, in the size of its first image.

    A context manager. At the end it counts the images in each file, because OpenCV reports no
    errors while it writes.

    Args:
        folder: existing folder for the videos.
        rates_hz: frame rate per camera, images per second; 0 if it is unknown.

    Attributes:
        problems: why there is no video, by camera.

    Raises:
        DataError: a video is incomplete; raised at the end.
    """

    def __init__(self, folder: Path, rates_hz: dict[str, float]) -> None:
        self.problems: dict[str, str] = {}
        self._folder = folder
        self._rates_hz = rates_hz
        self._videos: dict[str, _Video] = {}

    def __enter__(self) -> 'Videos':
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for video in self._videos.values():
            video.writer.release()
        if kind is None:
            for video in self._videos.values():
                _check(video)

    def write(self, camera: str, image_bgr: np.ndarray) -> None:
        """Append an image, uint8 [H, W, 3] BGR, resized to the size of the camera's first one."""
        if camera in self.problems:
            return
        if camera not in self._videos:
            height, width = image_bgr.shape[:2]
            self._open(camera, _video_size(width, height))
        if video := self._videos.get(camera):
            video.writer.write(resize(image_bgr, *video.size))
            video.written += 1

    def _open(self, camera: str, size: tuple[int, int]) -> None:
        path = self._new_path(camera)
        if not is_utf8(str(path)):
            self.problems[camera] = (
                f'no video of {camera}: OpenCV cannot write to a path that is not UTF-8'
            )
            return
        fourcc = cv2.VideoWriter.fourcc(*CODEC)
        rate_hz = min(max(self._rates_hz[camera] or DEFAULT_HZ, MIN_HZ), MAX_HZ)
        writer = cv2.VideoWriter(str(path), fourcc, rate_hz, size)
        if writer.isOpened():
            self._videos[camera] = _Video(path, writer, size)
            return
        path.unlink(missing_ok=True)
        width, height = size
        self.problems[camera] = (
            f'no video of {camera}: OpenCV cannot write MP4 files of {width} x {height} pixels at '
            f'{rate_hz:g} Hz here'
        )

    def _new_path(self, camera: str) -> Path:
        name = camera.strip('/').replace('/', '_')[-MAX_NAME_CHARACTERS:]
        path = self._folder / f'{name}.mp4'
        for number in itertools.count(2):
            if not path.exists():
                break
            path = self._folder / f'{name}_{number}.mp4'  # for /a/b_c and /a_b/c
        return path


def _video_size(width: int, height: int) -> tuple[int, int]:
    """Return the nearest size with even sides that the codec supports.

    >>> _video_size(33, 47)
    (34, 48)
    """
    scale = min(1.0, MAX_SIDE_PX / max(width, height))
    width, height = (max(1, round(scale * side)) for side in (width, height))
    return width + width % 2, height + height % 2


def _check(video: _Video) -> None:
    """Count the images in the file of a video.

    Raises:
        DataError: images are missing.
    """
    with open_capture(str(video.path)) as reader:
        found = int(reader.get(cv2.CAP_PROP_FRAME_COUNT)) if reader.isOpened() else 0
    if found != video.written:
        name = video.path.relative_to(video.path.parent.parent)
        raise DataError(
            f'cannot write {name}: it contains {found} of {count_of(video.written, "image")}; free '
            'some disk space, choose another folder, or leave out --video'
        )
