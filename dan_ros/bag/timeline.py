# SPDX-License-Identifier: Apache-2.0
"""Draws one picture per face: its probabilities and its published label over time."""

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from dan_ros.plots.style import encode
from dan_ros.plots.timeline import draw_timeline
from dan_ros.tracking.face_tracker import TrackedFace

PREFIX = 'timeline_'  # prefix of the picture files
MAX_MOMENTS = 2048  # limit of moments per face; when reached, every other moment is dropped
MIN_FRAMES = 5  # frames in which a face must be seen to get a picture
# A gap is drawn where a face was missing for longer than both of these.
GAP_S = 1.0
GAP_INTERVALS = 4  # length of a gap, in mean frame intervals of the camera


@dataclass
class _Moments:
    """Every Nth frame of one face, with N = `stride`."""

    # Time since the start of the bag per moment, seconds.
    times_s: list[float] = field(default_factory=list)
    rows: list[np.ndarray] = field(default_factory=list)  # probabilities per moment, [8]
    # Canonical index of the label per moment, or `labels.UNKNOWN`.
    expressions: list[int] = field(default_factory=list)
    after_gap: list[bool] = field(default_factory=list)  # whether there is a gap before each moment
    frames: int = 0  # number of frames in which the face was seen
    last_s: float = 0.0  # time of the last of these frames, seconds
    stride: int = 1  # number of frames per moment
    _gap_since: bool = False

    def add(self, time_s: float, face: TrackedFace, max_pause_s: float) -> None:
        """Add a frame. A pause of more than `max_pause_s` before it is a gap."""
        self._gap_since |= self.frames > 0 and time_s - self.last_s > max_pause_s
        if self.frames % self.stride == 0:
            self.times_s.append(time_s)
            self.rows.append(face.probabilities)
            self.expressions.append(face.expression)
            self.after_gap.append(self._gap_since)
            self._gap_since = False
        self.frames += 1
        self.last_s = time_s
        if len(self.rows) >= MAX_MOMENTS:
            self._thin_out()

    def draw(self, title: str) -> Figure:
        """Draw the face over time."""
        rows = np.array(self.rows)
        return draw_timeline(self.times_s, rows, self.expressions, self.after_gap, title)

    def _thin_out(self) -> None:
        """Drop every other moment, but keep the gaps."""
        self._gap_since |= len(self.rows) % 2 == 0 and self.after_gap[-1]
        skipped = [False, *self.after_gap[1::2]]
        self.after_gap = [a or b for a, b in zip(self.after_gap[::2], skipped, strict=False)]
        self.times_s, self.rows = self.times_s[::2], self.rows[::2]
        self.expressions = self.expressions[::2]
        self.stride *= 2


@dataclass
class _Camera:
    """Frame rate of a camera."""

    first_s: float  # time of the first frame since the start of the bag, seconds
    frames: int = 0  # number of frames so far

    def add_frame(self, time_s: float) -> float:
        """Count a frame and return the longest pause of a face that is not a gap, seconds."""
        interval_s = (time_s - self.first_s) / max(self.frames, 1)
        self.frames += 1
        return max(GAP_S, GAP_INTERVALS * interval_s)


class Timelines:
    """Collects the faces of a bag and writes `timeline_<id>.png` for each into a folder.

    A face seen in fewer than `MIN_FRAMES` frames gets no picture.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._faces: dict[str, _Moments] = {}
        self._cameras: dict[str, _Camera] = {}
        self._begin_ns: int | None = None

    def add(self, camera: str, faces: list[TrackedFace], time_ns: int) -> None:
        """Add the faces of one frame; arguments as for `FaceTable.write`."""
        if self._begin_ns is None:
            self._begin_ns = time_ns
        time_s = (time_ns - self._begin_ns) / 1e9
        max_pause_s = self._cameras.setdefault(camera, _Camera(time_s)).add_frame(time_s)
        for face in faces:
            self._faces.setdefault(face.face_id, _Moments()).add(time_s, face, max_pause_s)

    def finish(self, ids_in_view: Collection[str] = ()) -> None:
        """Draw and forget all faces except those in view."""
        for face_id in self._faces.keys() - ids_in_view:
            moments = self._faces.pop(face_id)
            if moments.frames >= MIN_FRAMES:
                picture = self._folder / f'{PREFIX}{face_id}.png'
                picture.write_bytes(encode(moments.draw(f'face {face_id}')))
