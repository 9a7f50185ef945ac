# SPDX-License-Identifier: Apache-2.0
"""Events: scripted scenes give exactly one event for each change."""

import itertools

import numpy as np
import pytest
from heads import PINHOLE, SIZE, Head

from dan_ros import labels
from dan_ros.tracking.attention import AttentionTracker
from dan_ros.tracking.debounce import Change, Debounced
from dan_ros.tracking.events import (
    EventConfig,
    EventDetector,
    EventKind,
    FaceState,
    dominant_expression,
)
from dan_ros.tracking.face_tracker import FaceTracker
from dan_ros.types import Attention, Face, FaceExpression

NEUTRAL, HAPPY, SAD = 0, 1, 2
HZ = 30
APPEARED, LEFT, EXPRESSION_CHANGED, STARTED_LOOKING, STOPPED_LOOKING = EventKind


class Stage:
    """Plays scripted faces through tracker, attention and events, as the node does."""

    def __init__(self, config: EventConfig | None = None, hz: float = HZ) -> None:
        self._tracker = FaceTracker(f'f{number}' for number in itertools.count(1))
        self._attention = AttentionTracker()
        self.detector = EventDetector(config)
        self._rng = np.random.default_rng(0)
        self._hz = hz
        self._next_ns = 10**18
        self.events = []

    def play(self, seconds: float, *faces: tuple[float, str | None, float]) -> list:
        """Show faces for some time: (place in meters to the right, expression, yaw in degrees).

        Returns:
            (kind, face id) of each event during this time.
        """
        before = len(self.events)
        for _ in range(round(seconds * self._hz)):
            seen = [self._face(*face) for face in faces]
            tracked = self._tracker.update(seen, self._next_ns)
            ids = self._tracker.face_ids
            tracked = self._attention.update(tracked, ids, PINHOLE, SIZE)
            self.events += self.detector.update(tracked, ids)
            self._next_ns += round(1e9 / self._hz)
        return [(event.kind, event.state.face_id) for event in self.events[before:]]

    def step_back(self, seconds: float) -> None:
        """Continue with an earlier stamp, as a bag in a loop does."""
        self._next_ns -= round(seconds * 1e9)

    def _face(self, x: float, expression: str | None, yaw_deg: float) -> FaceExpression:
        head = Head(yaw_deg, 0, 0, (x, 0, 1.0))
        points = head.landmarks(self._rng, noise_px=0.7).astype(np.float32)
        center = PINHOLE.matrix[0, 2] + x * PINHOLE.matrix[0, 0]
        box = np.float32([center - 40, 190, center + 40, 300])
        p = np.zeros(8, np.float32)
        if expression is not None:
            p[:] = self._rng.uniform(0, 0.1, 8)
            p[labels.CANONICAL.index(expression)] = 1
            p /= p.sum()
        return FaceExpression(Face(box, 0.9, points), p)


def test_a_visit_gives_one_event_for_each_change():
    stage = Stage()
    assert stage.play(1) == []
    assert stage.play(2, (0, 'neutral', 0)) == [
        (APPEARED, 'f1'), (EXPRESSION_CHANGED, 'f1'), (STARTED_LOOKING, 'f1'),
    ]  # fmt: skip
    assert stage.play(2, (0, 'happy', 0)) == [(EXPRESSION_CHANGED, 'f1')]
    assert stage.play(2, (0, 'happy', 50)) == [(STOPPED_LOOKING, 'f1')]
    assert stage.play(2, (0, 'happy', 0)) == [(STARTED_LOOKING, 'f1')]
    assert stage.play(2) == [(LEFT, 'f1')]
    assert stage.play(1) == []


def test_an_event_tells_what_was_before_how_long_and_how_sure():
    stage = Stage()
    stage.play(3, (0, 'neutral', 0))
    stage.play(2, (0, 'happy', 0))
    stage.play(2, (0, 'happy', 50))
    stage.play(2)
    appeared, neutral, looks, happy, away, left = stage.events
    assert (appeared.state.expression, appeared.lasted_s) == (labels.UNKNOWN, 0)
    assert not appeared.state.attention.is_looking
    assert appeared.state.detection_confidence == pytest.approx(0.9)
    assert (neutral.previous_expression, neutral.state.expression) == (labels.UNKNOWN, NEUTRAL)
    assert (happy.previous_expression, happy.state.expression) == (NEUTRAL, HAPPY)
    assert happy.lasted_s == pytest.approx(3.1, abs=0.2)  # the smoothed label lags
    assert happy.state.confidence > 0.6
    assert happy.state.expression_s == pytest.approx(0.3, abs=0.05)
    assert looks.state.attention.is_looking
    assert looks.state.attention.score > 0.8
    assert away.lasted_s == pytest.approx(5, abs=0.3)
    assert away.state.attention.score < 0.3
    assert left.lasted_s == pytest.approx(7, abs=0.1)
    assert (left.state.expression, left.state.attention.is_looking) == (HAPPY, False)


def test_short_changes_are_no_events():
    stage = Stage()
    stage.play(2, (0, 'neutral', 0))
    for _ in range(5):
        assert stage.play(0.15, (0, 'happy', 50)) == []  # a glance and a twitch
        assert stage.play(1, (0, 'neutral', 0)) == []
        assert stage.play(0.5) == []  # a detection that fails for a while
        assert stage.play(1, (0, 'neutral', 0)) == []


