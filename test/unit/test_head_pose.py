# SPDX-License-Identifier: Apache-2.0
"""Poses of faces: from exact and noisy projections, from photos, and from invalid input."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dan_ros.faces.camera_model import Camera, info_to_camera
from dan_ros.faces.head_pose import FACE_POINTS, HeadPose, solve_pose, vector_to_quaternion
from dan_ros.types import Frame
from dan_ros.video_pipeline import StampedFrame, VideoPipeline

MATRIX = np.array([[600.0, 0, 322], [0, 610, 236], [0, 0, 1]])
PINHOLE = Camera(MATRIX, np.zeros(0), 'plumb_bob', (640, 480))
PORTRAIT_CAMERA = Camera(
    np.array([[700.0, 0, 256], [0, 700, 256], [0, 0, 1]]), np.zeros(0), '', (512, 512)
)
# Rotation of a face that looks at the camera: x along the camera's -z, y along its x, z up.
FACING = np.array([[0.0, 1, 0], [0, 0, -1], [-1, 0, 0]])


def calibration(distortion: list[float], model: str) -> SimpleNamespace:
    """An object with the fields of sensor_msgs/CameraInfo."""
    region = SimpleNamespace(x_offset=0, y_offset=0, width=0, height=0)
    return SimpleNamespace(
        width=640,
        height=480,
        distortion_model=model,
        d=distortion,
        k=MATRIX.ravel(),
        p=np.zeros(12),
        roi=region,
        binning_x=0,
        binning_y=0,
    )


def turned(yaw_deg: float = 0, pitch_deg: float = 0, roll_deg: float = 0) -> np.ndarray:
    """Rotation [3, 3] of a face that looks at the camera and then turns about its own axes."""
    rotation = FACING
    for axis, degrees in (((0, 0, 1), yaw_deg), ((0, 1, 0), pitch_deg), ((1, 0, 0), roll_deg)):
        rotation = rotation @ cv2.Rodrigues(np.deg2rad(degrees) * np.array(axis, float))[0]
    return rotation


def project(rotation: np.ndarray, position: np.ndarray, camera: Camera) -> np.ndarray:
    vector = cv2.Rodrigues(rotation)[0]
    if camera.distortion_model == 'equidistant':
        points = FACE_POINTS[:, None]
        return cv2.fisheye.projectPoints(
            points, vector, position, camera.matrix, camera.distortion
        )[0][:, 0]
    return cv2.projectPoints(FACE_POINTS, vector, position, camera.matrix, camera.distortion)[0][
        :, 0
    ]


def angle_between_deg(quaternion: np.ndarray, rotation: np.ndarray) -> float:
    dot = abs(float(quaternion @ vector_to_quaternion(cv2.Rodrigues(rotation)[0].ravel())))
    return 2 * np.rad2deg(np.arccos(min(dot, 1.0)))


CAMERAS = {
    'pinhole': PINHOLE,
    'plumb_bob': Camera(MATRIX, np.array([-0.3, 0.1, 1e-3, -1e-3, 0.0]), 'plumb_bob', (640, 480)),
    'rational': Camera(
        MATRIX,
        np.array([0.1, -0.05, 0, 0, 0.01, 0.12, 0.02, 0.0]),
        'rational_polynomial',
        (640, 480),
    ),
    'fisheye': Camera(
        MATRIX / [[2], [2], [1]], np.array([0.02, 0.01, 0, 0]), 'equidistant', (320, 240)
    ),
}


@pytest.mark.parametrize('name', CAMERAS)
@pytest.mark.parametrize('angles', [(0, 0, 0), (30, 0, 0), (-45, 10, 0), (10, -20, 30), (0, 0, 90)])
def test_a_projected_pose_is_recovered(name, angles):
    rotation, position = turned(*angles), np.array([0.15, -0.1, 1.2])
    pose = solve_pose(project(rotation, position, CAMERAS[name]), CAMERAS[name])
    np.testing.assert_allclose(pose.position, position, atol=2e-3)
    assert angle_between_deg(pose.quaternion_xyzw, rotation) < 0.5


def test_axes_are_those_of_rep_155():
    pose = solve_pose(project(FACING, np.array([0.0, 0, 1]), PINHOLE), PINHOLE)
    x, y, z, w = pose.quaternion_xyzw
    # The face looks towards the camera, along -z of its optical frame.
    forward = [1 - 2 * (y * y + z * z), 2 * (x * y + z * w), 2 * (x * z - y * w)]
    np.testing.assert_allclose(forward, [0, 0, -1], atol=1e-3)
    up = [2 * (x * z + y * w), 2 * (y * z - x * w), 1 - 2 * (x * x + y * y)]
    np.testing.assert_allclose(up, [0, -1, 0], atol=1e-3)


@settings(max_examples=200, deadline=None)
@given(
    yaw=st.floats(-40, 40),
    pitch=st.floats(-25, 25),
    distance=st.floats(0.4, 3),
    seed=st.integers(0, 2**16),
)
def test_a_little_noise_changes_the_pose_a_little(yaw, pitch, distance, seed):
    position = np.array([0.1, 0.05, 1.0]) * distance
    points = project(turned(yaw, pitch), position, PINHOLE)
    eyes_px = 0.063 / distance * 600
    noise = np.random.default_rng(seed).normal(0, 0.01 * eyes_px, points.shape)
    pose = solve_pose(points + noise, PINHOLE)
    assert pose.position[2] == pytest.approx(distance, rel=0.12)
    assert np.abs(pose.position[:2] - position[:2]).max() < 0.06 * distance
    assert angle_between_deg(pose.quaternion_xyzw, turned(yaw, pitch)) < 20


def test_the_portrait_looks_at_the_camera(pipeline, portrait):
    (face,) = pipeline.detector.detect(portrait)
    pose = solve_pose(face.landmarks, PORTRAIT_CAMERA)
    assert 0.7 < pose.position[2] < 1.2
    assert angle_between_deg(pose.quaternion_xyzw, FACING) < 35  # her head is slightly turned


def test_only_faces_of_calibrated_cameras_have_poses_until_a_reset(pipeline, portrait):
    video = VideoPipeline(pipeline)

    def poses() -> list[HeadPose | None]:
        frames = {name: StampedFrame(Frame(portrait), 0) for name in ('left', 'right', 'top')}
        return [faces[0].pose for faces in video.run(frames).values()]

    video.calibrations = {'left': PORTRAIT_CAMERA, 'right': None, 'top': PINHOLE}  # of another size
    left, right, top = poses()
    assert 0.7 < left.position[2] < 1.2
    assert (right, top) == (None, None)
    video.reset()
    assert poses() == [None] * 3


@pytest.mark.parametrize(
    'landmarks',
    [
        np.zeros((0, 2)),
        np.zeros((5, 2)),
        np.full((5, 2), np.nan),
        np.array([[0, 0], [1, 0], [2, 0], [3, 0], [4, 0]]) * 30.0,
        np.array([[300, 300], [360, 300], [330, 200], [300, 140], [360, 140.0]]),  # mirrored
        np.array([[300, 200], [360, 200], [600, 20], [300, 280], [360, 280.0]]),
    ],
)
def test_invalid_landmarks_have_no_pose(landmarks):
    assert solve_pose(landmarks, PINHOLE) is None


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.floats(-1e6, 1e6), min_size=10, max_size=10),
    st.sampled_from([0, 4, 5, 8, 12, 14, 3]).flatmap(
        lambda n: st.lists(st.floats(-1e3, 1e3), min_size=n, max_size=n)
    ),
    st.sampled_from(['plumb_bob', 'rational_polynomial', 'equidistant', 'fisheye', '', 'x']),
)
def test_no_landmarks_and_calibration_raise_an_error(values, distortion, model):
    camera = info_to_camera(calibration(distortion, model), '/camera/image_raw')
    assert camera is None or len(distortion) != 3
    pose = camera and solve_pose(np.array(values).reshape(5, 2), camera)
    assert pose is None or pose.position[2] > 0


@pytest.mark.parametrize('coefficients', [5, 8])
def test_a_fisheye_has_four_coefficients(coefficients):
    assert info_to_camera(calibration([0.0] * coefficients, 'equidistant'), '/eye/image') is None
    assert info_to_camera(calibration([0.0] * 4, 'equidistant'), '/eye/image').is_fisheye


def test_a_reduced_image_gives_the_same_pose():
    position = np.array([0.1, 0, 1.0])
    points = project(turned(20), position, PINHOLE) / 2
    half = PINHOLE.scaled_to((320, 240))
    np.testing.assert_allclose(solve_pose(points, half).position, position, atol=2e-3)
    assert PINHOLE.scaled_to((640, 480)) is PINHOLE
    assert PINHOLE.scaled_to((640, 360)) is None


@settings(max_examples=100)
@given(st.lists(st.floats(-4, 4), min_size=3, max_size=3))
def test_quaternions_equal_the_matrices_of_their_vectors(vector):
    matrix = cv2.Rodrigues(np.array(vector))[0]
    x, y, z, w = quaternion = vector_to_quaternion(np.array(vector))
    assert np.linalg.norm(quaternion) == pytest.approx(1)
    assert w >= -1e-9
    first_column = [1 - 2 * (y * y + z * z), 2 * (x * y + z * w), 2 * (x * z - y * w)]
    np.testing.assert_allclose(first_column, matrix[:, 0], atol=1e-7)
