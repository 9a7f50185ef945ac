# SPDX-License-Identifier: Apache-2.0
"""Attention: where synthetic heads point, and a state that does not flicker."""

import itertools
import math

import cv2
import numpy as np
import pytest
from heads import PINHOLE, SIZE, Head, facing_angle_deg

from dan_ros.faces.camera_model import Camera, assumed_camera
from dan_ros.faces.head_direction import angle_to_camera, head_directions
from dan_ros.faces.head_pose import HeadPose, solve_pose, vector_to_quaternion
from dan_ros.tracking.attention import (
    AttentionConfig,
    AttentionTracker,
    looking_at_camera,
    visual_social_engagement,
)
from dan_ros.tracking.face_tracker import TrackedFace
from dan_ros.types import Face, FaceExpression

GRID = list(itertools.product((-60, -30, 0, 20, 45), (-30, 0, 20), (-25, 0, 25)))
PLACES = [(0.0, 0.0, 1.0), (0.4, -0.2, 1.2), (-0.3, 0.1, 0.5)]  # positions of the head, meters
BOX = np.array([280, 180, 360, 280], np.float32)


def measured_deg(landmarks: np.ndarray, camera: Camera | None = PINHOLE) -> float:
    return angle_to_camera(head_directions([landmarks], camera, SIZE)[0])


@pytest.mark.parametrize('camera', [PINHOLE, None])
@pytest.mark.parametrize('place', PLACES)
def test_the_angle_of_a_synthetic_head_is_found(place, camera):
    """The assumed focal length is 16 % shorter than the true one, which adds little error."""
    tolerance = 0.6 if camera else 2.0
    for angles in GRID:
        head = Head(*angles, place)
        found = measured_deg(head.landmarks(), camera)
        assert found == pytest.approx(facing_angle_deg(head), abs=tolerance), angles


def test_a_head_at_the_edge_of_the_image_faces_the_camera_when_it_is_turned_to_it():
    towards = Head(0, 0, 0, (0.45, 0, 0.9))
    parallel = Head(-math.degrees(math.atan2(0.45, 0.9)), 0, 0, (0.45, 0, 0.9))
    assert measured_deg(towards.landmarks()) < 1
    assert measured_deg(parallel.landmarks()) == pytest.approx(26.6, abs=1)


def test_noise_changes_the_angle_little():
    """The landmarks have a pixel of noise, the faces different shapes; eyes 40 pixels apart."""
    rng = np.random.default_rng(0)
    errors = []
    for angles in GRID:
        head = Head(*angles, (0, 0, 0.945))
        for _ in range(10):
            landmarks = head.landmarks(rng, noise_px=1, shape_m=0.002)
            errors.append(measured_deg(landmarks) - facing_angle_deg(head))
    assert np.sqrt(np.nanmean(np.square(errors))) < 6
    assert np.isnan(errors).mean() < 0.05


def test_distortion_is_removed():
    distortion = np.array([-0.3, 0.1, 1e-3, -1e-3, 0.0])
    camera = Camera(PINHOLE.matrix, distortion, 'plumb_bob', SIZE)
    head = Head(20, -10, 5, (0.35, 0.2, 0.9))
    points = cv2.projectPoints(
        head.points(), np.zeros(3), np.zeros(3), camera.matrix, camera.distortion
    )[0][:, 0]
    assert measured_deg(points, camera) == pytest.approx(facing_angle_deg(head), abs=0.6)


def test_heads_of_one_image_do_not_affect_each_other():
    heads = [Head(0, 0, 0, PLACES[1]), Head(50, 0, 0, PLACES[2])]
    landmarks = [heads[0].landmarks(), np.zeros((0, 2)), heads[1].landmarks(), np.zeros((5, 2))]
    together = head_directions(landmarks, PINHOLE, SIZE)
    assert np.isnan(together).all(axis=1).tolist() == [False, True, False, True]
    for row, alone in ((0, heads[0]), (2, heads[1])):
        expected = head_directions([alone.landmarks()], PINHOLE, SIZE)[0]
        np.testing.assert_allclose(together[row], expected)
    assert head_directions([], PINHOLE, SIZE) == []


@pytest.mark.parametrize(
    'landmarks',
    [
        np.full((5, 2), np.nan),
        np.array([[0, 0], [1, 0], [2, 0], [3, 0], [4, 0]]) * 30.0,
        np.array([[360, 200], [300, 200], [330, 230], [360, 270], [300, 270.0]]),  # from behind
        np.array([[300, 200], [360, 200], [600, 20], [300, 280], [360, 280.0]]),
    ],
)
def test_invalid_landmarks_have_no_direction(landmarks):
    assert math.isnan(measured_deg(landmarks))


def test_it_agrees_with_the_pose(pipeline, portrait):
    """Compare two independent solutions for a real face."""
    (face,) = pipeline.detector.detect(portrait)
    camera = assumed_camera((512, 512))
    pose = solve_pose(face.landmarks, camera)
    forward = pose.rotation[:, 0]
    cosine = -forward @ pose.position / np.linalg.norm(pose.position)
    found = angle_to_camera(head_directions([face.landmarks], None, (512, 512))[0])
    assert found == pytest.approx(math.degrees(math.acos(cosine)), abs=3)


