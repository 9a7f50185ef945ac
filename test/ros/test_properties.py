# SPDX-License-Identifier: Apache-2.0
"""Properties for any input: no exception but a FrameError, bounded memory, valid results.

test/slow/test_odd_messages.py sends many more messages.
"""

import itertools
from typing import Any

import fuzzing
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from odd_messages import BYTES_PER_PIXEL, odd_calibrations

from dan_ros import labels
from dan_ros.detect.yunet import STRIDES, decode
from dan_ros.faces import quality
from dan_ros.faces.camera_model import info_to_camera
from dan_ros.faces.crop import crop_face, square_about
from dan_ros.faces.head_pose import solve_poses
from dan_ros.images.encodings import ENCODINGS
from dan_ros.messages import box_to_region
from dan_ros.ros.parameters import SPECS
from dan_ros.tracking.face_tracker import FaceTracker
from dan_ros.types import Face, FaceExpression, Frame

MESSAGES = 60  # messages of each kind to the library
MESSAGES_OVER_DDS = 40  # messages of each kind to the node


def test_the_strategies_know_every_encoding():
    assert set(BYTES_PER_PIXEL) == set(ENCODINGS)


# --- messages -----------------------------------------------------------------------------------


def test_any_image_gives_faces_or_a_frame_error(pipeline, portrait):
    fuzzing.run_odd_images(pipeline, MESSAGES)
    assert len(pipeline.run([Frame(portrait)])[0]) == 1


def test_any_compressed_image_gives_faces_or_a_frame_error(pipeline, portrait):
    fuzzing.run_odd_pictures(pipeline, MESSAGES)
    assert len(pipeline.run([Frame(portrait)])[0]) == 1


