# SPDX-License-Identifier: Apache-2.0
"""Which faces are classified, and why others are rejected."""

import cv2
import numpy as np
import pytest

from dan_ros import labels
from dan_ros.backends import open_backend
from dan_ros.detect import open_detector
from dan_ros.faces import quality
from dan_ros.faces.quality import QualityThresholds, frontality, sharpness
from dan_ros.pipeline import ExpressionPipeline, PipelineConfig
from dan_ros.types import Face, Frame, SearchHint

# Eyes, nose tip and mouth corners of a head (x right, y down, z away); the distance from eyes to
# mouth is 1.
HEAD = np.array([[-0.5, 0, 0], [0.5, 0, 0], [0, 0.6, -0.45], [-0.4, 1, 0], [0.4, 1, 0]])


def landmarks_of(turn_deg: float, roll_deg: float = 0, size: float = 50) -> np.ndarray:
    """Landmarks [5, 2] in pixels of the head, turned and then rolled, from far away."""
    turn, roll = np.deg2rad([turn_deg, roll_deg])
    x = HEAD[:, 0] * np.cos(turn) - HEAD[:, 2] * np.sin(turn)
    y = HEAD[:, 1]
    rolled = np.stack([x * np.cos(roll) - y * np.sin(roll), x * np.sin(roll) + y * np.cos(roll)], 1)
    return 200 + size * rolled


def portrait_crop(portrait) -> np.ndarray:
    return cv2.resize(portrait[63:176, 166:279, ::-1], (96, 96), interpolation=cv2.INTER_AREA)


@pytest.mark.parametrize('turn_deg', [-80, -45, -20, 0, 20, 45, 80])
@pytest.mark.parametrize('roll_deg', [0, 35, -90])
def test_frontality_is_one_less_the_sine_of_the_turn(turn_deg, roll_deg):
    expected = 1 - abs(np.sin(np.deg2rad(turn_deg)))
    for size in (10, 200):
        assert frontality(landmarks_of(turn_deg, roll_deg, size)) == pytest.approx(expected)


def test_frontality_of_missing_and_degenerate_landmarks():
    assert frontality(np.zeros((0, 2))) == 1  # the detector has no landmarks
    assert frontality(np.zeros((5, 2))) == 0  # all at one point


def test_sharpness_of_a_wave_is_its_number_of_cycles():
    x = np.arange(96)
    for cycles in (4, 8, 12):
        wave = 128 + 100 * np.cos(2 * np.pi * cycles * x / 96)
        crop = np.broadcast_to(wave[None, :, None], (96, 96, 3)).astype(np.uint8)
        assert sharpness(crop) == pytest.approx(cycles, rel=0.15)


@pytest.mark.parametrize('size', [64, 96, 224])
def test_sharpness_falls_with_blur_whatever_the_size_and_contrast(portrait, size):
    face = cv2.resize(portrait_crop(portrait), (size, size))
    blurred = [cv2.GaussianBlur(face, (0, 0), size / 96 * sigma) for sigma in (1, 2, 4, 8)]
    values = [sharpness(crop) for crop in (face, *blurred)]
    assert values == sorted(values, reverse=True)
    assert values[0] > 6
    assert values[-1] < 3
    pale = (100 + 0.4 * face).astype(np.uint8)
    assert sharpness(pale) == pytest.approx(values[0], rel=0.05)


def test_a_plain_surface_has_no_sharpness():
    assert sharpness(np.full((96, 96, 3), 77, np.uint8)) == 0


def test_thresholds_reject_small_and_turned_faces():
    gates = QualityThresholds(min_side_px=40, min_frontality=0.5)
    large, small = (np.array([0, 0, side, side * 1.2], np.float32) for side in (40, 30))
    assert gates.rejection_reason(Face(large, 1, landmarks_of(0))) == ''
    assert gates.rejection_reason(Face(small, 1, landmarks_of(0))) == quality.TOO_SMALL
    assert gates.rejection_reason(Face(large, 1, landmarks_of(40))) == quality.TURNED_AWAY


@pytest.fixture
def strict():
    """A pipeline that the test may change."""
    return ExpressionPipeline(open_detector('yunet'), open_backend())


def test_rejected_faces_stay_in_the_result(strict, portrait):
    ((face,),) = strict.run([Frame(portrait)])
    assert face.reason == ''
    for gates, reason in (
        (QualityThresholds(min_side_px=500), quality.TOO_SMALL),
        (QualityThresholds(min_frontality=1.0), quality.TURNED_AWAY),
        (QualityThresholds(min_sharpness=50), quality.BLURRED),
    ):
        strict.config = PipelineConfig(quality=gates)
        ((found,),) = strict.run([Frame(portrait)])
        assert found.reason == reason
        assert found.expression() == labels.UNKNOWN
        assert not found.probabilities.any()
        np.testing.assert_array_equal(found.face.box_xyxy, face.face.box_xyxy)


