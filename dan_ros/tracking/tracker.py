# SPDX-License-Identifier: Apache-2.0
"""Face ids: greedy nearest-neighbor association with constant-velocity prediction and gating."""

import math
import statistics
from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from dan_ros.tracking.config import TrackerConfig

MAX_SIZE_RATIO = 2.0  # largest ratio between a face's sizes in two frames
VELOCITY_S = 0.15  # half-life of past moves in a face's velocity, seconds
VELOCITY_MAX_S = 0.6  # longest interval from which a velocity is estimated, seconds
COASTING_S = 1.5  # longest time a missing face is assumed to keep its velocity, seconds
DRIFT_PER_S = 1.0  # growth of the gate of a missing face, in gate sizes per second
MAX_DRIFT = 1.0  # limit of that growth, so that a long-lost track does not capture other faces
PAUSE_INTERVALS = 4  # gap between two images that counts as a pause, in typical intervals
TYPICAL_INTERVALS = 5  # number of intervals whose median is the typical interval


class _Place(NamedTuple):
    """Center of a box and the square root of its area (at least 1), pixels."""

    x: float
    y: float
    size: float


def _place_of(box_xyxy: np.ndarray) -> _Place:
    left, top, right, bottom = box_xyxy.tolist()
    size = (max(right - left, 0) * max(bottom - top, 0)) ** 0.5
    return _Place((left + right) / 2, (top + bottom) / 2, max(size, 1.0))


class _Track:
    """One face with its last position and velocity.

    Plain floats instead of arrays: they are faster for a few numbers per face.

    Attributes:
        face_id: '' until the face has enough hits.
        box_xyxy: box in the last frame in which the face was found.
        hits: frames in which the face was found.
        seen_s: time of the last frame with the face on the `_StreamClock`, seconds.
        seen_frame: number of that frame, because several frames may have the same time.
        place: position of the face in that frame.
    """

    def __init__(self, box_xyxy: np.ndarray, place: _Place, now_s: float, frame: int) -> None:
        self.face_id = ''
        self.box_xyxy = box_xyxy
        self.hits = 1
        self.seen_s, self.seen_frame = now_s, frame
        self.place = place
        self._velocity_x = self._velocity_y = 0.0  # pixels per second

    def update(
        self, box_xyxy: np.ndarray, place: _Place, now_s: float, frame: int, is_pause: bool
    ) -> None:
        """Record where the face was found; a pause resets the velocity."""
        self.box_xyxy = box_xyxy
        seconds = now_s - self.seen_s
        if is_pause or seconds > VELOCITY_MAX_S:
            self._velocity_x = self._velocity_y = 0.0
        elif seconds > 0:
            past = 0.5 ** (seconds / VELOCITY_S)
            new = (1 - past) / seconds
            self._velocity_x = past * self._velocity_x + new * (place.x - self.place.x)
            self._velocity_y = past * self._velocity_y + new * (place.y - self.place.y)
        self.place, self.seen_s, self.seen_frame = place, now_s, frame
        self.hits += 1

    def rescale(self, x: float, y: float) -> None:
        """Continue in images of another size."""
        self.box_xyxy = self.box_xyxy * np.array([x, y, x, y], np.float32)
        self.place = _place_of(self.box_xyxy)
        self._velocity_x, self._velocity_y = x * self._velocity_x, y * self._velocity_y

    def path_box(self, now_s: float) -> np.ndarray:
        """Return the box around the last position of a missing face and its predicted one."""
        seconds = min(now_s - self.seen_s, COASTING_S)
        x, y = self._velocity_x * seconds, self._velocity_y * seconds
        moved = self.box_xyxy + np.array([x, y, x, y], np.float32)
        return np.concatenate(
            [np.minimum(self.box_xyxy, moved)[:2], np.maximum(self.box_xyxy, moved)[2:]]
        )

    def distance(self, place: _Place, now_s: float, is_missed: bool) -> float:
        """Return the distance from the predicted position, in face sizes.

        Args:
            place: position of a detected box.
            now_s: its time, seconds.
            is_missed: whether the face was missing in the previous frame.

        Returns:
            inf if the sizes differ too much for the same face.
        """
        smaller, larger = sorted((place.size, self.place.size))
        ratio = larger / smaller
        if ratio > MAX_SIZE_RATIO:
            return math.inf
        seconds = now_s - self.seen_s
        coasting_s = min(seconds, COASTING_S)
        away = math.hypot(
            place.x - self.place.x - self._velocity_x * coasting_s,
            place.y - self.place.y - self._velocity_y * coasting_s,
        )
        drift = min(DRIFT_PER_S * seconds, MAX_DRIFT) if is_missed else 0.0
        return away / larger / (1 + drift) + 0.5 * math.log(ratio)