def test_several_cameras_share_a_batch(pipeline):
    fuzzing.run_several_cameras(pipeline, MESSAGES // 2)


def test_images_over_dds(robot, smile):
    fuzzing.send_odd_images(robot, smile, MESSAGES_OVER_DDS)


def test_compressed_images_over_dds(robot, smile):
    fuzzing.send_odd_pictures(robot, smile, MESSAGES_OVER_DDS)


def test_bytes_that_are_no_message_over_dds(robot, smile):
    fuzzing.send_damaged_bytes(robot, smile, MESSAGES_OVER_DDS)


# --- the steps of the pipeline ------------------------------------------------------------------


@pytest.fixture(scope='module')
def portrait_landmarks(pipeline, smile) -> np.ndarray:
    ((face,),) = pipeline.run([Frame(smile)])
    return face.face.landmarks


@given(odd_calibrations(), st.sampled_from(['/eye/image_raw', '/eye/image_rect']))
@settings(max_examples=MESSAGES, database=None)
def test_any_calibration_gives_a_pose_or_none(portrait_landmarks, info, camera):
    calibrated = info_to_camera(info, camera)
    (pose,) = solve_poses([portrait_landmarks], calibrated, (320, 240))
    if pose is not None:
        assert np.isfinite(pose.position).all()
        assert np.linalg.norm(pose.quaternion_xyzw) == pytest.approx(1)


places = st.floats(-1e6, 1e6, width=32)
lengths = st.one_of(st.floats(0, 300, width=32), st.floats(0, 1e6, width=32))


@st.composite
def boxes(draw: st.DrawFn) -> np.ndarray:
    """Boxes (left, top, right, bottom) of any size, inside and far outside of an image."""
    left, top = draw(places), draw(places)
    return np.array([left, top, left + draw(lengths), top + draw(lengths)], np.float32)


@given(
    boxes(),
    st.sampled_from(['bgr8', 'rgb8', 'bgra8', 'rgba8', 'mono8']),
    st.integers(1, 90),
    st.integers(1, 90),
    st.floats(0.1, 3.0),
    st.integers(0, 3),
)
@settings(max_examples=50, deadline=None)
def test_any_box_gives_a_crop_of_the_image(box, encoding, width, height, scale, turns):
    """Every pixel of the crop is set, and comes from the image."""
    channels = {'mono8': (), 'bgra8': (4,), 'rgba8': (4,)}.get(encoding, (3,))
    image = np.full((height, width, *channels), 90, np.uint8)
    out = np.zeros((32, 24, 3), np.uint8)
    crop_face(Frame(image, encoding), box, scale, out, turns)
    assert (out == 90).all()


@given(boxes(), st.floats(0.1, 3.0))
def test_any_box_gives_a_square_about_its_center(box, scale):
    left, top, side = square_about(box, scale)
    assert side >= 1
    slack = 1.5 + 1e-6 * np.abs(box).max()  # 1.5 pixels and the rounding error of float32
    assert abs(left + side / 2 - (box[0] + box[2]) / 2) <= slack
    assert abs(top + side / 2 - (box[1] + box[3]) / 2) <= slack


@given(boxes(), st.integers(1, 5000), st.integers(1, 5000))
def test_any_box_gives_a_region_inside_the_image(box, width, height):
    left, top, region_width, region_height = box_to_region(box, (width, height))
    assert 0 <= left < left + region_width <= width
    assert 0 <= top < top + region_height <= height
    inside = box[0] >= 0 and box[1] >= 0 and box[2] <= width - 1 and box[3] <= height - 1
    if inside:
        assert left <= box[0]
        assert left + region_width >= box[2]


odd_values = st.one_of(
    st.floats(0, 1, width=32),
    st.floats(width=32),
    st.sampled_from([np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-45]),
)


@given(st.data(), st.floats(0, 1))
@settings(max_examples=50, deadline=None)
def test_any_output_of_the_detector_gives_valid_faces(data, min_score):
    size = (64, 96)
    cells = [(size[0] // stride) * (size[1] // stride) for stride in STRIDES]
    outputs = []
    for channels in (1, 1, 4, 10):
        for count in cells:
            grid = np.full((1, count, channels), 0.9, np.float32)
            for _ in range(data.draw(st.integers(0, 4))):
                place = (
                    data.draw(st.integers(0, count - 1)),
                    data.draw(st.integers(0, channels - 1)),
                )
                grid[(0, *place)] = data.draw(odd_values)
            outputs.append(grid)
    scores, found, landmarks = decode(outputs, size, min_score)
    assert len(scores) == len(found) == len(landmarks)
    assert ((scores >= min_score) & (scores <= 1)).all()
    assert np.isfinite(found).all()
    assert np.isfinite(landmarks).all()
    assert (found[:, 2:] >= found[:, :2]).all()


@st.composite
def scenes(draw: st.DrawFn) -> list[tuple[int, list[Any]]]:
    """Frames with their stamps, which may jump back and forth, and their faces."""
    frames = []
    for _ in range(draw(st.integers(1, 8))):
        stamp_ns = draw(st.one_of(st.integers(0, 10**9), st.integers(-(2**31), 2**31)))
        frames.append(
            (stamp_ns, draw(st.lists(st.tuples(boxes(), st.integers(0, 99)), max_size=6)))
        )
    return frames


def to_expression(box: np.ndarray, seed: int) -> FaceExpression:
    face = Face(box, 0.9, np.zeros((0, 2), np.float32))
    count = len(labels.CANONICAL)
    if seed % 7 == 0:
        return FaceExpression(face, np.zeros(count, np.float32), quality.BLURRED)
    weights = np.random.default_rng(seed).exponential(size=count)
    return FaceExpression(face, (weights / weights.sum()).astype(np.float32))


@given(scenes())
@settings(max_examples=50, deadline=None)
def test_any_scene_gives_each_face_an_id_of_its_own_and_probabilities(scene):
    follower = FaceTracker(f'f{number}' for number in itertools.count(1))
    for stamp_ns, faces in scene:
        seen = [to_expression(*face) for face in faces]
        followed = follower.update(seen, stamp_ns)
        assert [face.raw for face in followed] == seen
        assert len({face.face_id for face in followed}) == len(seen)
        for face in followed:
            total = float(face.probabilities.sum())
            assert total == pytest.approx(1, abs=1e-5) if face.raw.is_classified else total == 0
            assert face.expression in (*range(len(labels.CANONICAL)), labels.UNKNOWN)
        assert follower.face_ids >= {face.face_id for face in followed}


@given(
    st.sampled_from(sorted(SPECS)),
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=20),
        st.binary(max_size=8),
        st.lists(st.one_of(st.text(alphabet='ab/~{}_1 ', max_size=8), st.integers()), max_size=3),
    ),
)
@settings(max_examples=150, deadline=None)
def test_any_value_of_a_parameter_is_taken_or_refused_in_a_line(name, value):
    spec = SPECS[name]
    problem = spec.problem_with(value)
    assert len(problem.splitlines()) <= 1
    if problem:
        assert name in problem
    else:
        taken = spec.to_value(value)
        assert type(taken) is type(spec.default)
        assert not spec.limits or spec.limits[0] <= taken <= spec.limits[1]
