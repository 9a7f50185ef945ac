# SPDX-License-Identifier: Apache-2.0
"""Depth images give the distance of a face whose size is unknown; other images are refused."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from test_head_pose import FACING, PINHOLE, turned

from dan_ros.errors import FrameError
from dan_ros.faces.head_pose import FACE_POINTS, pose_with_depth, solve_pose
from dan_ros.images.depth import message_to_depth

SIZE = (640, 480)


def message(
    values: np.ndarray, encoding: str = '32FC1', padding: int = 0, is_bigendian: int = 0
) -> SimpleNamespace:
    """An object with the fields of sensor_msgs/Image, with `padding` bytes after each row."""
    order = '>' if is_bigendian else '<'
    dtype = np.dtype(np.uint16 if encoding == '16UC1' else np.float32).newbyteorder(order)
    rows = np.ascontiguousarray(values, dtype).view(np.uint8).reshape(len(values), -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=99)
    return SimpleNamespace(
        height=values.shape[0],
        width=values.shape[1],
        encoding=encoding,
        is_bigendian=is_bigendian,
        step=rows.shape[1],
        data=memoryview(rows.tobytes()),
    )


@pytest.mark.parametrize('is_bigendian', [0, 1])
@pytest.mark.parametrize('padding', [0, 3])
@pytest.mark.parametrize(('encoding', 'unit_m'), [('16UC1', 1e-3), ('32FC1', 1.0)])
def test_a_median_is_in_meters_and_ignores_what_is_no_distance(
    encoding, unit_m, padding, is_bigendian
):
    values = np.full((40, 60), 1.5 / unit_m)
    values[:, :30] = 0.8 / unit_m
    values[10:13, 10:12] = 0
    if encoding == '32FC1':
        values[10:12, 12] = np.nan, np.inf
        values[12, 12] = -1
    depth = message_to_depth(message(values, encoding, padding, is_bigendian))
    assert depth.size == (60, 40)
    assert depth.median_m(5.5, 5.5, 1) == pytest.approx(0.8)
    assert depth.median_m(45.5, 20.5, 3) == pytest.approx(1.5)
    assert depth.median_m(11.5, 11.5, 3) == pytest.approx(0.8)
    assert depth.median_m(59.9, 39.9, 2) == pytest.approx(1.5)
    assert depth.median_m(-1.0, -1.0, 2) == pytest.approx(0.8)
    for x, y in ((10.9, 11.5), (-20, 5), (5, 900)):
        assert np.isnan(depth.median_m(x, y, 0))


@pytest.mark.parametrize(
    ('changes', 'cause'),
    [
        ({'encoding': 'mono16'}, 'bad_encoding'),
        ({'encoding': 'x' * 5000}, 'bad_encoding'),
        ({'height': 0}, 'bad_size'),
        ({'width': 61}, 'bad_data'),
        ({'height': 41}, 'bad_data'),
        ({'step': 0}, 'bad_data'),
        ({'data': memoryview(b'')}, 'bad_data'),
    ],
)
def test_what_is_no_depth_image_is_refused_in_one_short_line(changes, cause):
    bad = message(np.ones((40, 60)))
    vars(bad).update(changes)
    with pytest.raises(FrameError) as caught:
        message_to_depth(bad)
    assert caught.value.cause == cause
    assert len(str(caught.value)) < 200
    assert '\n' not in str(caught.value)


def seen_face(size: float, position: np.ndarray, rotation: np.ndarray = FACING):
    """Landmarks [5, 2] and depths [5] of a face `size` times as large as an average adult's."""
    points = size * FACE_POINTS @ rotation.T + position
    vector = cv2.Rodrigues(np.eye(3))[0]
    landmarks = cv2.projectPoints(points, vector, np.zeros(3), PINHOLE.matrix, None)[0][:, 0]
    return landmarks, points[:, 2]


@pytest.mark.parametrize('angles', [(0, 0, 0), (40, 0, 0), (-20, 15, 10)])
@pytest.mark.parametrize('size', [0.5, 0.7, 1.0, 1.2])
def test_the_distance_of_a_child_is_measured_not_assumed(size, angles):
    position, rotation = np.array([0.2, -0.1, 1.1]), turned(*angles)
    landmarks, depths_m = seen_face(size, position, rotation)
    assumed = solve_pose(landmarks, PINHOLE)
    np.testing.assert_allclose(assumed.position, position / size, rtol=5e-3)
    measured = pose_with_depth(assumed, depths_m)
    np.testing.assert_allclose(measured.position, position, atol=5e-3)
    np.testing.assert_array_equal(measured.quaternion_xyzw, assumed.quaternion_xyzw)


def test_wrong_and_missing_depths_of_some_landmarks_do_no_harm():
    position = np.array([0.0, 0.0, 1.0])
    landmarks, depths_m = seen_face(0.7, position)
    assumed = solve_pose(landmarks, PINHOLE)
    depths_m[0], depths_m[3] = np.nan, 4.0  # behind the cheek
    np.testing.assert_allclose(pose_with_depth(assumed, depths_m).position, position, atol=0.01)


@pytest.mark.parametrize('depths_m', [[np.nan] * 5, [1.0] + [np.nan] * 4, [3.0] * 5, [0.2] * 5])
def test_too_few_depths_or_those_of_no_human_face_are_not_used(depths_m):
    landmarks, _ = seen_face(1.0, np.array([0.0, 0.0, 1.0]))
    assert pose_with_depth(solve_pose(landmarks, PINHOLE), np.array(depths_m)) is None
