# SPDX-License-Identifier: Apache-2.0
"""Writes one annotated video per camera."""

import itertools
import math
import statistics
from collections import defaultdict
from dataclasses import dataclass, field
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
RATE_DIGITS = 2  # decimal places of a frame rate; the codec takes no finer ones above 65 Hz
FIRST_IMAGES = 6  # they are kept in memory until their times have given the frame rate
MAX_GAP_NS = 1_000_000_000  # longer gaps between two images are shortened to it
MAX_DELAY_NS = 1_000_000_000  # delay of a video behind the bag, due to jitter


@dataclass
class _Video:
    """A video that is being written. It plays in the time of the bag, except for long pauses.

    Attributes:
        path: path of the file.
        writer: OpenCV's writer of the file.
        size: (width, height), pixels.
        period_ns: how long a frame is shown.
        max_delay_ns: largest delay of the video behind the bag.
        next_ns: bag time of the next frame.
        written: number of frames written so far.
    """

    path: Path
    writer: cv2.VideoWriter
    size: tuple[int, int]
    period_ns: float
    max_delay_ns: float
    next_ns: float
    written: int = 0
    _last: np.ndarray = field(init=False)

    def write(self, time_ns: int, image_bgr: np.ndarray) -> None:
        """Append an image; the one before it is shown until then.

        It is left out if the video is late, because images come faster than its frame rate.
        """
        gap_ns = min(time_ns - self.next_ns, MAX_GAP_NS)
        if gap_ns < -self.max_delay_ns:
            return
        if gap_ns == MAX_GAP_NS:
            self.next_ns = time_ns - MAX_GAP_NS
        for _ in range(round(gap_ns / self.period_ns)):
            self._append(self._last)
        self._last = resize(image_bgr, *self.size)
        self._append(self._last)

    def _append(self, frame_bgr: np.ndarray) -> None:
        self.writer.write(frame_bgr)
        self.written += 1
        self.next_ns += self.period_ns


class Videos:
    """Writes `<camera>.mp4` for each camera, in the size of its first image.

    A context manager. `finish` must be called at the end.

    Args:
        folder: existing folder for the videos.
        rates_hz: mean rate per camera, images per second; 0 if it is unknown.

    Attributes:
        problems: why there is no video, by camera.
    """

    def __init__(self, folder: Path, rates_hz: dict[str, float]) -> None:
        self.problems: dict[str, str] = {}
        self._folder = folder
        self._rates_hz = rates_hz
        self._first: defaultdict[str, list[tuple[int, np.ndarray]]] = defaultdict(list)
        self._videos: dict[str, _Video] = {}

    def __enter__(self) -> 'Videos':
        return self

    def __exit__(self, *_: object) -> None:
        for video in self._videos.values():
            video.writer.release()

    def write(self, camera: str, time_ns: int, image_bgr: np.ndarray) -> None:
        """Append an image, resized to the size of the camera's first one.

        Args:
            camera: name of the camera.
            time_ns: bag time, nanoseconds.
            image_bgr: uint8 [H, W, 3], BGR.
        """
        if camera in self.problems:
            return
        if video := self._videos.get(camera):
            video.write(time_ns, image_bgr)
            return
        self._first[camera].append((time_ns, image_bgr))
        if len(self._first[camera]) == FIRST_IMAGES:
            self._start(camera)

    def finish(self) -> None:
        """Complete all files and count the frames in each, because OpenCV reports no errors.

        Raises:
            DataError: a video is incomplete.
        """
        for camera in list(self._first):
            self._start(camera)
        for video in self._videos.values():
            video.writer.release()
            _check(video)

    def _start(self, camera: str) -> None:
        """Open the file of a camera and write its first images."""
        first = self._first.pop(camera)
        rate_hz = max(self._rates_hz[camera], _median_rate_hz([time_ns for time_ns, _ in first]))
        height, width = first[0][1].shape[:2]
        self._open(camera, _video_size(width, height), rate_hz, first[0][0])
        if video := self._videos.get(camera):
            for time_ns, image_bgr in first:
                video.write(time_ns, image_bgr)

    def _open(self, camera: str, size: tuple[int, int], rate_hz: float, start_ns: int) -> None:
        path = self._new_path(camera)
        if not is_utf8(str(path)):
            self.problems[camera] = (
                f'no video of {camera}: OpenCV cannot write to a path that is not UTF-8'
            )
            return
        fourcc = cv2.VideoWriter.fourcc(*CODEC)
        has_times = 0 < rate_hz <= MAX_HZ
        rate_hz = round(min(max(rate_hz or DEFAULT_HZ, MIN_HZ), MAX_HZ), RATE_DIGITS)
        writer = cv2.VideoWriter(str(path), fourcc, rate_hz, size)
        if writer.isOpened():
            period_ns = 1e9 / rate_hz
            delay_ns = max(MAX_DELAY_NS, period_ns) if has_times else math.inf
            self._videos[camera] = _Video(path, writer, size, period_ns, delay_ns, start_ns)
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


def _median_rate_hz(times_ns: list[int]) -> float:
    """Return the rate of images, which a pause among them does not change; 0 if it is unknown.

    >>> _median_rate_hz([0, 10**8, 2 * 10**8, 60 * 10**9])
    10.0
    """
    periods_ns = [after - before for before, after in itertools.pairwise(times_ns)]
    period_ns = statistics.median_low(periods_ns) if periods_ns else 0
    return 1e9 / period_ns if period_ns > 0 else 0.0


def _video_size(width: int, height: int) -> tuple[int, int]:
    """Return the nearest size with even sides that the codec supports.

    >>> _video_size(33, 47)
    (34, 48)
    """
    scale = min(1.0, MAX_SIDE_PX / max(width, height))
    width, height = (max(1, round(scale * side)) for side in (width, height))
    return width + width % 2, height + height % 2


def _check(video: _Video) -> None:
    """Count the frames in the file of a video.

    Raises:
        DataError: frames are missing.
    """
    with open_capture(str(video.path)) as reader:
        found = int(reader.get(cv2.CAP_PROP_FRAME_COUNT)) if reader.isOpened() else 0
    if found != video.written:
        name = video.path.relative_to(video.path.parent.parent)
        raise DataError(
            f'cannot write {name}: it contains {found} of {count_of(video.written, "frame")}; free '
            'some disk space, choose another folder, or leave out --video'
        )