def test_a_face_that_cannot_be_classified_keeps_its_expression():
    """A head that turns far away and back has shown no new expression."""
    stage = Stage()
    assert stage.play(1, (0, None, 0)) == [(APPEARED, 'f1'), (STARTED_LOOKING, 'f1')]
    assert stage.play(2, (0, 'happy', 0)) == [(EXPRESSION_CHANGED, 'f1')]
    assert stage.play(3, (0, None, 60)) == [(STOPPED_LOOKING, 'f1')]
    (state,) = stage.detector.states
    assert (state.expression, state.confidence) == (HAPPY, 0)
    assert stage.play(2, (0, 'happy', 0)) == [(STARTED_LOOKING, 'f1')]
    stage.play(1, (0, None, 60))
    assert (EXPRESSION_CHANGED, 'f1') in stage.play(2, (0, 'sad', 0))
    changed = [event for event in stage.events if event.kind == EXPRESSION_CHANGED]
    assert changed[-1].previous_expression == HAPPY


@pytest.mark.parametrize('hz', [5, 15, 60])
def test_the_frame_rate_does_not_matter(hz):
    stage = Stage(hz=hz)
    stage.play(2, (0, 'neutral', 0))
    stage.play(2, (0, 'happy', 50))
    stage.play(2, (0, 'neutral', 0))
    stage.play(3)
    counts = [sum(event.kind == kind for event in stage.events) for kind in EventKind]
    assert counts == [1, 1, 3, 2, 1]


def test_four_faces_have_their_own_events():
    stage = Stage()
    places = (-0.36, -0.12, 0.12, 0.36)
    stage.play(2, *((x, 'neutral', 0) for x in places))
    happened = stage.play(
        2, *((x, 'happy', 50) for x in places[:2]), *((x, 'neutral', 0) for x in places[2:])
    )
    ids = sorted({face_id for _, face_id in happened})
    assert len(ids) == 2
    assert sorted(happened) == sorted(itertools.product((EXPRESSION_CHANGED, STOPPED_LOOKING), ids))
    assert len(stage.detector.states) == 4
    assert dominant_expression(stage.detector.states[:3]) == HAPPY


def test_everybody_leaves_once_when_the_images_end():
    stage = Stage()
    stage.play(2, (-0.2, 'neutral', 0), (0.2, 'neutral', 0))
    ended = stage.detector.end()
    assert [(event.kind, event.state.face_id) for event in ended] == [(LEFT, 'f1'), (LEFT, 'f2')]
    assert ended[0].lasted_s == pytest.approx(2, abs=0.05)
    assert stage.detector.end() == stage.detector.states == []
    # The same person before the same camera, after a pause: the id is kept.
    assert stage.play(1, (-0.2, 'neutral', 0))[:1] == [(APPEARED, 'f1')]


def test_a_reset_of_the_tracks_is_one_departure_and_one_arrival():
    stage = Stage()
    stage.play(3, (0, 'neutral', 0))
    stage.step_back(3)
    happened = stage.play(1, (0, 'neutral', 0))
    assert happened[:2] == [(LEFT, 'f1'), (APPEARED, 'f2')]
    assert [kind for kind, _ in happened[2:]] == [EXPRESSION_CHANGED, STARTED_LOOKING]
    left = next(event for event in stage.events if event.kind == LEFT)
    assert left.lasted_s == pytest.approx(3, abs=0.05)


def test_the_shortest_duration_is_obeyed():
    assert len(Stage(EventConfig(min_duration_s=0)).play(0.1, (0, 'happy', 0))) == 2
    slow = Stage(EventConfig(min_duration_s=2))
    assert EXPRESSION_CHANGED not in dict(slow.play(1.9, (0, 'happy', 0)))
    assert slow.play(0.3, (0, 'happy', 0)) == [(EXPRESSION_CHANGED, 'f1')]


def state(expression: int, confidence: float) -> FaceState:
    return FaceState('f1', expression, confidence, 0.9, Attention(), 1.0, 1.0)


def test_the_dominant_expression_is_the_most_frequent_one():
    few = [state(SAD, 0.9), state(HAPPY, 0.5), state(HAPPY, 0.5)]
    assert dominant_expression(few) == HAPPY
    assert dominant_expression(few[:2]) == SAD  # the surer one
    assert dominant_expression([state(labels.UNKNOWN, 0), state(SAD, 0.4)]) == SAD
    assert dominant_expression([state(labels.UNKNOWN, 0)]) == labels.UNKNOWN
    assert dominant_expression([]) == labels.UNKNOWN


def test_a_value_changes_once_another_has_lasted():
    value = Debounced('a', 0)
    changes = [value.update(v, t * 10**9, 2) for t, v in enumerate('aabbab' + 'cccc')]
    assert [change for change in changes if change] == [Change('a', 6.0)]
    assert (value.value, value.since_ns, value.lasted_s(9 * 10**9)) == ('c', 6 * 10**9, 3.0)


def test_the_kinds_are_the_constants_of_the_message():
    event = pytest.importorskip('dan_ros.msg').FacialExpressionEvent
    assert {kind.name: int(kind) for kind in EventKind} == {
        name: getattr(event, name) for name in EventKind.__members__
    }