def test_a_blurred_face_is_rejected_and_its_neighbor_is_not(strict, portrait):
    face = portrait[20:220, 120:320]
    blurred = cv2.GaussianBlur(face, (0, 0), 9)
    ((one, two),) = strict.run([Frame(np.hstack([face, blurred]))])
    assert sorted([one.reason, two.reason]) == ['', quality.BLURRED]
    judged = one if one.is_classified else two
    assert labels.label_of(judged.expression()) == 'happy'


def test_max_faces_counts_only_accepted_faces(strict, portrait):
    turned_away = Face(np.array([0, 0, 300, 300], np.float32), 1, landmarks_of(80))
    (real,) = strict.detector.detect(portrait)
    tiny = Face(np.array([400, 400, 430, 440], np.float32), 1, landmarks_of(0))

    class Detector:
        def detect(self, image):
            return [real, tiny, turned_away]

    strict.detector = Detector()
    strict.config = PipelineConfig(max_faces=1)
    (found,) = strict.run([Frame(portrait)])
    assert [f.reason for f in found] == [quality.TURNED_AWAY, '', quality.TOO_MANY]


def test_a_face_near_a_threshold_is_stable(strict, portrait):
    """Slightly below the limit, a face is classified only if it was in the previous image."""
    (found,) = strict.find_faces(Frame(portrait))
    side = float((found.box_xyxy[2:] - found.box_xyxy[:2]).max())
    strict.config = PipelineConfig(quality=QualityThresholds(side * 1.1, 0, 0))
    ((fresh,),) = strict.run([Frame(portrait)])
    ((known,),) = strict.run([Frame(portrait)], [SearchHint(classified_boxes=[found.box_xyxy + 3])])
    ((elsewhere,),) = strict.run(
        [Frame(portrait)], [SearchHint(classified_boxes=[found.box_xyxy + side])]
    )
    assert (fresh.reason, known.reason, elsewhere.reason) == (
        quality.TOO_SMALL,
        '',
        quality.TOO_SMALL,
    )
    strict.config = PipelineConfig(quality=QualityThresholds(side * 1.5, 0, 0))
    ((smaller,),) = strict.run([Frame(portrait)], [SearchHint(classified_boxes=[found.box_xyxy])])
    assert smaller.reason == quality.TOO_SMALL


def test_a_known_face_becomes_unknown_when_it_is_blurred(strict, portrait):
    """Hysteresis against noise must not keep a face that was sharp and is no longer legible."""
    close_up = cv2.resize(portrait, None, fx=2, fy=2)
    for blur in (14, 16, 18, 20, 24):
        frame = Frame(cv2.GaussianBlur(close_up, (0, 0), blur))
        (face,) = strict.find_faces(frame)
        ((known,),) = strict.run([frame], [SearchHint(classified_boxes=[face.box_xyxy])])
        assert known.reason == quality.BLURRED, blur


def test_a_classified_face_keeps_its_place_in_max_faces(strict, portrait):
    pair = np.hstack([portrait, portrait])
    strict.config = PipelineConfig(1024, max_faces=1, quality=quality.ACCEPT_ALL)
    ((first, second),) = strict.run([Frame(pair)])
    assert (first.reason, second.reason) == ('', quality.TOO_MANY)
    ((first, second),) = strict.run(
        [Frame(pair)], [SearchHint(classified_boxes=[second.face.box_xyxy])]
    )
    assert (first.reason, second.reason) == (quality.TOO_MANY, '')


def test_a_clearly_larger_new_face_takes_the_place(strict, portrait):
    small = cv2.resize(portrait, None, fx=0.7, fy=0.7)
    pair = np.hstack([portrait, np.pad(small, ((0, len(portrait) - len(small)), (0, 0), (0, 0)))])
    strict.config = PipelineConfig(1024, max_faces=1, quality=quality.ACCEPT_ALL)
    _, known = strict.find_faces(Frame(pair))
    ((first, second),) = strict.run([Frame(pair)], [SearchHint(classified_boxes=[known.box_xyxy])])
    assert (first.reason, second.reason) == ('', quality.TOO_MANY)


def test_a_blurred_face_takes_no_place(strict, portrait):
    face = portrait[20:220, 120:320]
    blurred = cv2.GaussianBlur(cv2.resize(face, None, fx=1.5, fy=1.5), (0, 0), 13)
    pair = np.hstack([blurred, np.pad(face, ((0, 100), (0, 0), (0, 0)))])
    strict.config = PipelineConfig(max_faces=1)
    ((first, second),) = strict.run([Frame(pair)])
    assert (first.reason, second.reason) == (quality.BLURRED, '')


def test_logits_of_nan_are_a_rejection(strict, portrait, monkeypatch):
    monkeypatch.setattr(
        strict.backend, 'infer', lambda faces: np.full((len(faces), 8), np.nan, np.float32)
    )
    ((found,),) = strict.run([Frame(portrait)])
    assert found.reason == quality.NO_ANSWER
