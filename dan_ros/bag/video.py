"""An annotated video a camera."""

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dan_ros.errors import DataError
from dan_ros.images.opencv import cv2
from dan_ros.images.resize import resize

CODEC = 'mp4v'  # in every build of OpenCV that writes videos
MAX_PIXELS_A_SIDE = 8190  # that the codec takes
LONGEST_NAME = 200  # bytes of a file's name; file systems take 255
TYPICAL_HZ = 30.0
SLOWEST_HZ, FASTEST_HZ = 0.1, 240.0  # that players show; equal stamps and pauses go beyond


@dataclass
class _Video:
    """A file in the making; its size is [width, height], pixels."""

    path: Path
    writer: cv2.VideoWriter
    size: tuple[int, int]
    written: int = 0


class Videos:
    """Writes `<camera>.mp4` for each camera; the first image decides the size.

    A context manager; at the end every video is read back.

    Args:
        folder: to write in.
        rates_hz: frames a second by camera.

    Attributes:
        lacking: why there is no video, by camera.

    Raises:
        DataError: at the end, a video lacks images; OpenCV does not say so while it writes.
    """

    def __init__(self, folder: Path, rates_hz: dict[str, float]) -> None:
        self.lacking: dict[str, str] = {}
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
        """Append an image, uint8 [H, W, 3]; one of another size is stretched to the first's."""
        if camera in self.lacking:
            return
        if camera not in self._videos:
            height, width = image_bgr.shape[:2]
            self._open(camera, _video_size(width, height))
        if video := self._videos.get(camera):
            video.writer.write(resize(image_bgr, *video.size))
            video.written += 1

    def _open(self, camera: str, size: tuple[int, int]) -> None:
        path = self._new_path(camera)
        fourcc = cv2.VideoWriter.fourcc(*CODEC)
        rate_hz = min(max(self._rates_hz.get(camera, TYPICAL_HZ), SLOWEST_HZ), FASTEST_HZ)
        writer = cv2.VideoWriter(str(path), fourcc, rate_hz, size)
        if writer.isOpened():
            self._videos[camera] = _Video(path, writer, size)
            return
        path.unlink(missing_ok=True)
        width, height = size
        self.lacking[camera] = (
            f'OpenCV opens none here, of {width} x {height} pixels at {rate_hz:g} Hz'
        )

    def _new_path(self, camera: str) -> Path:
        name = camera.strip('/').replace('/', '_')[-LONGEST_NAME:]
        path = self._folder / f'{name}.mp4'
        for number in itertools.count(2):
            if not path.exists():
                break
            path = self._folder / f'{name}_{number}.mp4'  # /a/b_c beside /a_b/c
        return path


def _video_size(width: int, height: int) -> tuple[int, int]:
    """Even numbers, as the codec wants, no larger than it takes, in the image's proportions."""
    scale = min(1.0, MAX_PIXELS_A_SIDE / max(width, height))
    width, height = (max(1, round(scale * side)) for side in (width, height))
    return width + width % 2, height + height % 2


def _check(video: _Video) -> None:
    """Read back how many images a video has.

    Raises:
        DataError: not as many as were written.
    """
    reader = cv2.VideoCapture(str(video.path))
    found = int(reader.get(cv2.CAP_PROP_FRAME_COUNT)) if reader.isOpened() else 0
    reader.release()
    if found != video.written:
        name = video.path.relative_to(video.path.parent.parent)
        raise DataError(
            f'{name} could not be written, {found} of its {video.written} images can be read '
            'back: make room, name another place, or leave out --video'
        )