# --- over time ------------------------------------------------------------------------------------


def play(angles_deg, hz: float = 30, noise_px: float = 0.7, config: AttentionConfig | None = None):
    """Show a head at a sequence of yaw angles, None for no landmarks; return its attention."""
    rng = np.random.default_rng(1)
    tracker = AttentionTracker(config)
    results = []
    for step, yaw in enumerate(angles_deg):
        points = np.zeros((0, 2))
        if yaw is not None:
            points = Head(yaw, 0, 0, (0, 0, 0.945)).landmarks(rng, noise_px=noise_px)
        raw = FaceExpression(Face(BOX, 0.9, points.astype(np.float32)), np.zeros(8, np.float32))
        face = TrackedFace('f1', raw, raw.probabilities, 0, round(step / hz * 1e9))
        (face,) = tracker.update([face], {'f1'}, PINHOLE, SIZE)
        results.append(face.attention)
    return results


def changes(results) -> int:
    return sum(a.is_looking != b.is_looking for a, b in itertools.pairwise(results))


@pytest.mark.parametrize('hz', [5, 15, 30, 60])
def test_each_turn_of_the_head_is_one_change(hz):
    script = [0] * (2 * hz) + [50] * (2 * hz) + [0] * (2 * hz)
    results = play(script, hz)
    looking = [r.is_looking for r in results]
    assert (looking[-1], looking[2 * hz - 1], looking[4 * hz - 1]) == (True, True, False)
    assert changes(results) == 3
    for turn in (0, 2, 4):
        lag = next(i for i in range(turn * hz, len(looking)) if looking[i] == (turn != 2))
        assert lag / hz - turn <= 0.7


def test_the_state_does_not_flicker_between_the_two_thresholds():
    held = [11] * 60 + [18] * 300 + [11] * 60
    assert changes(play(held)) == 1  # the face started to look once
    rng = np.random.default_rng(3)
    assert changes(play(list(rng.uniform(12, 20, 900)))) <= 1
    assert changes(play([0] * 30 + [70] * 4 + [0] * 60)) == 1  # a glance away of 0.13 s


def test_durations_are_those_of_the_stamps_and_begin_with_the_turn():
    results = play([60] * 60 + [0] * 60)
    assert results[59].seconds == pytest.approx(59 / 30)
    start = next(i for i, result in enumerate(results) if result.is_looking)
    assert results[start].seconds == pytest.approx(0.3, abs=0.035)
    assert results[-1].seconds == pytest.approx(0.3 + (119 - start) / 30, abs=0.035)


def test_an_unknown_direction_is_not_looking_and_gives_nan():
    results = play([0] * 30 + [None] * 30)
    assert math.isnan(results[-1].score)
    assert [results[29].is_looking, results[-1].is_looking] == [True, False]
    assert not math.isnan(play([0] * 30 + [None] * 2 + [0])[-1].score)


def test_settings_are_obeyed():
    assert changes(play([25] * 60)) == 0
    assert changes(play([25] * 60, config=AttentionConfig(angle_deg=35))) == 1
    assert changes(play([0] * 60, config=AttentionConfig(min_duration_s=3))) == 0


def test_the_score_falls_with_the_angle():
    scores = [looking_at_camera(angle, 20) for angle in range(0, 90, 5)]
    assert scores == sorted(scores, reverse=True)
    assert (scores[0], scores[4]) == (1.0, 0.5)
    means = [np.mean([r.score for r in play([yaw] * 30)[10:]]) for yaw in (0, 15, 30)]
    np.testing.assert_allclose(means, [1, 0.5, 0.06], atol=0.12)


# --- engagement -----------------------------------------------------------------------------------


def pose(yaw_deg: float, position: tuple[float, float, float]) -> HeadPose:
    head = Head(yaw_deg, 0, 0, position)
    vector = cv2.Rodrigues(head.rotation)[0].ravel()
    return HeadPose(np.array(position, float), vector_to_quaternion(vector))


def test_engagement_is_mutual_gaze_over_distance():
    assert visual_social_engagement(pose(0, (0, 0, 0.5))) == 1  # at most 1
    assert visual_social_engagement(pose(0, (0, 0, 4))) == pytest.approx(0.25)
    half = math.degrees(math.atan(math.tan(math.radians(60)) / 2))
    assert visual_social_engagement(pose(half, (0, 0, 1))) == pytest.approx(0.5)
    # The head is beside the camera's axis, but turned to the camera: only the robot's part shrinks.
    x, z = math.sin(math.radians(half)) * 2, math.cos(math.radians(half)) * 2
    assert visual_social_engagement(pose(0, (x, 0, z))) == pytest.approx(0.25)


def test_engagement_is_nothing_outside_a_field_of_attention():
    assert visual_social_engagement(pose(65, (0, 0, 1))) == 0
    assert visual_social_engagement(pose(180, (0, 0, 1))) == 0
    assert visual_social_engagement(pose(0, (2, 0, 1))) == 0
