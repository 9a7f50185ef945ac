"""Face ids that hold from frame to frame."""

import math
import statistics
from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

MAX_SIZE_RATIO = 2.0  # a face that seems to grow or shrink by more at once is another
VELOCITY_S = 0.15  # half-life of the past in a face's velocity
VELOCITY_MAX_S = 0.6  # a move that took longer says nothing of how a face goes on
COASTING_S = 1.5  # so long an unseen face is thought to move on as it did
DRIFT_PER_S = 1.0  # by so many of itself a second the tolerance for an unseen face grows,
MAX_DRIFT = 1.0  # and by so many in all, else a face long gone would take in strangers
PAUSE_INTERVALS = 4  # a camera that sends nothing for so many of its usual intervals pauses
TYPICAL_INTERVALS = 5  # the usual one is the median of so many


class _Place(NamedTuple):
    """Centre of a box and the root of its area, which is at least 1; pixels."""

    x: float
    y: float
    size: float


def _place_of(box_xyxy: np.ndarray) -> _Place:
    left, top, right, bottom = box_xyxy.tolist()
    size = (max(right - left, 0) * max(bottom - top, 0)) ** 0.5
    return _Place((left + right) / 2, (top + bottom) / 2, max(size, 1.0))


class _Track:
    """One face: where it was last seen, and how it moved. Places are centres, pixels.

    Attributes:
        face_id: '' while it is too new to have one.
        hits: frames it was found in.
        seen_s: time of the last of these.
        seen_frame: number of that frame; frames may have equal times.
        place: in that frame.

    Times are seconds that the camera watched, see `_Watch`. A few numbers a face are plain floats,
    which are quicker than arrays.
    """

    def __init__(self, place: _Place, now_s: float, frame: int) -> None:
        self.face_id = ''
        self.hits = 1
        self.seen_s, self.seen_frame = now_s, frame
        self.place = place
        self._velocity_x = self._velocity_y = 0.0  # pixels a second

    def follow(self, place: _Place, now_s: float, frame: int, is_pause: bool) -> None:
        """The face was found again; over a pause nobody knows how it came there."""
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

    def distance(self, place: _Place, now_s: float, is_missed: bool) -> float:
        """How far a box is from where this face is expected, in face sizes; inf if it can't be it.

        Args:
            place: of the box.
            now_s: time of the box.
            is_missed: whether the face was not in the frame before.
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


class _Watch:
    """Time in which a camera watched: it stands still while the camera pauses.

    Attributes:
        now_s: seconds, at the newest frame.
        is_pause: whether the camera paused between the two.
    """

    def __init__(self) -> None:
        self.now_s = 0.0
        self.is_pause = False
        self._intervals_s: deque[float] = deque(maxlen=TYPICAL_INTERVALS)

    def advance(self, seconds: float) -> None:
        """A frame came, so long after the last."""
        self._intervals_s.append(seconds)
        usual_s = statistics.median(self._intervals_s)
        self.is_pause = seconds > PAUSE_INTERVALS * usual_s
        self.now_s += usual_s if self.is_pause else seconds


class Tracker:
    """Gives each face of one camera an id, by place, size and movement.

    Args:
        new_ids: ids for new faces; trackers that share it never give the same id.

    Attributes:
        max_missed_s: a face that is missing in frames for longer gets a new id, seconds. While a
            camera pauses nobody is missing.
        max_distance: farthest a face may be from where it is expected, in face sizes.
        min_hits: a new face gets its id in the so-manieth frame in a row that it is found in.
    """

    def __init__(
        self,
        new_ids: Iterator[str],
        max_missed_s: float = 1.0,
        max_distance: float = 1.0,
        min_hits: int = 1,
    ) -> None:
        self.max_missed_s = max_missed_s
        self.max_distance = max_distance
        self.min_hits = min_hits
        self._new_ids = new_ids
        self._tracks: list[_Track] = []
        self._watch = _Watch()
        self._last_ns: int | None = None
        self._frame = 0  # number of the newest

    def update(self, boxes_xyxy: Sequence[np.ndarray], stamp_ns: int) -> list[str]:
        """Ids of the faces of one frame.

        Args:
            boxes_xyxy: [4] each, pixels.
            stamp_ns: the frame's time, nanoseconds. An earlier one than the last starts afresh: a
                bag loops, or a simulation was reset.

        Returns:
            One id a box, in their order; '' for a face that is too new to have one.
        """
        last_ns = stamp_ns if self._last_ns is None else self._last_ns
        if stamp_ns < last_ns:
            self._tracks, self._watch = [], _Watch()
        elif self._last_ns is not None:
            self._watch.advance((stamp_ns - last_ns) / 1e9)
        self._last_ns = stamp_ns
        self._frame += 1
        self._tracks = [track for track in self._tracks if self._may_come_back(track)]
        places = [_place_of(box) for box in boxes_xyxy]
        matches = self._match(places)
        ids = []
        for index, place in enumerate(places):
            track = matches.get(index)
            if track is None:
                track = _Track(place, self._watch.now_s, self._frame)
                self._tracks.append(track)
            else:
                track.follow(place, self._watch.now_s, self._frame, self._watch.is_pause)
            if not track.face_id and track.hits >= self.min_hits:
                track.face_id = next(self._new_ids)
            ids.append(track.face_id)
        return ids

    @property
    def face_ids(self) -> set[str]:
        """Ids that may still come back."""
        return {track.face_id for track in self._tracks if track.face_id}

    @property
    def misses_a_face(self) -> bool:
        """Whether a face that may come back was not in the last frame."""
        return any(track.seen_frame < self._frame for track in self._tracks)

    def _may_come_back(self, track: _Track) -> bool:
        # However long ago it was, a face that was in the last frame has not been missed yet.
        if not self._is_missed(track):
            return True
        missed_s = self._watch.now_s - track.seen_s
        return bool(track.face_id) and missed_s <= self.max_missed_s

    def _is_missed(self, track: _Track) -> bool:
        """Whether the face was not in the frame before."""
        return track.seen_frame < self._frame - 1

    def _match(self, places: Sequence[_Place]) -> dict[int, _Track]:
        """Pair the places of boxes with tracks, the nearest first."""
        distances = []
        for box_index, place in enumerate(places):
            for track_index, track in enumerate(self._tracks):
                distance = track.distance(place, self._watch.now_s, self._is_missed(track))
                if distance <= self.max_distance:
                    distances.append((distance, box_index, track_index))
        matches: dict[int, _Track] = {}
        taken: set[int] = set()
        for _, box_index, track_index in sorted(distances):
            if box_index not in matches and track_index not in taken:
                matches[box_index] = self._tracks[track_index]
                taken.add(track_index)
        return matches