class _StreamClock:
    """Clock that does not advance while the image stream is paused.

    Attributes:
        now_s: time of the newest frame, seconds.
        is_pause: whether the stream was paused before the newest frame.
    """

    def __init__(self) -> None:
        self.now_s = 0.0
        self.is_pause = False
        self._intervals_s: deque[float] = deque(maxlen=TYPICAL_INTERVALS)

    def advance(self, seconds: float) -> None:
        """Advance to a new frame, `seconds` after the last one."""
        self._intervals_s.append(seconds)
        typical_s = statistics.median(self._intervals_s)
        self.is_pause = seconds > PAUSE_INTERVALS * typical_s
        self.now_s += typical_s if self.is_pause else seconds


class BoxTracker:
    """Assigns ids to the face boxes of one camera.

    Args:
        new_ids: source of ids for new faces. Trackers that share it never give the same id.

    Attributes:
        config: `max_missed_s`, `max_distance` and `min_hits` apply; may be replaced between frames.
    """

    def __init__(self, new_ids: Iterator[str], config: TrackerConfig | None = None) -> None:
        self.config = config or TrackerConfig()
        self._new_ids = new_ids
        self._tracks: list[_Track] = []
        self._clock = _StreamClock()
        self._last_ns: int | None = None
        self._frame = 0  # number of the newest frame

    def update(self, boxes_xyxy: Sequence[np.ndarray], stamp_ns: int) -> list[str]:
        """Associate the boxes of one frame with the known faces.

        Args:
            boxes_xyxy: float [4] each, pixels.
            stamp_ns: time of the frame, nanoseconds, not before the last one.

        Returns:
            One id per box, in the same order; '' for a face that has too few hits.
        """
        self._advance(stamp_ns)
        self._tracks = [track for track in self._tracks if self._may_come_back(track)]
        places = [_place_of(box) for box in boxes_xyxy]
        matches = self._match(places)
        return [
            self._update_track(matches.get(index), box, place)
            for index, (box, place) in enumerate(zip(boxes_xyxy, places, strict=True))
        ]

    def rescale(self, x: float, y: float) -> None:
        """Continue in images of another size; x and y are new pixels per old pixel."""
        for track in self._tracks:
            track.rescale(x, y)

    @property
    def face_ids(self) -> set[str]:
        """Ids of the faces in view, and of missing faces that may come back."""
        return {track.face_id for track in self._tracks if track.face_id}

    @property
    def missing_boxes(self) -> list[tuple[str, np.ndarray]]:
        """Id, or '' for too few hits, and box, float [4], of the faces missing in the last frame.

        A box covers where the face was and where it is expected.
        """
        now_s = self._clock.now_s
        return [
            (track.face_id, track.path_box(now_s))
            for track in self._tracks
            if track.seen_frame < self._frame
        ]

    def _advance(self, stamp_ns: int) -> None:
        if self._last_ns is not None:
            self._clock.advance((stamp_ns - self._last_ns) / 1e9)
        self._last_ns = stamp_ns
        self._frame += 1

    def _update_track(self, track: _Track | None, box_xyxy: np.ndarray, place: _Place) -> str:
        """Update the track of a box, or start a new one; return its id."""
        now_s, frame = self._clock.now_s, self._frame
        if track is None:
            track = _Track(box_xyxy, place, now_s, frame)
            self._tracks.append(track)
        else:
            track.update(box_xyxy, place, now_s, frame, self._clock.is_pause)
        if not track.face_id and track.hits >= self.config.min_hits:
            track.face_id = next(self._new_ids)
        return track.face_id

    def _may_come_back(self, track: _Track) -> bool:
        # A face found in the last frame is not missing yet, however long ago that frame was.
        if not self._is_missed(track):
            return True
        missed_s = self._clock.now_s - track.seen_s
        return bool(track.face_id) and missed_s <= self.config.max_missed_s

    def _is_missed(self, track: _Track) -> bool:
        """Whether the face was missing in the previous frame."""
        return track.seen_frame < self._frame - 1

    def _match(self, places: Sequence[_Place]) -> dict[int, _Track]:
        """Pair boxes with tracks, the nearest pair first; returns tracks by index of the box."""
        distances = []
        for box_index, place in enumerate(places):
            for track_index, track in enumerate(self._tracks):
                distance = track.distance(place, self._clock.now_s, self._is_missed(track))
                if distance <= self.config.max_distance:
                    distances.append((distance, box_index, track_index))
        matches: dict[int, _Track] = {}
        taken: set[int] = set()
        for _, box_index, track_index in sorted(distances):
            if box_index not in matches and track_index not in taken:
                matches[box_index] = self._tracks[track_index]
                taken.add(track_index)
        return matches
