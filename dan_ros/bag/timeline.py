"""A picture a face: its probabilities as bands over time, and the label that was published."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dan_ros import labels
from dan_ros.annotate import COLOURS, UNKNOWN_COLOUR
from dan_ros.tracking.face_tracker import TrackedFace

MAX_MOMENTS = 2048  # of a face; beyond, every second is left out, so that memory is bounded
MIN_FRAMES = 5  # a face seen in fewer gets no picture
GAP_S = 1.0  # a face that was not seen for longer leaves a gap in its bands,
GAP_INTERVALS = 4  # if that is as many of its camera's mean intervals
DPI = 120


@dataclass
class _Moments:
    """A face over time: every `stride`-th frame of it.

    Attributes:
        times_s: seconds since the bag began, of each moment.
        rows: probabilities, [8] each.
        expressions: label of each moment, canonical or UNKNOWN.
        after_gap: whether the face was not seen for a while before each moment.
        frames: it was seen in.
        last_s: time of the last of them.
        stride: frames a moment.
    """

    times_s: list[float] = field(default_factory=list)
    rows: list[np.ndarray] = field(default_factory=list)
    expressions: list[int] = field(default_factory=list)
    after_gap: list[bool] = field(default_factory=list)
    frames: int = 0
    last_s: float = 0.0
    stride: int = 1
    _gap_since: bool = False

    def add(self, time_s: float, face: TrackedFace, longest_s: float) -> None:
        """Take in a frame; longer than `longest_s` after the last one there was a gap."""
        self._gap_since |= self.frames > 0 and time_s - self.last_s > longest_s
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

    def _thin_out(self) -> None:
        self._gap_since |= len(self.rows) % 2 == 0 and self.after_gap[-1]
        skipped = [False, *self.after_gap[1::2]]
        self.after_gap = [a or b for a, b in zip(self.after_gap[::2], skipped, strict=False)]
        self.times_s, self.rows = self.times_s[::2], self.rows[::2]
        self.expressions = self.expressions[::2]
        self.stride *= 2


@dataclass
class _Camera:
    """When a camera's frames came: the first, seconds since the bag began, and how many."""

    first_s: float
    frames: int = 0

    def longest_s(self, time_s: float) -> float:
        """Longest time between two frames of a face that is no gap; another frame came."""
        interval_s = (time_s - self.first_s) / max(self.frames, 1)
        self.frames += 1
        return max(GAP_S, GAP_INTERVALS * interval_s)


class Timelines:
    """Collects faces and draws each when it is gone.

    Args:
        folder: to write `timeline_<id>.png` in.

    Attributes:
        written: number of pictures.
        brief: number of faces that were seen too briefly for one.
    """

    def __init__(self, folder: Path) -> None:
        self.written = self.brief = 0
        self._folder = folder
        self._faces: dict[str, _Moments] = {}
        self._cameras: dict[str, _Camera] = {}
        self._begin_ns: int | None = None

    def add(self, camera: str, faces: list[TrackedFace], time_ns: int) -> None:
        """Take in the faces of one frame of a camera."""
        if self._begin_ns is None:
            self._begin_ns = time_ns
        time_s = (time_ns - self._begin_ns) / 1e9
        longest_s = self._cameras.setdefault(camera, _Camera(time_s)).longest_s(time_s)
        for face in faces:
            self._faces.setdefault(face.face_id, _Moments()).add(time_s, face, longest_s)

    def finish(self, alive: set[str] | None = None) -> None:
        """Draw and forget the faces that are gone: those not in `alive`, or all."""
        for face_id in [i for i in self._faces if alive is None or i not in alive]:
            moments = self._faces.pop(face_id)
            if moments.frames < MIN_FRAMES:
                self.brief += 1
                continue
            draw(face_id, moments).savefig(self._folder / f'timeline_{face_id}.png')
            self.written += 1


def draw(face_id: str, moments: _Moments) -> Figure:
    """Bands of probability over time, and below them a strip with the published label."""
    figure = Figure(figsize=(10, 3.6), dpi=DPI, layout='constrained')
    bands, strip = figure.subplots(2, 1, height_ratios=(9, 1), sharex=True)
    times, rows = _with_gaps(moments)
    colours = [_to_rgb(colour) for colour in COLOURS]
    bands.stackplot(times, rows.T, colors=colours, labels=labels.CANONICAL, linewidth=0)
    bands.set(ylim=(0, 1), ylabel='probability', title=f'face {face_id}')
    bands.legend(loc='center left', bbox_to_anchor=(1.0, 0.5), frameon=False, reverse=True)
    bands.set_facecolor('#f4f4f4')
    _draw_labels(strip, moments)
    strip.set(yticks=[], xlabel='seconds since the bag began')
    strip.set_ylabel('label', rotation=0, ha='right', va='center')
    for axes in (bands, strip):
        axes.spines[['top', 'right']].set_visible(False)
        axes.set_xlim(times[0], max(times[-1], times[0] + 1e-3))
    return figure


def _draw_labels(axes: Axes, moments: _Moments) -> None:
    times, last = moments.times_s, len(moments.times_s) - 1
    for index, expression in enumerate(moments.expressions):
        if index == last or moments.after_gap[index + 1]:
            continue
        colour = UNKNOWN_COLOUR if expression == labels.UNKNOWN else COLOURS[expression]
        axes.axvspan(times[index], times[index + 1], color=_to_rgb(colour), linewidth=0)


def _with_gaps(moments: _Moments) -> tuple[np.ndarray, np.ndarray]:
    """Times and rows, with a row of zeros at both ends of every time the face was not seen."""
    times, rows = np.array(moments.times_s), np.array(moments.rows, np.float64)
    gaps = np.flatnonzero(moments.after_gap[1:])
    edges = np.concatenate([times[gaps] + 1e-6, times[gaps + 1] - 1e-6])
    order = np.concatenate([gaps + 1, gaps + 1])
    return np.insert(times, order, edges), np.insert(rows, order, 0.0, axis=0)


def _to_rgb(colour_bgr: tuple[int, ...]) -> tuple[float, ...]:
    return tuple(value / 255 for value in colour_bgr[::-1])
