# SPDX-License-Identifier: Apache-2.0
"""Tracks the faces of one camera: stable ids, smoothed probabilities, stable labels."""

import itertools
import secrets
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dan_ros import labels
from dan_ros.faces.head_pose import HeadPose
from dan_ros.tracking.config import TrackerConfig
from dan_ros.tracking.frame_clock import FrameClock
from dan_ros.tracking.smoother import Smoother
from dan_ros.tracking.tracker import BoxTracker
from dan_ros.types import NO_ATTENTION, Attention, Face, FaceExpression

PREFIX_LETTERS = 4  # random letters in front of the numbers of `unique_ids`


def unique_ids() -> Iterator[str]:
    """Yield face ids that differ from those of other nodes and runs, such as 'kqzd1'."""
    prefix = ''.join(secrets.choice(string.ascii_lowercase) for _ in range(PREFIX_LETTERS))
    return (f'{prefix}{number}' for number in itertools.count(1))


@dataclass(frozen=True)
class TrackedFace:
    """A face of one frame with its history.

    Attributes:
        face_id: stable while the face stays in view; starts with a letter.
        raw: result of this frame, not smoothed.
        probabilities: float32 [8], smoothed, with sum 1; all 0 if this frame was not classified.
        expression: canonical index of the label, or `labels.UNKNOWN`.
        time_ns: time of the frame on the camera's `FrameClock`, nanoseconds.
        attention: see `AttentionTracker`.
        pose: in the camera's optical frame; None if it is unknown.
    """

    face_id: str
    raw: FaceExpression
    probabilities: np.ndarray
    expression: int
    time_ns: int = 0
    attention: Attention = NO_ATTENTION
    pose: HeadPose | None = None

    @property
    def detection(self) -> Face:
        """Where the face is in this frame."""
        return self.raw.face

    @property
    def smoothed(self) -> FaceExpression:
        """The detection with its smoothed probabilities."""
        return replace(self.raw, probabilities=self.probabilities)

    @property
    def confidence(self) -> float:
        """Smoothed probability of the most likely class, [0, 1]; 0 if not classified."""
        return float(self.probabilities.max())


class FaceTracker:
    """Tracks the faces of one camera.

    Args:
        new_ids: source of ids for new faces. Trackers that share it never give the same id.

    Attributes:
        config: see `TrackerConfig`; may be replaced between two frames.
        boxes: boxes of the faces of the last frame, float [4] each.
        classified_boxes: those of the faces that were classified.
        clock: time of the frames, replaced when a new recording begins.
    """

    def __init__(self, new_ids: Iterator[str], config: TrackerConfig | None = None) -> None:
        self.config = config or TrackerConfig()
        self._new_ids = new_ids
        self._forget()
        self.boxes: list[np.ndarray] = []
        self.classified_boxes: list[np.ndarray] = []
        self._ids: list[str] = []

    def _forget(self) -> None:
        self._box_tracker = BoxTracker(self._new_ids)
        self._smoothers: dict[str, Smoother] = {}
        self.clock = FrameClock()

    def update(
        self, faces: Sequence[FaceExpression], stamp_ns: int, arrived_ns: int | None = None
    ) -> list[TrackedFace]:
        """Add one frame.

        Args:
            faces: faces of the frame.
            stamp_ns: time of the frame, nanoseconds. A new recording clears all tracks, see
                `FrameClock.is_restart`.
            arrived_ns: arrival time on a monotonic clock, nanoseconds; used while the stamps do not
                change.

        Returns:
            The faces in the same order, without those that have too few hits for an id.
        """
        self.boxes = [face.face.box_xyxy for face in faces]
        self.classified_boxes = [face.face.box_xyxy for face in faces if face.is_classified]
        if self.clock.is_restart(stamp_ns):
            self._forget()
        now_ns = self.clock.advance(stamp_ns, arrived_ns)
        self._box_tracker.config = self.config
        self._ids = self._box_tracker.update(self.boxes, now_ns)
        pairs = zip(self._ids, faces, strict=True)
        tracked = [self._smooth(face_id, face, now_ns) for face_id, face in pairs if face_id]
        alive = self.face_ids
        self._smoothers = {i: s for i, s in self._smoothers.items() if i in alive}
        return tracked

    def rescale(self, x: float, y: float) -> None:
        """Continue in images of another size; x and y are new pixels per old pixel."""
        scale = np.array([x, y, x, y], np.float32)
        self.boxes = [box * scale for box in self.boxes]
        self.classified_boxes = [box * scale for box in self.classified_boxes]
        self._box_tracker.rescale(x, y)

    @property
    def missing_boxes(self) -> list[np.ndarray]:
        """Possible positions of the faces that were missing in the last frame, float [4] each."""
        return [box for _, box in self._box_tracker.missing_boxes]

    @property
    def places(self) -> list[tuple[str, np.ndarray]]:
        """Id and box, float [4], of all faces of the last frame and of its missing faces.

        The id is '' for a face that has too few hits. The box of a missing face covers where it was
        and where it is expected.
        """
        found = zip(self._ids, self.boxes, strict=True)
        return [*found, *self._box_tracker.missing_boxes]

    @property
    def face_ids(self) -> set[str]:
        """Ids of the faces in view, and of missing faces that may come back."""
        return self._box_tracker.face_ids

    def _smooth(self, face_id: str, face: FaceExpression, now_ns: int) -> TrackedFace:
        if not face.is_classified:
            return TrackedFace(face_id, face, face.probabilities, labels.UNKNOWN, now_ns)
        smoother = self._smoothers.setdefault(face_id, Smoother())
        smoother.config = self.config
        return TrackedFace(face_id, face, *smoother.update(face.probabilities, now_ns), now_ns)
