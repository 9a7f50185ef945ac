"""What holds whatever comes: no exception but a FrameError, bounded memory, and sound results.

`make stress` sends ten times as much.
"""

import itertools
from collections import Counter
from typing import Any

import cv2
import numpy as np
import psutil
import pytest
from amounts import MESSAGES, MESSAGES_OVER_DDS, ROUNDS, note
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from odd_messages import (
    BYTES_PER_PIXEL,
    OddImage,
    odd_calibrations,
    odd_headers,
    odd_images,
    odd_pictures,
)
from rclpy.serialization import serialize_message
from robot import Robot
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from dan_ros import labels
from dan_ros.detect.yunet import STRIDES, decode
from dan_ros.errors import FrameError
from dan_ros.faces import quality
from dan_ros.faces.camera_model import info_to_camera
from dan_ros.faces.crop import crop_face, square_about
from dan_ros.faces.head_pose import solve_poses
from dan_ros.images.compressed import check_compressed, compressed_to_frame
from dan_ros.images.encodings import ENCODINGS, check_image, image_to_frame
from dan_ros.messages import box_to_region
from dan_ros.ros.parameters import SPECS
from dan_ros.tracking.face_tracker import FaceTracker
from dan_ros.types import Face, FaceExpression, Frame

MAX_PIXELS = 1_000_000
GROWTH_MIB = 64  # of the process, over any number of messages
CAUSES = {'bad_encoding', 'bad_size', 'bad_step', 'bad_data', 'bad_format', 'too_large'}
MANY = settings(
    max_examples=MESSAGES,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
OVER_DDS = settings(MANY, max_examples=MESSAGES_OVER_DDS)


def memory_mib() -> float:
    return psutil.Process().memory_info().rss / 2**20


class Tally:
    """What became of messages, and how much memory they kept: hypothesis keeps some itself."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.growth_mib = 0.0
        self._before_mib = 0.0

    def begin(self) -> None:
        """A message comes; from here on memory is dan_ros's."""
        self._before_mib = memory_mib()

    def count(self, outcome: str) -> None:
        self.outcomes[outcome] += 1
        self.growth_mib += memory_mib() - self._before_mib

    def refuse(self, error: FrameError) -> None:
        assert error.cause in CAUSES
        assert len(str(error)) < 600
        self.count(error.cause)

    def report(self, name: str) -> None:
        note(
            name,
            messages=self.outcomes.total(),
            outcomes=dict(self.outcomes),
            memory_growth_mib=round(self.growth_mib, 1),
        )


def test_the_strategies_know_every_encoding():
    assert set(BYTES_PER_PIXEL) == set(ENCODINGS)


# --- messages against the library ---------------------------------------------------------------


def assert_sound(faces: list[FaceExpression]) -> None:
    for face in faces:
        assert np.isfinite(face.face.box_xyxy).all()
        total = face.probabilities.sum()
        assert total == pytest.approx(1, abs=1e-4) if face.is_judged else total == 0
        assert face.is_judged or face.reason in quality.REASONS


def test_any_image_gives_faces_or_a_frame_error(pipeline, portrait):
    pipeline.run([Frame(portrait)])
    tally = Tally()

    @MANY
    @given(odd_images())
    def send(image: OddImage) -> None:
        tally.begin()
        try:
            check_image(image)
            frame = image_to_frame(image)
        except FrameError as error:
            tally.refuse(error)
            return
        assert frame.size == (image.width, image.height)
        (faces,) = pipeline.run([frame])
        assert_sound(faces)
        tally.count('sound')

    for _ in range(ROUNDS):
        send()
    tally.report('images')
    assert tally.growth_mib < GROWTH_MIB
    assert tally.outcomes['sound'] > ROUNDS * MESSAGES / 4
    assert {'bad_encoding', 'bad_size', 'bad_step', 'bad_data'} <= set(tally.outcomes)
    assert len(pipeline.run([Frame(portrait)])[0]) == 1


def test_any_compressed_image_gives_faces_or_a_frame_error(pipeline, portrait):
    pipeline.run([Frame(portrait)])
    tally = Tally()

    @MANY
    @given(odd_pictures())
    def send(content: bytes) -> None:
        tally.begin()
        try:
            check_compressed(content, MAX_PIXELS)
            frame = compressed_to_frame(content, MAX_PIXELS)
        except FrameError as error:
            tally.refuse(error)
            return
        width, height = frame.size
        assert width * height <= MAX_PIXELS
        (faces,) = pipeline.run([frame])
        assert_sound(faces)
        tally.count('sound')

    for _ in range(ROUNDS):
        send()
    tally.report('compressed_images')
    assert tally.growth_mib < GROWTH_MIB
    assert tally.outcomes['sound'] > ROUNDS * MESSAGES / 10
    assert {'bad_format', 'bad_data', 'too_large'} <= set(tally.outcomes)
    assert len(pipeline.run([Frame(portrait)])[0]) == 1


@settings(MANY, max_examples=300)
@given(st.lists(odd_images(), min_size=1, max_size=4))
def test_several_cameras_share_a_batch(pipeline, images):
    frames = []
    for image in images:
        try:
            frames.append(image_to_frame(image))
        except FrameError:
            continue
    found = pipeline.run(frames)
    assert len(found) == len(frames)
    for faces in found:
        assert_sound(faces)


@given(odd_calibrations(), st.sampled_from(['/eye/image_raw', '/eye/image_rect']))
@settings(max_examples=MESSAGES // 2, deadline=None, database=None)
def test_any_calibration_gives_a_pose_or_none(portrait_landmarks, info, camera):
    calibrated = info_to_camera(info, camera)
    (pose,) = solve_poses([portrait_landmarks], calibrated, (320, 240))
    if pose is not None:
        assert np.isfinite(pose.position).all()
        assert np.linalg.norm(pose.quaternion_xyzw) == pytest.approx(1)


@pytest.fixture(scope='module')
def portrait_landmarks(pipeline, smile) -> np.ndarray:
    ((face,),) = pipeline.run([Frame(smile)])
    return face.face.landmarks


# --- messages over DDS, to the node ---------------------------------------------------------------


def image_of(odd: OddImage) -> Image:
    message = Image(
        height=odd.height,
        width=odd.width,
        encoding=odd.encoding,
        is_bigendian=odd.is_bigendian,
        step=odd.step,
    )
    message.data.frombytes(odd.data)
    return message


def assert_it_lives_on(
    robot: Robot, name: str, sent: int, before_mib: float, most_come: bool = True
) -> None:
    """Every message was counted, none raised, and memory is what it was."""
    robot.spin(1.5)  # the counts come once a second
    _, values = robot.wait_status(lambda *_: True, 'any')
    dropped = {k: int(v) for k, v in values.items() if k.startswith('frames_dropped.')}
    lost = dropped.pop('frames_dropped.lost', 0)
    received, processed = int(values['frames_received']), int(values['frames_processed'])
    assert received == processed + sum(dropped.values())
    assert received >= 0.9 * sent - lost or not most_come
    assert dropped['frames_dropped.failed'] == 0
    assert 'Traceback' not in robot.node.output
    assert 'ignored:' not in robot.node.output
    assert values['state'] == 'active'
    after_mib = psutil.Process(robot.node.process.pid).memory_info().rss / 2**20
    assert after_mib - before_mib < GROWTH_MIB
    note(
        name,
        messages=sent,
        received=received,
        processed=processed,
        dropped={k.removeprefix('frames_dropped.'): n for k, n in dropped.items() if n},
        lost=lost,
        memory_growth_mib=round(after_mib - before_mib, 1),
    )


def test_images_over_dds(start, smile):
    robot = start()
    robot.show(smile)
    info = robot.client.create_publisher(CameraInfo, 'camera_info', 1)
    before_mib = psutil.Process(robot.node.process.pid).memory_info().rss / 2**20
    sent = itertools.count()

    @OVER_DDS
    @given(odd_images(), odd_headers(), odd_calibrations())
    def send(odd: OddImage, header: Header, calibration: CameraInfo) -> None:
        message = image_of(odd)
        message.header = header
        info.publish(calibration)
        robot.publisher.publish(message)
        robot.spin(0.005)
        next(sent)

    send()
    assert_it_lives_on(robot, 'images_over_dds', next(sent), before_mib)
    assert robot.show(smile).faces[0].label == 'happy'


def test_compressed_images_over_dds(start, smile):
    robot = start('-p', 'image_transport:=compressed', topic='unused', wait=False)
    robot.node.wait_for_output('waiting for images')
    publisher = robot.client.create_publisher(CompressedImage, 'image/compressed', 5)
    header = robot.image(smile).header
    good = CompressedImage(header=header, data=cv2.imencode('.jpg', smile)[1].tobytes())
    robot.send_until_answered(good, publisher)
    before_mib = psutil.Process(robot.node.process.pid).memory_info().rss / 2**20
    sent = itertools.count()

    @OVER_DDS
    @given(odd_pictures(), st.text(max_size=8))
    def send(content: bytes, kind: str) -> None:
        publisher.publish(CompressedImage(format=kind, data=content))
        robot.spin(0.005)
        next(sent)

    send()
    assert_it_lives_on(robot, 'compressed_images_over_dds', next(sent), before_mib)
    good.header = robot.image(smile).header
    assert robot.send_until_answered(good, publisher).faces[0].label == 'happy'


def test_bytes_that_are_no_message_over_dds(start, smile):
    """The serialised form itself is damaged; some of it the middleware does not pass on."""
    robot = start()
    robot.show(smile)
    before_mib = psutil.Process(robot.node.process.pid).memory_info().rss / 2**20
    good = serialize_message(robot.image(smile[:60, :80]))
    sent = itertools.count()

    @OVER_DDS
    @given(
        st.lists(st.tuples(st.integers(4, 120), st.integers(0, 255)), max_size=4),
        st.one_of(st.just(len(good)), st.integers(4, len(good))),
    )
    def send(changes: list[tuple[int, int]], length: int) -> None:
        content = bytearray(good)
        for place, value in changes:
            content[place] = value
        robot.publisher.publish(bytes(content[:length]))
        robot.spin(0.005)
        next(sent)

    send()
    assert_it_lives_on(robot, 'bytes_over_dds', next(sent), before_mib, most_come=False)
    assert robot.show(smile).faces[0].label == 'happy'


# --- the steps between --------------------------------------------------------------------------

places = st.floats(-1e6, 1e6, width=32)
lengths = st.one_of(st.floats(0, 300, width=32), st.floats(0, 1e6, width=32))


@st.composite
def boxes(draw: st.DrawFn) -> np.ndarray:
    """Left, top, right, bottom: of any size, in and far outside of any image."""
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
@settings(deadline=None)
def test_any_box_gives_a_crop_of_the_image(box, encoding, width, height, scale, turns):
    """With pixels of the image alone: none is made up, none is left unset."""
    channels = {'mono8': (), 'bgra8': (4,), 'rgba8': (4,)}.get(encoding, (3,))
    image = np.full((height, width, *channels), 90, np.uint8)
    out = np.zeros((32, 24, 3), np.uint8)
    crop_face(Frame(image, encoding), box, scale, out, turns)
    assert (out == 90).all()


@given(boxes(), st.floats(0.1, 3.0))
def test_any_box_gives_a_square_about_its_centre(box, scale):
    left, top, side = square_about(box, scale)
    assert side >= 1
    slack = 1.5 + 1e-6 * np.abs(box).max()  # a pixel and a half, and what float32 can't hold
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


strange = st.one_of(
    st.floats(0, 1, width=32),
    st.floats(width=32),
    st.sampled_from([np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-45]),
)


@given(st.data(), st.floats(0, 1))
@settings(deadline=None)
def test_any_numbers_of_the_detector_give_sound_faces(data, min_score):
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
                grid[(0, *place)] = data.draw(strange)
            outputs.append(grid)
    scores, found, landmarks = decode(outputs, size, min_score)
    assert len(scores) == len(found) == len(landmarks)
    assert ((scores >= min_score) & (scores <= 1)).all()
    assert np.isfinite(found).all()
    assert np.isfinite(landmarks).all()
    assert (found[:, 2:] >= found[:, :2]).all()


@st.composite
def scenes(draw: st.DrawFn) -> list[tuple[int, list[Any]]]:
    """Frames with their stamps, which may jump to and fro, and their faces."""
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
@settings(deadline=None)
def test_any_scene_gives_each_face_an_id_of_its_own_and_probabilities(scene):
    follower = FaceTracker(f'f{number}' for number in itertools.count(1))
    for stamp_ns, faces in scene:
        seen = [to_expression(*face) for face in faces]
        followed = follower.update(seen, stamp_ns)
        assert [face.raw for face in followed] == seen
        assert len({face.face_id for face in followed}) == len(seen)
        for face in followed:
            total = float(face.probabilities.sum())
            assert total == pytest.approx(1, abs=1e-5) if face.raw.is_judged else total == 0
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
@settings(max_examples=500, deadline=None)
def test_any_value_of_a_parameter_is_taken_or_refused_in_a_line(name, value):
    spec = SPECS[name]
    problem = spec.problem_with(value)
    assert len(problem.splitlines()) <= 1
    if problem:
        assert name in problem
    else:
        taken = spec.to_value(value)
        assert type(taken) is type(spec.default)
        assert spec.minimum is None or spec.minimum <= taken <= spec.maximum
