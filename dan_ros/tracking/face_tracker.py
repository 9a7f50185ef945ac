"""One camera's faces over time: the same id, steady probabilities, a label that holds."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dan_ros import labels
from dan_ros.tracking.smoother import Smoother
from dan_ros.tracking.tracker import Tracker
from dan_ros.types import FaceExpression, SearchHint

EQUAL_STAMPS = 3  # so many frames in a row with one stamp: the camera's driver sets none


@dataclass(frozen=True)
class TrackedFace:
    """A face of one frame, and what the frames before say of it.

    Attributes:
        face_id: stable while the face stays in view; starts with a letter.
        seen: what this frame alone says.
        probabilities: float32 [8], smoothed, sum 1; all 0 where this frame could not be judged.
        expression: canonical index of the label, or `labels.UNKNOWN`.
    """

    face_id: str
    seen: FaceExpression
    probabilities: np.ndarray
    expression: int

    @property
    def smoothed(self) -> FaceExpression:
        """The face with its smoothed probabilities, as to be drawn."""
        return replace(self.seen, probabilities=self.probabilities)

    @property
    def confidence(self) -> float:
        """Smoothed probability of the most likely class, [0, 1]; 0 when it was not judged."""
        return float(self.probabilities.max())


@dataclass(frozen=True)
class TrackerConfig:
    """How faces are followed.

    Attributes:
        max_missed_s, max_distance, min_hits: see `Tracker`.
        half_life_s, margin, min_confidence: see `Smoother`.
    """

    max_missed_s: float = 1.0
    max_distance: float = 1.0
    min_hits: int = 1
    half_life_s: float = 0.3
    margin: float = 0.05
    min_confidence: float = 0.35


class _Clock:
    """Time of a camera's frames: by their stamps, or, while those stand still, by their arrival.

    Attributes:
        now_ns: of the newest frame, nanoseconds; steps back when the stamps do.
        stands_still: whether the stamps do not move.
    """

    def __init__(self) -> None:
        self.now_ns = 0
        self._stamp_ns: int | None = None
        self._arrived_ns: int | None = None
        self._equal = 0
        self._ahead_ns = 0  # how far arrivals moved the time since the stamps last did

    @property
    def stands_still(self) -> bool:
        return self._equal >= EQUAL_STAMPS

    def read(self, stamp_ns: int, arrived_ns: int | None) -> int:
        """Time of the next frame."""
        step_ns = stamp_ns if self._stamp_ns is None else stamp_ns - self._stamp_ns
        self._equal = 1 if step_ns else self._equal + 1
        if self.stands_still and arrived_ns is not None and self._arrived_ns is not None:
            step_ns = max(arrived_ns - self._arrived_ns, 0)
            self._ahead_ns += step_ns
        elif step_ns:
            if step_ns > 0:  # coarse stamps move on at last, in part by what arrivals told before
                step_ns = max(step_ns - self._ahead_ns, 0)
            self._ahead_ns = 0
        self._stamp_ns, self._arrived_ns = stamp_ns, arrived_ns
        self.now_ns += step_ns
        return self.now_ns


class FaceTracker:
    """Follows the faces of one camera.

    Args:
        new_ids: ids for new faces; followers that share it never give the same id.

    Attributes:
        settings: may be replaced between two frames.
    """

    def __init__(self, new_ids: Iterator[str], settings: TrackerConfig | None = None) -> None:
        self.settings = settings or TrackerConfig()
        self._tracker = Tracker(new_ids)
        self._smoothers: dict[str, Smoother] = {}
        self._clock = _Clock()
        self._judged: list[np.ndarray] = []
        self._seen: list[np.ndarray] = []
        self._frames = 0

    def update(
        self, faces: Sequence[FaceExpression], stamp_ns: int, arrived_ns: int | None = None
    ) -> list[TrackedFace]:
        """Take in one frame.

        Args:
            faces: of the frame.
            stamp_ns: its time, nanoseconds. An earlier one than the last starts afresh.
            arrived_ns: when it came, by a clock that never steps back; tells the time where the
                stamps do not move.

        Returns:
            The faces in their order, without those too new to have an id (`min_hits`).
        """
        self._apply_settings()
        self._frames += 1
        self._judged = [face.face.box_xyxy for face in faces if face.is_judged]
        self._seen = [face.face.box_xyxy for face in faces]
        now_ns = self._clock.read(stamp_ns, arrived_ns)
        ids = self._tracker.update(self._seen, now_ns)
        pairs = zip(ids, faces, strict=True)
        followed = [self._follow(face_id, face, now_ns) for face_id, face in pairs if face_id]
        alive = self.face_ids
        self._smoothers = {i: s for i, s in self._smoothers.items() if i in alive}
        return followed

    def prior(self, interval: int = 1) -> SearchHint:
        """What is known before the next frame.

        Each `interval`-th is to be looked through whole, and each while a face that may come back
        is missing.
        """
        is_whole = self._frames % interval == 0 or self._tracker.misses_a_face
        return SearchHint(self._judged, () if is_whole else self._seen)

    @property
    def lacks_stamps(self) -> bool:
        """Whether the camera stamps its images all alike, so that their arrival tells the time."""
        return self._clock.stands_still

    @property
    def face_ids(self) -> set[str]:
        """Ids that may still come back."""
        return self._tracker.face_ids

    def _follow(self, face_id: str, face: FaceExpression, now_ns: int) -> TrackedFace:
        if not face.is_judged:
            return TrackedFace(face_id, face, face.probabilities, labels.UNKNOWN)
        smoother = self._smoothers.setdefault(face_id, Smoother())
        smoother.half_life_s = self.settings.half_life_s
        smoother.margin = self.settings.margin
        smoother.min_confidence = self.settings.min_confidence
        return TrackedFace(face_id, face, *smoother.update(face.probabilities, now_ns))

    def _apply_settings(self) -> None:
        self._tracker.max_missed_s = self.settings.max_missed_s
        self._tracker.max_distance = self.settings.max_distance
        self._tracker.min_hits = self.settings.min_hits
