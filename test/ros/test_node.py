"""The real node in its own process, over real DDS."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ament_index_python.packages import get_package_share_directory
from lifecycle_msgs.msg import Transition
from robot import PROGRAMS, SMALL, Program, Robot
from sensor_msgs.msg import Image

from dan_ros.backends import cuda

without_gpu = pytest.mark.skipif(cuda.find_device() is not None, reason='there is a CUDA device')
SHARE = Path(get_package_share_directory('dan_ros'))
OK, WARN, ERROR = b'\x00', b'\x01', b'\x02'


@pytest.fixture(scope='module')
def robot(tmp_path_factory):
    """One running robot with default parameters, for tests that leave it as it was."""
    shared = Robot(tmp_path_factory.mktemp('robot') / 'node.log')
    shared.wait_active()
    yield shared
    assert shared.close() == 0
    assert 'Traceback' not in shared.node.output


# --- what it publishes --------------------------------------------------------------------------


def test_a_face_gives_a_message(robot, smile):
    sent = robot.image(smile)
    frame = robot.send_until_answered(sent)
    (face,) = frame.faces
    assert face.header == sent.header == frame.header
    assert face.camera == frame.camera == '/image'
    assert (face.label, face.expression) == ('happy', face.HAPPY)
    assert face.confidence == max(face.probabilities) > 0.7
    assert sum(face.probabilities) == pytest.approx(1, abs=1e-4)
    np.testing.assert_array_equal(face.probabilities, face.raw_probabilities)
    assert len(face.landmarks) == 5
    assert 0.6 < face.detection_confidence <= 1
    assert face.face_id[0].isalpha()
    assert list(face.pose) == []
    roi = face.roi
    assert roi.x_offset < face.landmarks[2].x < roi.x_offset + roi.width <= SMALL[0]
    assert roi.y_offset < face.landmarks[2].y < roi.y_offset + roi.height <= SMALL[1]
    robot.spin_until(lambda: face in robot.faces, 'the same face on facial_expression')


def test_nobody_gives_an_empty_array_and_no_face(robot, nobody):
    robot.spin(0.3)
    robot.faces.clear()
    assert robot.show(nobody).faces == []
    assert robot.faces == []


def test_a_moving_face_keeps_its_id(robot, smile):
    ids = []
    for step in range(20):
        shifted = np.roll(smile, 3 * step, axis=1)
        ids += [face.face_id for face in robot.show(shifted).faces]
    assert len(ids) == 20
    assert len(set(ids)) == 1


def test_two_runs_give_different_ids(robot, start, smile):
    other = start()
    ids = {each.show(smile).faces[0].face_id for each in (robot, other)}
    assert len(ids) == 2
    assert all(face_id.isidentifier() for face_id in ids)


def test_stamps_are_copied_unchanged_and_an_earlier_one_starts_afresh(robot, smile):
    (first,) = robot.show(smile).faces
    for stamp_ns in (0, -1_500_000_000):
        frame = robot.show(smile, stamp_ns=stamp_ns)
        assert frame.header.stamp.sec * 1_000_000_000 + frame.header.stamp.nanosec == stamp_ns
        (face,) = frame.faces
        assert face.face_id != first.face_id


def test_debug_image_is_drawn_while_somebody_looks(robot, smile):
    robot.show(smile)
    looking = robot.client.create_subscription(
        Image, '/dan_node/debug_image', robot.pictures.append, 10
    )
    try:
        robot.spin_until(lambda: robot.pictures, 'a debug image', every=lambda: robot.show(smile))
    finally:
        robot.client.destroy_subscription(looking)
    picture = robot.pictures[-1]
    assert (picture.encoding, picture.width, picture.height) == ('bgr8', *SMALL)
    pixels = np.frombuffer(picture.data, np.uint8).reshape(smile.shape)
    changed = (pixels != smile).any(axis=2)
    assert 0.005 < changed.mean() < 0.5


def test_diagnostics_at_1_hz_say_what_really_runs(robot, nobody):
    robot.show(nobody)
    robot.diagnostics.clear()
    started_s = time.monotonic()
    robot.spin_until(lambda: len(robot.diagnostics) >= 3, 'three diagnostics')
    assert 1.5 < time.monotonic() - started_s < 5
    values = {v.key: v.value for v in robot.diagnostics[-1].values}
    assert (values['backend'], values['device']) == ('onnxruntime', 'cpu')
    assert (values['detector'], values['model'], values['state']) == (
        'yunet',
        'dan_ferplus_int8',
        'active',
    )
    assert int(values['frames_received']) >= int(values['frames_processed']) > 0
    assert {'fps', 'latency_ms', 'faces'} <= set(values)


def test_a_silent_camera_is_a_warning_until_it_is_back(robot, nobody):
    robot.wait_status(lambda s, _: s.level == WARN and 'no image' in s.message, 'silence')

    def send():
        robot.publisher.publish(robot.image(nobody))

    robot.diagnostics.clear()
    robot.spin_until(
        lambda: any(s.level == OK for s in robot.diagnostics), 'the camera is back', every=send
    )
    fps = [float(v.value) for v in robot.diagnostics[-1].values if v.key == 'fps']
    assert fps[0] > 0


def test_the_default_backend_never_loads_torch(robot, smile):
    robot.show(smile)
    maps = Path(f'/proc/{robot.node.process.pid}/maps').read_text()
    assert 'onnxruntime' in maps
    assert 'libtorch' not in maps


def test_the_newest_image_wins_and_every_drop_is_counted(robot, smile):
    before = robot.wait_status(lambda *_: True, 'any')[1]
    messages = [robot.image(smile) for _ in range(40)]
    for message in messages:  # faster than a face can be judged, slow enough for the middleware
        robot.publisher.publish(message)
        robot.spin(0.002)
    robot.send_until_answered(messages[-1])
    stamps = [f.header.stamp.sec * 10**9 + f.header.stamp.nanosec for f in robot.frames[-5:]]
    assert stamps == sorted(stamps)

    def is_settled(_, values):
        return int(values['frames_received']) > int(before['frames_received'])

    robot.spin(1.2)
    values = robot.wait_status(is_settled, 'counts')[1]
    dropped = sum(int(v) for k, v in values.items() if k.startswith('frames_dropped.'))
    lost = int(values.get('frames_dropped.lost', 0))
    received, processed = int(values['frames_received']), int(values['frames_processed'])
    assert received == processed + dropped - lost
    assert int(values['frames_dropped.superseded']) > 0


# --- parameters ----------------------------------------------------------------------------------


def test_an_unknown_value_is_refused_with_the_allowed_ones(robot):
    refused = robot.set_parameters(image_rotation=45)
    assert not refused.successful
    assert '0, 90, 180, 270' in refused.reason
    refused = robot.set_parameters(detector__min_score=1.5)
    assert not refused.successful
    refused = robot.set_parameters(max_faces='many')
    assert not refused.successful


def test_a_change_that_needs_configuring_is_refused_while_configured(robot):
    refused = robot.set_parameters(backend__name='torch')
    assert not refused.successful
    assert 'clean it up' in refused.reason


def test_several_changes_are_taken_or_refused_as_a_whole(robot, smile):
    refused = robot.set_parameters(expression__min_confidence=1.0, max_faces=0)
    assert not refused.successful
    assert robot.show(smile).faces[0].label == 'happy'
    assert robot.set_parameters(expression__min_confidence=1, max_faces=5).successful
    (face,) = robot.show(smile).faces
    assert (face.label, face.expression) == ('unknown', face.UNKNOWN)
    assert face.confidence > 0.7
    assert robot.set_parameters(expression__min_confidence=0.35, max_faces=16).successful


# --- start and stop -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    'argument',
    [
        'image_rotation:=45',
        'detector.min_score:=high',
        'max_faces:=0',
        'backend.name:=gpu',
        'image_topics:=[]',
        'image_topics:=["no topic!"]',
        'image_topics:=["{no_such}/image"]',
        'image_topics:=["left//image"]',
        'use_sim_time:=5',
    ],
)
def test_a_bad_parameter_at_start_is_one_line_and_exit_code_2(argument):
    result = subprocess.run(
        [sys.executable, PROGRAMS / 'dan_node', '--ros-args', '-p', argument],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 2
    assert len(result.stderr.strip().splitlines()) == 1
    assert argument.split(':')[0] in result.stderr
    assert 'Traceback' not in result.stderr


def test_whole_numbers_pass_for_floats_and_unknown_names_are_warned_about(start, nobody):
    robot = start('-p', 'rate.max_hz:=5', '-p', 'detector.min_scores:=0.5')
    assert "'detector.min_scores'" in robot.node.output
    robot.show(nobody)
    robot.frames.clear()
    end_s = time.monotonic() + 3
    while time.monotonic() < end_s:
        robot.publisher.publish(robot.image(nobody))
        robot.spin(0.02)
    assert 8 <= len(robot.frames) <= 17


def test_both_signals_at_once_are_one(tmp_path):
    program = Program('dan_node', log=tmp_path / 'log')
    program.wait_for_output('active: waiting')
    program.process.send_signal(signal.SIGTERM)
    assert program.stop(signal.SIGINT) == 0


def test_a_signal_during_start_ends_it_with_code_0(tmp_path):
    for delay_s in (0.25, 0.5, 0.8):
        program = Program('dan_node', log=tmp_path / 'log')
        time.sleep(delay_s)
        assert program.stop(signal.SIGTERM) in (0, -signal.SIGTERM)  # before Python is up
        assert 'Traceback' not in program.output


def test_the_lifecycle_by_hand_and_again(start, smile):
    robot = start('-p', 'autostart:=false', wait=False)
    assert robot.state == 'unconfigured'
    assert robot.wait_status(lambda s, v: v['state'] == 'unconfigured', 'unconfigured')
    for _ in range(3):
        assert robot.change_state(Transition.TRANSITION_CONFIGURE)
        assert robot.state == 'inactive'
        assert robot.change_state(Transition.TRANSITION_ACTIVATE)
        assert len(robot.show(smile).faces) == 1
        assert robot.change_state(Transition.TRANSITION_DEACTIVATE)
        assert robot.publisher.get_subscription_count() == 0
        assert robot.change_state(Transition.TRANSITION_CLEANUP)
        assert robot.state == 'unconfigured'


def test_parameters_can_change_between_cleanup_and_configure(start, smile):
    robot = start()
    assert robot.change_state(Transition.TRANSITION_DEACTIVATE)
    assert robot.change_state(Transition.TRANSITION_CLEANUP)
    assert not robot.set_parameters(image_topics=['no topic!']).successful
    assert robot.set_parameters(backend__name='torch').successful
    assert robot.change_state(Transition.TRANSITION_CONFIGURE)
    assert robot.change_state(Transition.TRANSITION_ACTIVATE)
    assert robot.show(smile).faces[0].label == 'happy'
    assert robot.wait_status(lambda s, v: v['backend'] == 'torch', 'torch in use')


@without_gpu
def test_a_gpu_that_is_not_there_fails_configure_and_says_so(start):
    robot = start('-p', 'backend.name:=tensorrt', wait=False)
    robot.node.wait_for_output('no CUDA device')
    assert robot.state == 'unconfigured'
    status, _ = robot.wait_status(lambda s, _: 'no CUDA device' in s.message, 'the failure')
    assert status.level == b'\x02'
    assert robot.set_parameters(backend__name='auto').successful
    assert robot.change_state(Transition.TRANSITION_CONFIGURE)


@without_gpu
def test_with_fallback_the_cpu_works_and_the_diagnostics_warn(start, smile):
    robot = start('-p', 'backend.name:=torch_cuda', '-p', 'backend.fallback:=true')
    assert robot.show(smile).faces
    status, values = robot.wait_status(lambda s, _: 'runs on the CPU' in s.message, 'a warning')
    assert status.level == b'\x01'
    assert (values['backend'], values['device']) == ('onnxruntime', 'cpu')
    assert 'torch_cuda cannot be used: no CUDA device' in values['backend_why']


def test_a_lost_gpu_ends_the_process_so_that_it_can_be_started_anew(tmp_path, smile):
    """The real node with a network that fails as a GPU does after a sticky error."""
    code = (
        'from dan_ros.errors import GpuLostError\n'
        'from dan_ros.backends import onnxruntime\n'
        'from dan_ros.ros.spin import run_until_signal\n'
        'import sys\n'
        'real, runs = onnxruntime.OnnxRuntimeBackend.infer, []\n'
        'def infer(self, faces):\n'
        '    if len(faces): runs.append(1)\n'
        '    if len(runs) > 3: raise GpuLostError("illegal memory access")\n'
        '    return real(self, faces)\n'
        'onnxruntime.OnnxRuntimeBackend.infer = infer\n'
        'def node():\n'
        '    from dan_ros.ros.node import DanNode\n'
        '    return DanNode\n'
        'sys.exit(run_until_signal(node))\n'
    )
    script = tmp_path / 'node.py'
    script.write_text(code)
    robot = Robot(tmp_path / 'log', script=script)
    try:
        robot.node.wait_for_output('waiting for images')
        robot.spin_until(
            lambda: robot.node.process.poll() is not None,
            'the end of the process',
            every=lambda: robot.publisher.publish(robot.image(smile)),
        )
        assert robot.node.process.returncode == 3
        assert 'illegal memory access' in robot.node.output
        assert 'Traceback' not in robot.node.output
    finally:
        robot.close()


def test_several_cameras_in_a_namespace(start, smile, nobody):
    robot = start(
        '-p',
        "image_topics:=['left/image', '/right/image']",
        '-r',
        '__ns:=/head',
        topic='/head/left/image',
        name='/head/dan_node',
    )
    right = robot.new_publisher('/right/image')
    left_frame = robot.show(smile)
    right_frame = robot.send_until_answered(robot.image(smile), right)
    assert (left_frame.camera, right_frame.camera) == ('/head/left/image', '/right/image')
    assert left_frame.faces[0].face_id != right_frame.faces[0].face_id
    empty_frame = robot.send_until_answered(robot.image(nobody), right)
    assert (empty_frame.camera, empty_frame.faces) == ('/right/image', [])


def test_qos_overrides_are_honoured(start, smile):
    robot = start('-p', 'qos_overrides./image.subscription.reliability:=reliable')
    assert 'qos_overrides' not in robot.node.output
    (endpoint,) = robot.client.get_subscriptions_info_by_topic('/image')
    assert endpoint.qos_profile.reliability.name == 'RELIABLE'
    assert len(robot.show(smile).faces) == 1


@pytest.mark.parametrize('value', ['reliability:=sometimes', 'depth:=-1', 'history:=5'])
def test_a_bad_qos_override_fails_activation_in_one_line(start, value):
    robot = start('-p', f'qos_overrides./image.subscription.{value}', wait=False)
    robot.node.wait_for_output('activate failed')
    status, _ = robot.wait_status(lambda s, _: s.level == ERROR, 'the failure')
    assert 'qos_overrides' in status.message
    lines = robot.node.output.split('activate failed')[1].strip().splitlines()
    assert len(lines) == 1
    assert robot.state == 'inactive'


def test_simulated_time_without_a_clock(start, smile):
    robot = start('-p', 'use_sim_time:=true')
    assert len(robot.show(smile).faces) == 1
    assert robot.wait_status(lambda s, v: v['state'] == 'active', 'diagnostics')


def test_the_sample_camera_feeds_the_node(start, tmp_path):
    robot = start('-r', 'image:=/camera/image_raw', topic='/camera/image_raw')
    camera = Program(
        'sample_camera',
        '-r',
        'image_raw:=/camera/image_raw',
        '-p',
        'rate_hz:=15.0',
        log=tmp_path / 'camera.log',
        domain=robot.domain,
        # as README.md advises for cameras: else most of its large images would be lost on their way
        FASTDDS_DEFAULT_PROFILES_FILE=str(SHARE / 'config' / 'fastdds_large_images.xml'),
    )
    robot.spin_until(lambda: len(robot.faces) >= 5, 'faces of the sample camera')
    assert camera.stop() == 0
    assert {face.camera for face in robot.faces} == {'/camera/image_raw'}
    assert robot.faces[-1].label == 'happy'


@pytest.mark.parametrize('source', ['/no/such/video.mp4', '99'])
def test_a_source_that_is_not_there_is_one_line_and_exit_code_2(tmp_path, source):
    camera = Program('sample_camera', '-p', f"source:='{source}'", log=tmp_path / 'log')
    assert camera.process.wait(60) == 2
    assert source in camera.output.splitlines()[-1]
