# SPDX-License-Identifier: Apache-2.0
"""Smoothing of probabilities and labels, and the tracking of faces over time."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dan_ros import labels
from dan_ros.tracking.config import TrackerConfig
from dan_ros.tracking.face_tracker import FaceTracker
from dan_ros.tracking.frame_clock import FrameClock
from dan_ros.tracking.smoother import FIRST_S, Smoother
from dan_ros.types import Face, FaceExpression

SECOND = 1_000_000_000
NEUTRAL, HAPPY, SAD = 0, 1, 2


def probabilities(**shares: float) -> np.ndarray:
    """float32 [8] with the given shares; the rest is anger."""
    row = np.zeros(8, np.float32)
    for label, share in shares.items():
        row[labels.CANONICAL.index(label)] = share
    row[6] += 1 - row.sum()
    return row


def new_smoother(
    half_life_s: float = 0.3, margin: float = 0.05, min_confidence: float = 0.0
) -> Smoother:
    return Smoother(
        TrackerConfig(half_life_s=half_life_s, margin=margin, min_confidence=min_confidence)
    )


def play(smoother: Smoother, frames, hz: float, start_s: float = 0.0):
    """Feed frames at a rate; return probabilities [N, 8] and labels."""
    stamps = [round((start_s + step / hz) * SECOND) for step in range(len(frames))]
    results = [smoother.update(f, stamp) for f, stamp in zip(frames, stamps, strict=True)]
    return np.array([p for p, _ in results]), [label for _, label in results]


def test_weights_halve_every_half_life():
    smoother = new_smoother(half_life_s=0.5)
    play(smoother, [probabilities(happy=1)] * 100, hz=10)  # up to 9.9 s
    (steady, *_), _ = play(smoother, [probabilities(sad=1)] * 2, hz=2, start_s=10.4)
    assert steady[HAPPY] == pytest.approx(0.5, abs=1e-3)  # one half-life after the last smile
    (later,), _ = play(smoother, [probabilities(sad=1)], hz=1, start_s=11.4)
    assert later[HAPPY] == pytest.approx(0.125, abs=1e-3)


def test_the_first_frame_is_not_smoothed():
    p, label = new_smoother().update(probabilities(happy=0.7), 5)
    np.testing.assert_allclose(p, probabilities(happy=0.7), rtol=1e-6)
    assert label == HAPPY


def test_the_first_frame_has_little_weight():
    """The label follows a bad first frame, but a few good frames outweigh it."""
    smoother = new_smoother(half_life_s=1.0)
    frames = [probabilities(sad=1)] + [probabilities(happy=1)] * 10
    p, found = play(smoother, frames, hz=30)
    first = 1 - 0.5**FIRST_S
    rest = 1 - 0.5 ** (10 / 30)
    expected = rest / (rest + first * 0.5 ** (10 / 30))
    assert p[-1][HAPPY] == pytest.approx(expected, rel=1e-5)
    assert found[0] == SAD
    assert found[-1] == HAPPY


@pytest.mark.parametrize('hz', [4, 7.5, 15, 30, 60])
def test_frame_rate_does_not_matter(hz):
    """A second of sadness after ten seconds of a smile has the same effect at any rate."""
    smoother = new_smoother(half_life_s=0.4)
    play(smoother, [probabilities(happy=1)] * round(10 * hz), hz=hz, start_s=1 / hz)
    p, _ = play(smoother, [probabilities(sad=1)] * round(hz), hz=hz, start_s=10 + 1 / hz)
    seconds = round(hz) / hz
    assert p[-1][HAPPY] == pytest.approx(0.5 ** (seconds / 0.4), rel=1e-3)


@settings(max_examples=200)
@given(
    hz=st.floats(2, 60),
    half_life_s=st.floats(0.1, 2),
    usual=st.floats(0.40, 0.9),
    outlier=st.integers(0, 7),
    at=st.integers(1, 15),
)
def test_one_frame_alone_never_changes_the_label(hz, half_life_s, usual, outlier, at):
    frames = [probabilities(happy=usual, neutral=(1 - usual) * 0.6)] * 30
    frames[at] = np.eye(8, dtype=np.float32)[outlier]
    _, found = play(new_smoother(half_life_s), frames, hz)
    assert set(found) == {HAPPY}


DEFAULTS = TrackerConfig()


def default_smoother() -> Smoother:
    return Smoother(DEFAULTS)


def spread(label: int, share: float) -> np.ndarray:
    """float32 [8] with the given share; the others share the rest equally."""
    row = np.full(8, (1 - share) / 7, np.float32)
    row[label] = share
    return row


@settings(max_examples=300)
@given(
    hz=st.floats(1, 60),
    usual=st.floats(0.2, 0.99).filter(lambda share: abs(share - DEFAULTS.min_confidence) > 1e-3),
    outlier=st.lists(st.floats(0.001, 1), min_size=8, max_size=8),
    at=st.integers(1, 15),
)
def test_by_default_one_frame_alone_never_changes_the_label_nor_makes_it_unknown(
    hz, usual, outlier, at
):
    frames = [spread(HAPPY, usual)] * 30
    frames[at] = np.array(outlier, np.float32) / sum(outlier)
    _, found = play(default_smoother(), frames, hz)
    assert set(found) == {HAPPY if usual > DEFAULTS.min_confidence else labels.UNKNOWN}


@settings(max_examples=200)
@given(hz=st.floats(5, 60), before=st.floats(0.45, 0.95), after=st.floats(0.45, 0.99))
def test_by_default_a_change_shows_within_two_half_lives_and_is_never_unknown(hz, before, after):
    if after < before - 0.45:
        return  # a clear expression outweighs an unclear one for longer
    smoother = default_smoother()
    play(smoother, [spread(HAPPY, before)] * round(3 * hz), hz)
    frames = [spread(SAD, after)] * (round(2 * hz) + 2)
    _, found = play(smoother, frames, hz, start_s=round(3 * hz) / hz)
    change = found.index(SAD)
    assert change / hz <= 2 * DEFAULTS.half_life_s
    assert set(found[:change]) <= {HAPPY}
    assert set(found[change:]) == {SAD}


def test_an_unclear_face_becomes_unknown_until_it_is_clear_again():
    smoother = default_smoother()
    play(smoother, [spread(HAPPY, 0.8)] * 30, hz=15)
    _, found = play(smoother, [spread(HAPPY, 0.2)] * 30, hz=15, start_s=2)
    assert found[-1] == labels.UNKNOWN
    assert sum(a != b for a, b in itertools.pairwise(found)) == 1
    _, found = play(smoother, [spread(SAD, 0.6)] * 30, hz=15, start_s=4)
    assert found[-1] == SAD
    assert found.index(SAD) / 15 <= 2 * DEFAULTS.half_life_s


@settings(max_examples=200)
@given(hz=st.floats(5, 60), half_life_s=st.floats(0.2, 2), share=st.floats(0.55, 1))
def test_a_real_change_shows_within_two_half_lives_and_once(hz, half_life_s, share):
    if 2 * half_life_s * hz < 3:
        return  # one frame looks like an outlier
    before = [probabilities(happy=share)] * round(6 * half_life_s * hz)
    after = [probabilities(sad=share)] * (round(4 * half_life_s * hz) + 2)
    smoother = new_smoother(half_life_s)
    play(smoother, before, hz)
    _, found = play(smoother, after, hz, start_s=len(before) / hz)
    change = found.index(SAD)
    assert (change + 1) / hz <= 2 * half_life_s + 1 / hz
    assert set(found[change:]) == {SAD}
    assert set(found[:change]) <= {HAPPY}


def test_a_face_between_two_classes_keeps_its_label():
    rng = np.random.default_rng(0)
    frames = [probabilities(happy=h, neutral=0.9 - h) for h in rng.normal(0.45, 0.08, 300)]
    _, found = play(new_smoother(0.3), frames, hz=30)
    raw = [int(frame.argmax()) for frame in frames]
    changes = sum(a != b for a, b in itertools.pairwise(found))
    assert sum(a != b for a, b in itertools.pairwise(raw)) > 100
    assert changes <= 6


def test_a_label_without_support_does_not_stay():
    """Consecutive frames disagree, but none of them shows sadness."""
    smoother = new_smoother(0.3)
    play(smoother, [probabilities(sad=0.9)] * 10, hz=10)
    turns = [probabilities(happy=0.6, neutral=0.3), probabilities(happy=0.3, neutral=0.6)]
    _, found = play(smoother, turns * 10, hz=10, start_s=1)
    assert SAD in found
    assert found[-1] in {HAPPY, NEUTRAL}
    assert SAD not in found[7:]


def test_unknown_does_not_flicker_at_the_threshold():
    frames = [probabilities(happy=0.5 + (0.02 if step % 2 else -0.02)) for step in range(60)]
    frames = [np.float32([f[1], f[1], 0, 0, 0, 0, 0, 0]) / 2 + 0.0625 for f in frames]
    smoother = new_smoother(0.05, margin=0.05, min_confidence=float(frames[0].max()) + 0.005)
    _, found = play(smoother, frames, hz=30)
    assert sum(a != b for a, b in itertools.pairwise(found)) <= 1


def test_below_the_threshold_is_unknown():
    _, label = new_smoother(min_confidence=0.8).update(probabilities(happy=0.7), 0)
    assert label == labels.UNKNOWN


def test_a_half_life_of_zero_turns_smoothing_off():
    frames = [probabilities(happy=1), probabilities(sad=1), probabilities(happy=1)]
    p, found = play(new_smoother(half_life_s=0), frames, hz=30)
    np.testing.assert_array_equal(p, frames)
    assert found == [HAPPY, SAD, HAPPY]


@settings(max_examples=100)
@given(
    st.lists(
        st.tuples(st.integers(0, 10**10), st.lists(st.floats(0.01, 1), min_size=8, max_size=8)),
        min_size=1,
        max_size=20,
    )
)
def test_smoothed_probabilities_sum_to_one(steps):
    smoother, stamp = new_smoother(), 0
    for gap_ns, weights in steps:
        stamp += gap_ns
        p, label = smoother.update(np.array(weights) / sum(weights), stamp)
        assert p.sum() == pytest.approx(1, abs=1e-5)
        assert (p >= 0).all()
        assert label in range(8)


# --- tracking -----------------------------------------------------------------------------------


def face(x: float, **shares: float) -> FaceExpression:
    box = np.array([x, 100, x + 80, 200], np.float32)
    row = probabilities(**shares) if shares else np.zeros(8, np.float32)
    return FaceExpression(Face(box, 0.9, np.zeros((5, 2), np.float32)), row)


def new_tracker(**options: float) -> FaceTracker:
    ids = (f'f{number}' for number in itertools.count(1))
    return FaceTracker(ids, TrackerConfig(**options))


def test_each_face_has_its_own_history():
    tracker = new_tracker()
    for step in range(30):
        found = tracker.update([face(0, happy=0.8), face(300, sad=0.8)], step * SECOND // 30)
    assert [f.expression for f in found] == [HAPPY, SAD]
    swapped = tracker.update([face(300, sad=0.8), face(0, happy=0.8)], SECOND)
    assert [f.face_id for f in swapped] == ['f2', 'f1']
    assert [f.expression for f in swapped] == [SAD, HAPPY]


def test_an_outlier_changes_only_the_raw_probabilities():
    tracker = new_tracker()
    for step in range(30):
        tracker.update([face(0, happy=0.8)], step * SECOND // 30)
    (found,) = tracker.update([face(0, sad=0.9)], SECOND)
    assert found.expression == HAPPY
    assert found.raw.probabilities.argmax() == SAD
    assert found.probabilities.argmax() == HAPPY
    assert found.confidence == found.probabilities.max()


def test_a_rejected_face_is_unknown_and_keeps_its_history():
    tracker = new_tracker()
    for step in range(30):
        tracker.update([face(0, happy=0.8)], step * SECOND // 30)
    (blurred,) = tracker.update([face(0)], SECOND)
    assert (blurred.face_id, blurred.expression, blurred.confidence) == ('f1', labels.UNKNOWN, 0)
    (again,) = tracker.update([face(0, sad=0.9)], SECOND + SECOND // 30)
    assert again.expression == HAPPY


def test_new_faces_wait_for_min_hits():
    tracker = new_tracker(min_hits=2)
    assert tracker.update([face(0, happy=0.8)], 0) == []
    (found,) = tracker.update([face(0, happy=0.8)], SECOND // 30)
    assert found.face_id == 'f1'


def test_an_earlier_stamp_resets_the_tracks():
    tracker = new_tracker()
    for step in range(30):
        tracker.update([face(0, happy=0.8)], step * SECOND // 30)
    (found,) = tracker.update([face(0, sad=0.9)], 0)
    assert (found.face_id, found.expression) == ('f2', SAD)


@pytest.mark.parametrize('stamp', [0, 5, -5])
def test_frozen_stamps_are_replaced_by_the_arrival_time(stamp):
    tracker = new_tracker()
    for step in range(10):
        (found,) = tracker.update([face(0, happy=0.8)], stamp, 7 + step * SECOND // 10)
    assert (found.face_id, found.expression) == ('f1', HAPPY)
    assert tracker.clock.is_frozen
    for step in range(10, 20):
        (found,) = tracker.update([face(0, sad=0.8)], stamp, 7 + step * SECOND // 10)
    assert (found.face_id, found.expression) == ('f1', SAD)
    for step in range(20, 40):
        tracker.update([], stamp, 7 + step * SECOND // 10)
    assert tracker.face_ids == set()
    tracker.update([], stamp + 1, 5 * SECOND)
    assert not tracker.clock.is_frozen


def test_two_equal_stamps_are_the_same_time():
    tracker = new_tracker()
    tracker.update([face(0, happy=0.8)], 0, 0)
    (found,) = tracker.update([face(0, sad=0.8)], 0, SECOND)
    assert (found.face_id, found.expression) == ('f1', HAPPY)
    assert not tracker.clock.is_frozen


@pytest.mark.parametrize('tick_ns', [SECOND // 10, SECOND])
def test_coarse_stamps_count_no_time_twice(tick_ns):
    """A face that left is forgotten after max_missed_s, not after half of it."""
    tracker = new_tracker()
    tracker.update([face(0, happy=0.8)], 0, 0)
    gone_ns = 0
    for step in range(1, 60):
        arrived_ns = step * SECOND // 30
        tracker.update([], arrived_ns // tick_ns * tick_ns, arrived_ns)
        if tracker.face_ids:
            gone_ns = arrived_ns
    assert gone_ns == pytest.approx(SECOND, abs=0.2 * SECOND)


def test_another_image_size_scales_what_is_known():
    """Two faces walk, one of them is hidden; then the camera sends images of another size."""
    tracker = new_tracker()
    for step in range(10):
        tracker.update([face(10 * step), face(400 + 10 * step)], step * SECOND // 30)
    tracker.update([face(100)], 10 * SECOND // 30)
    (_, hidden), scale = tracker.places[1], np.array([2, 0.5, 2, 0.5], np.float32)
    tracker.rescale(2, 0.5)
    np.testing.assert_allclose(tracker.places[1][1], hidden * scale, rtol=1e-5)
    np.testing.assert_array_equal(tracker.boxes, [face(100).face.box_xyxy * scale])
    seen = [
        FaceExpression(replace(one.face, box_xyxy=one.face.box_xyxy * scale), one.probabilities)
        for one in (face(510), face(110))
    ]
    assert [f.face_id for f in tracker.update(seen, 11 * SECOND // 30)] == ['f2', 'f1']


def test_settings_can_change_between_frames():
    tracker = new_tracker()
    for step in range(30):
        tracker.update([face(0, happy=0.8)], step * SECOND // 30)
    tracker.config = TrackerConfig(half_life_s=0)
    (found,) = tracker.update([face(0, sad=0.9)], SECOND)
    assert found.expression == SAD


def test_memory_of_faces_that_left_is_freed():
    tracker = new_tracker(max_missed_s=0.1)
    for step in range(500):
        tracker.update([face(0 if step % 2 else 5000, happy=0.8)], step * SECOND)
    assert len(tracker._smoothers) <= 2


PERIOD = SECOND // 30
START = 10**18


def usb_cam(step: int) -> int:
    """Every tenth image is published after its successor."""
    return START + step * PERIOD - (40_000_000 if step % 10 == 9 else 0)


def two_threads(step: int) -> int:
    return START + (step ^ 1) * PERIOD


def noise(step: int) -> int:
    return START + step * PERIOD + int(np.random.default_rng(step).integers(-80, 80)) * 1_000_000


def slow_clock_correction(step: int) -> int:
    """The clock loses 20 ms with each image for a while."""
    return START + step * PERIOD - 53_000_000 * min(max(step - 20, 0), 8)


def sudden_clock_correction(step: int) -> int:
    return START + step * PERIOD - (480_000_000 if step > 30 else 0)


def stamp_from_the_future(step: int) -> int:
    return START + step * PERIOD + (3600 * SECOND if step == 30 else 0)


def clock_set_after_start(step: int) -> int:
    """A computer without a battery for its clock starts in 1970, until it finds a network."""
    return step * PERIOD + (START if step > 30 else 0)


def missing_stamp(step: int) -> int:
    return 0 if step % 20 == 15 else START + step * PERIOD


@pytest.mark.parametrize(
    'stamp',
    [
        usb_cam, two_threads, noise, slow_clock_correction, sudden_clock_correction,
        stamp_from_the_future, missing_stamp,
    ],
)  # fmt: skip
def test_unordered_stamps_keep_the_ids_and_the_smoothing(stamp):
    tracker = new_tracker()
    results = [tracker.update([face(0, happy=0.8)], stamp(step)) for step in range(60)]
    assert {found.face_id for (found,) in results} == {'f1'}
    (outlier,) = tracker.update([face(0, sad=0.9)], stamp(60))
    assert outlier.expression == HAPPY
    assert tracker.clock.is_unordered


@pytest.mark.parametrize(
    'stamp',
    [
        usb_cam, two_threads, noise, sudden_clock_correction, stamp_from_the_future,
        clock_set_after_start,
    ],
)  # fmt: skip
def test_time_with_odd_stamps_is_as_long_as_it_was(stamp):
    clock = FrameClock()
    times = [clock.advance(stamp(step), step * PERIOD) for step in range(300)]
    assert all(a <= b for a, b in itertools.pairwise(times))
    assert times[-1] - times[0] == pytest.approx(299 * PERIOD, abs=0.3 * SECOND)


def test_ordered_stamps_are_the_time():
    clock = FrameClock()
    stamps = [7, 8, 8, 20, 2 * SECOND]
    assert [clock.advance(stamp, None) for stamp in stamps] == stamps
    assert not clock.is_unordered


@pytest.mark.parametrize('frames', [6, 14, 20, 200])
@pytest.mark.parametrize('lost', [0, 3])
def test_a_loop_of_any_length_starts_anew(frames, lost):
    """This holds even if the first images of the second round are lost."""
    tracker = new_tracker()
    rounds = [range(frames), range(lost, frames)]
    ids = [
        {tracker.update([face(0, happy=0.8)], START + step * PERIOD)[0].face_id for step in steps}
        for steps in rounds
    ]
    assert ids == [{'f1'}, {'f2'}]
    assert not tracker.clock.is_unordered


def test_a_simulation_that_is_reset_to_zero_starts_anew():
    tracker = new_tracker()
    for step in range(100, 130):
        tracker.update([face(0, happy=0.8)], step * PERIOD)
    results = [tracker.update([face(0, happy=0.8)], step * PERIOD) for step in range(3)]
    assert results[-1][0].face_id == 'f2'
