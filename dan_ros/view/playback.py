# SPDX-License-Identifier: Apache-2.0
"""Timed images of a camera, a video, pictures or a bag, for the page without ROS."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from dan_ros.errors import DataError, FrameError
from dan_ros.images.playback import URL, Source
from dan_ros.types import Frame

if TYPE_CHECKING:
    from dan_ros.bag.reader import Bag, Topic

MAX_GAP_S = 2.0  # longest pause of a recording that is played, seconds
RETRY_S = 0.05  # interval at which a camera without an image is read again, seconds
REPLAY_S = 0.1  # pause before a bag is played again, seconds
BAG_SUFFIXES = ('.db3', '.mcap', '.zstd', '.zst')

TimedImages = Iterator[tuple[str, Frame | None]]


def is_bag(source: str) -> bool:
    """Return whether a source is a bag, and not a camera, a video or pictures."""
    if source.isdecimal() or URL.match(source):
        return False
    path = Path(source)
    files = path.iterdir() if path.is_dir() else [path]
    return any(file.name == 'metadata.yaml' or file.suffix in BAG_SUFFIXES for file in files)


def play_source(source: Source, camera: str) -> TimedImages:
    """Yield the images of a source when they are due; None while there is none."""
    due_s = time.monotonic()
    for image in source:
        if image is None:
            time.sleep(RETRY_S)
            yield camera, None
            continue
        if not source.is_live:
            due_s = max(due_s + 1 / source.rate_hz, time.monotonic() - 1 / source.rate_hz)
            time.sleep(max(0.0, due_s - time.monotonic()))
        yield camera, Frame(image)


def play_bag(bag: 'Bag', topics: list['Topic']) -> TimedImages:
    """Yield the images of a bag at the pace of the recording, again and again.

    Raises:
        DataError: the bag has no readable image.
    """
    from dan_ros.bag.reader import record_to_frame

    while True:
        last_ns, is_empty, problem = None, True, ''
        due_s = time.monotonic()
        for record in bag.records({topic.name for topic in topics}):
            if last_ns is not None:
                due_s += min((record.time_ns - last_ns) / 1e9, MAX_GAP_S)
            last_ns = record.time_ns
            due_s = max(due_s, time.monotonic() - 1.0)
            time.sleep(max(0.0, due_s - time.monotonic()))
            try:
                frame = record_to_frame(record)
            except (FrameError, MemoryError) as error:
                problem = str(error)
                yield record.topic.camera, None
                continue
            is_empty = False
            yield record.topic.camera, frame
        if is_empty:
            raise DataError(f'{bag.path} has no image that can be read: {problem or bag.damage}')
        time.sleep(REPLAY_S)
