"""Face ids that hold from frame to frame."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass
class _Track:
    face_id: str
    box_xyxy: np.ndarray
    seen_ns: int


class Tracker:
    """Gives each face of one camera an id, by overlap with where it was last seen.

    Args:
        new_ids: ids for new faces; trackers that share it never give the same id.

    Attributes:
        max_missed_s: a face that is missing in frames for longer gets a new id, seconds.
        min_iou: least intersection over union with the last box for it to be the same face, [0, 1].
    """

    def __init__(
        self, new_ids: Iterator[str], max_missed_s: float = 1.0, min_iou: float = 0.1
    ) -> None:
        self.max_missed_s = max_missed_s
        self.min_iou = min_iou
        self._new_ids = new_ids
        self._tracks: list[_Track] = []
        self._last_ns: int | None = None

    def update(self, boxes_xyxy: Sequence[np.ndarray], stamp_ns: int) -> list[str]:
        """Ids of the faces of one frame.

        Args:
            boxes_xyxy: [4] each, pixels.
            stamp_ns: the frame's time, nanoseconds. An earlier one than the last starts afresh: a
                bag loops, or a simulation was reset.

        Returns:
            One id a box, in their order.
        """
        last_ns = stamp_ns if self._last_ns is None else self._last_ns
        if stamp_ns < last_ns:
            self._tracks = []
        # However long ago it was, a face that was in the last frame has not been missed yet.
        oldest_ns = min(stamp_ns - round(self.max_missed_s * 1e9), last_ns)
        self._last_ns = stamp_ns
        self._tracks = [track for track in self._tracks if track.seen_ns >= oldest_ns]
        matches = self._match(boxes_xyxy)
        ids = []
        for index, box in enumerate(boxes_xyxy):
            track = matches.get(index)
            if track is None:
                track = _Track(next(self._new_ids), box, stamp_ns)
                self._tracks.append(track)
            track.box_xyxy, track.seen_ns = box, stamp_ns
            ids.append(track.face_id)
        return ids

    def _match(self, boxes_xyxy: Sequence[np.ndarray]) -> dict[int, _Track]:
        """Pair boxes with tracks, the largest overlap first."""
        overlaps = [
            (overlap, box_index, track_index)
            for box_index, box in enumerate(boxes_xyxy)
            for track_index, track in enumerate(self._tracks)
            if (overlap := intersection_over_union(box, track.box_xyxy)) >= self.min_iou
        ]
        matches: dict[int, _Track] = {}
        taken: set[int] = set()
        for _, box_index, track_index in sorted(overlaps, key=lambda entry: -entry[0]):
            if box_index not in matches and track_index not in taken:
                matches[box_index] = self._tracks[track_index]
                taken.add(track_index)
        return matches


def intersection_over_union(a: np.ndarray, b: np.ndarray) -> float:
    """Of two boxes [4] as left, top, right, bottom; 0 where they don't meet.

    >>> intersection_over_union(np.array([0, 0, 2, 2]), np.array([1, 0, 3, 2]))
    0.3333333333333333
    """
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = float(width * height)
    areas = float((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]))
    return shared / (areas - shared)
