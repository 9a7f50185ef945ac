# SPDX-License-Identifier: Apache-2.0
"""Turns the tracked faces of one camera into events: one for each change."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum

from dan_ros import labels
from dan_ros.tracking.debounce import Debounced
from dan_ros.tracking.face_tracker import TrackedFace
from dan_ros.types import Attention


class EventKind(IntEnum):
    """What happened; the numbers are the constants of FacialExpressionEvent.msg."""

    APPEARED = 0
    LEFT = 1
    EXPRESSION_CHANGED = 2
    STARTED_LOOKING = 3
    STOPPED_LOOKING = 4


@dataclass(frozen=True)
class EventConfig:
    """Settings of an `EventDetector`."""

    min_duration_s: float = 0.3  # how long a new expression must last before it counts, seconds


@dataclass(frozen=True)
class FaceState:
    """What is known about a face in view, as of the last image with it."""

    face_id: str  # see `TrackedFace`
    # Canonical index of the last expression that lasted long enough; `labels.UNKNOWN` before the
    # first.
    expression: int
    # Present smoothed probability of that expression, [0, 1]; 0 if the face was not classified.
    confidence: float
    detection_confidence: float  # confidence of the detector, [0, 1]
    attention: Attention  # see `Attention`
    in_view_s: float  # time since the face appeared, seconds
    expression_s: float  # how long the expression has lasted, seconds


@dataclass(frozen=True)
class FaceEvent:
    """One change of one face."""

    kind: EventKind  # what happened
    state: FaceState  # state of the face after the change; for LEFT, when it was last seen
    # Canonical index of the expression before an EXPRESSION_CHANGED; otherwise of the present one.
    previous_expression: int
    # How long the previous state lasted, seconds: for LEFT, the time in view; for
    # EXPRESSION_CHANGED, the previous expression; for STARTED_LOOKING and STOPPED_LOOKING, the time
    # not looking or looking; 0 for APPEARED.
    lasted_s: float


class EventDetector:
    """Detects the changes of the faces of one camera.

    A face appears with its first image, with an unknown expression and not looking, so that every
    expression and every look has its own event. It leaves when its track ends. If it comes back
    before that, with the same id, there is no event.

    Unknown does not count as an expression: while a face cannot be classified, it keeps the last
    one. So a face that turns away and back does not change its expression.

    Attributes:
        config: see `EventConfig`; may be replaced between two frames.

    Example:
        >>> EventDetector().update([], face_ids=set())
        []
    """

    def __init__(self, config: EventConfig | None = None) -> None:
        self.config = config or EventConfig()
        self._faces: dict[str, _FaceHistory] = {}

    @property
    def states(self) -> list[FaceState]:
        """Faces in view, in the order in which they appeared."""
        return [history.state for history in self._faces.values()]

    def update(self, faces: Sequence[TrackedFace], face_ids: set[str]) -> list[FaceEvent]:
        """Add one frame.

        `face_ids` are the ids in view, and of missing faces that may come back.

        Returns:
            The events in the order in which they happened.
        """
        events = self._end(self._faces.keys() - face_ids)
        for face in faces:
            if face.face_id not in self._faces:
                history = self._faces[face.face_id] = _FaceHistory(face)
                events.append(history.event(EventKind.APPEARED, 0.0))
            events += self._faces[face.face_id].update(face, self.config.min_duration_s)
        return events

    def end(self) -> list[FaceEvent]:
        """Remove all faces, because no more images arrive."""
        return self._end(set(self._faces))

    def _end(self, face_ids: Iterable[str]) -> list[FaceEvent]:
        gone = [(i, self._faces.pop(i)) for i in list(self._faces) if i in face_ids]
        return [history.event(EventKind.LEFT, history.state.in_view_s) for _, history in gone]


class _FaceHistory:
    """One face in view."""

    def __init__(self, face: TrackedFace) -> None:
        self._first_ns = face.time_ns
        self._expression = Debounced(labels.UNKNOWN, face.time_ns)
        self._is_looking = False
        self._looking_changed_ns = face.time_ns
        self.state = self._state_of(face, Attention(face.attention.score))

    def update(self, face: TrackedFace, min_duration_s: float) -> list[FaceEvent]:
        """Add the face of one frame; return what changed."""
        change = None
        if face.expression != labels.UNKNOWN:
            change = self._expression.update(face.expression, face.time_ns, min_duration_s)
        self.state = self._state_of(face, face.attention)
        events = []
        if change is not None:
            events.append(
                FaceEvent(
                    EventKind.EXPRESSION_CHANGED, self.state, change.previous, change.lasted_s
                )
            )
        if face.attention.is_looking != self._is_looking:
            events.append(self._look(face))
        return events

    def event(self, kind: EventKind, lasted_s: float) -> FaceEvent:
        """Return an event that does not change the expression."""
        return FaceEvent(kind, self.state, self.state.expression, lasted_s)

    def _look(self, face: TrackedFace) -> FaceEvent:
        since_ns = face.time_ns - round(face.attention.seconds * 1e9)
        lasted_s = (since_ns - self._looking_changed_ns) / 1e9
        self._is_looking, self._looking_changed_ns = face.attention.is_looking, since_ns
        kind = EventKind.STARTED_LOOKING if self._is_looking else EventKind.STOPPED_LOOKING
        return self.event(kind, max(lasted_s, 0.0))

    def _state_of(self, face: TrackedFace, attention: Attention) -> FaceState:
        expression = self._expression.value
        is_known = expression != labels.UNKNOWN
        return FaceState(
            face_id=face.face_id,
            expression=expression,
            confidence=float(face.probabilities[expression]) if is_known else 0.0,
            detection_confidence=face.detection.score,
            attention=attention,
            in_view_s=(face.time_ns - self._first_ns) / 1e9,
            expression_s=self._expression.lasted_s(face.time_ns),
        )


def dominant_expression(states: Iterable[FaceState]) -> int:
    """Return the canonical index of the expression that most faces show.

    Of two that are equally frequent, the one with the higher sum of confidences counts.

    Returns:
        `labels.UNKNOWN` if no face has a known expression.
    """
    known = [state for state in states if state.expression != labels.UNKNOWN]
    counts = Counter(state.expression for state in known)
    sums = {e: sum(s.confidence for s in known if s.expression == e) for e in counts}
    return max(counts, key=lambda e: (counts[e], sums[e]), default=labels.UNKNOWN)
