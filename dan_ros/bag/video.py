# SPDX-License-Identifier: Apache-2.0
"""Writes one annotated video per camera."""

import itertools
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
MAX_GAP_NS = 1_000_000_000  # a longer time between two images is a pause, which is shortened to it
MAX_DELAY_S = 1.0  # delay of a video behind the bag that nobody minds
BUSY_S = 5  # period in which a camera counts as faster; a short burst does not


@dataclass
class _Video:
    """A video that is being written. It plays in the time of the bag, except for pauses."""

    path: Path
    writer: cv2.VideoWriter
    size: tuple[int, int]  # (width, height), pixels
    period_ns: float  # how long a frame is shown
    next_ns: float  # bag time of the next frame
    written: int = 0  # number of frames so far
    _last: np.ndarray = field(init=False)

    def write(self, time_ns: int, image_bgr: np.ndarray) -> None:
        """Append an image; the one before it is shown until then."""
        gap_ns = min(time_ns - self.next_ns, MAX_GAP_NS)
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

    A context manager. At the end it counts the frames in each file, because OpenCV reports no
    errors while it writes.

    Args:
        folder: existing folder for the videos.
        rates_hz: frame rate per camera, see `frame_rate_hz`.

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

    def write(self, camera: str, time_ns: int, image_bgr: np.ndarray) -> None:
        """Append an image, resized to the size of the camera's first one.

        Args:
            camera: name of the camera.
            time_ns: bag time, nanoseconds.
            image_bgr: uint8 [H, W, 3], BGR.
        """
        if camera in self.problems:
            return
        if camera not in self._videos:
            height, width = image_bgr.shape[:2]
            self._open(camera, _video_size(width, height), time_ns)
        if video := self._videos.get(camera):
            video.write(time_ns, image_bgr)

    def _open(self, camera: str, size: tuple[int, int], start_ns: int) -> None:
        path = self._new_path(camera)
        if not is_utf8(str(path)):
            self.problems[camera] = (
                f'no video of {camera}: OpenCV cannot write to a path that is not UTF-8'
            )
            return
        fourcc = cv2.VideoWriter.fourcc(*CODEC)
        rate_hz = self._rates_hz[camera]
        writer = cv2.VideoWriter(str(path), fourcc, rate_hz, size)
        if writer.isOpened():
            self._videos[camera] = _Video(path, writer, size, 1e9 / rate_hz, start_ns)
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


def frame_rate_hz(times_ns: np.ndarray) -> float:
    """Return the frame rate for a video of images with these bag times, int64 [N].

    This is their mean rate without pauses. If the video would fall behind with it, because the
    camera became faster, it is the rate of the busiest seconds.

    >>> frame_rate_hz(np.array([0, 1, 2, 600, 601]) * 10**8)
    10.0
    """
    gaps_ns = np.diff(times_ns)
    is_near = (gaps_ns >= 0) & (gaps_ns <= MAX_GAP_NS)
    counted_ns = gaps_ns[is_near] if is_near.any() else np.abs(gaps_ns)
    if not counted_ns.sum():
        return DEFAULT_HZ
    rate_hz = 1e9 / counted_ns.mean()
    if is_near.any() and _largest_delay_s(gaps_ns, rate_hz) > MAX_DELAY_S:
        rate_hz = max(rate_hz, _busiest_rate_hz(times_ns))
    return round(float(np.clip(rate_hz, MIN_HZ, MAX_HZ)), RATE_DIGITS)


def _largest_delay_s(gaps_ns: np.ndarray, rate_hz: float) -> float:
    """Return how far a video with this frame rate falls behind the bag at most."""
    bag_s = np.cumsum(np.clip(gaps_ns, 0, MAX_GAP_NS)) / 1e9
    delays_s = np.arange(1, len(gaps_ns) + 1) / rate_hz - bag_s
    return float((delays_s - np.minimum.accumulate(delays_s)).max())  # it is never ahead


def _busiest_rate_hz(times_ns: np.ndarray) -> float:
    """Return the largest number of images in `BUSY_S` seconds, per second."""
    counts = np.unique(times_ns // (BUSY_S * 1_000_000_000), return_counts=True)[1]
    return float(counts.max()) / BUSY_S


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
