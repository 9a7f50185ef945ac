# SPDX-License-Identifier: Apache-2.0
"""The real node over real DDS: what it publishes, its parameters, its start and stop."""

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
import rclpy
from ament_index_python.packages import get_package_share_directory
from click.testing import CliRunner
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from model_files import write_calibration, write_model
from rcl_interfaces.srv import GetParameters, ListParameters, SetParameters
from rclpy.exceptions import ParameterException
from rclpy.parameter import Parameter, parameter_value_to_python
from recording import read_arrays, record_images, run_bag
from robot import PROGRAMS, SMALL, Program, Robot
from sensor_msgs.msg import Image

from dan_ros.backends import cuda
from dan_ros.cli import predict
from dan_ros.errors import ParameterError
from dan_ros.ros.node import DanNode
from dan_ros.types import Frame

without_gpu = pytest.mark.skipif(cuda.find_device() is not None, reason='there is a CUDA device')
SHARE = Path(get_package_share_directory('dan_ros'))
OK, WARN, ERROR = b'\x00', b'\x01', b'\x02'


def seconds(stamp) -> float:
    return stamp.sec + 1e-9 * stamp.nanosec


# --- messages -----------------------------------------------------------------------------------


def test_a_face_gives_a_message(robot, smile):
    sent = robot.image(smile)
    frame = robot.send_until_answered(sent)
    (face,) = frame.faces
    assert face.header == sent.header == frame.header
    assert face.camera == frame.camera == '/image'
    assert (face.label, face.expression) == ('happy', face.HAPPY)
    assert face.confidence == max(face.probabilities) > 0.7
    assert sum(face.probabilities) == pytest.approx(1, abs=1e-4)
    assert len(face.landmarks) == 5
    assert 0.6 < face.detection_confidence <= 1
    assert face.face_id[0].isalpha()
    assert list(face.pose) == []
    roi = face.roi
    assert roi.x_offset < face.landmarks[2].x < roi.x_offset + roi.width <= SMALL[0]
    assert roi.y_offset < face.landmarks[2].y < roi.y_offset + roi.height <= SMALL[1]
    robot.spin_until(lambda: face in robot.faces, 'the same face on facial_expression')


def test_nobody_gives_an_empty_array_and_no_face(robot, nobody, smile):
    assert robot.show(nobody).faces == []
    (face,) = robot.show(smile).faces
    robot.spin_until(lambda: face in robot.faces, 'the face of the second image')
    assert {other.header.stamp.nanosec for other in robot.faces} == {face.header.stamp.nanosec}


def test_a_moving_face_keeps_its_id(robot, smile):
    ids = []
    for step in range(20):
        shifted = np.roll(smile, 3 * step, axis=1)
        ids += [face.face_id for face in robot.show(shifted).faces]
    assert len(ids) == 20
    assert len(set(ids)) == 1


def test_stamps_are_copied_unchanged_and_an_earlier_one_resets_the_tracks(robot, smile):
    (first,) = robot.show(smile).faces
    for stamp_ns in (0, -1_500_000_000):
        frame = robot.show(smile, stamp_ns)
        assert frame.header.stamp.sec * 1_000_000_000 + frame.header.stamp.nanosec == stamp_ns
        (face,) = frame.faces
        assert face.face_id != first.face_id
        np.testing.assert_array_equal(face.probabilities, face.raw_probabilities)


def test_the_debug_image_is_drawn_while_somebody_subscribes(robot, smile):
    pictures = robot.received('/dan_node/debug_image', Image)
    robot.spin_until(lambda: pictures, 'a debug image', every=lambda: robot.show(smile))
    picture = pictures[-1]
    assert (picture.encoding, picture.width, picture.height) == ('bgr8', *SMALL)
    pixels = np.frombuffer(picture.data, np.uint8).reshape(smile.shape)
    changed = (pixels != smile).any(axis=2)
    assert 0.005 < changed.mean() < 0.5


def test_faces_are_hidden_in_the_debug_image_from_one_image_to_the_next(robot, smile, pipeline):
    pictures = robot.received('/dan_node/debug_image', Image)

    def faces_in_the_next_picture():
        pictures.clear()
        robot.spin_until(lambda: pictures, 'a debug image', every=lambda: robot.show(smile))
        pixels = np.frombuffer(pictures[-1].data, np.uint8).reshape(smile.shape)
        np.testing.assert_array_equal(pixels[210:], smile[210:])
        return len(pipeline.find_faces(Frame(pixels)))

    assert faces_in_the_next_picture() == 1
    assert robot.set_parameters(privacy__blur=True).successful
    assert faces_in_the_next_picture() == 0
    assert robot.show(smile).faces[0].label == 'happy'


# --- diagnostics --------------------------------------------------------------------------------


def test_diagnostics_come_once_a_second(robot):
    """No interval may be too short, and one must be exact: a loaded machine delays others."""
    messages = robot.received('/diagnostics', DiagnosticArray)

    def intervals():
        stamps = [seconds(message.header.stamp) for message in messages]
        return [later - earlier for earlier, later in pairwise(stamps)]

    robot.spin_until(lambda: [s for s in intervals() if s < 1.2], 'two diagnostics in a second')
    assert min(intervals()) > 0.9


def test_diagnostics_tell_what_really_runs(robot, nobody):
    robot.show(nobody)
    _, values = robot.wait_status(  # the node counts an image after its answer
        lambda _, v: int(v['frames_processed']) > 0, 'a processed image'
    )
    assert (values['backend'], values['device']) == ('onnxruntime', 'cpu')
    assert (values['detector'], values['model'], values['state']) == (
        'yunet',
        'dan_ferplus_int8',
        'active',
    )
    assert int(values['frames_received']) >= int(values['frames_processed'])
    assert {'fps', 'latency_ms', 'faces'} <= set(values)


def test_a_silent_camera_is_a_warning_until_it_is_back(robot, nobody):
    robot.wait_status(lambda s, _: s.level == WARN and 'no image' in s.message, 'silence')
    robot.diagnostics.clear()

    def is_back(status) -> bool:
        (fps,) = (float(v.value) for v in status.values if v.key == 'fps')
        return status.level == OK and fps > 0

    robot.spin_until(  # an image ends the silence when it arrives, and counts after its answer
        lambda: any(map(is_back, robot.diagnostics)),
        'the camera is back',
        every=lambda: robot.publisher.publish(robot.image(nobody)),
    )


def test_the_newest_image_wins_and_every_drop_is_counted(robot, smile):
    before = robot.values()
    messages = [robot.image(smile) for _ in range(40)]
    for message in messages:  # faster than inference, slow enough for the middleware
        robot.publisher.publish(message)
        robot.spin(0.002)
    robot.send_until_answered(messages[-1])
    stamps = [f.header.stamp.sec * 10**9 + f.header.stamp.nanosec for f in robot.frames[-5:]]
    assert stamps == sorted(stamps)

    def is_complete(_, values):
        """Every image is counted once; `lost` counts images that the middleware lost before."""
        dropped = sum(int(v) for k, v in values.items() if k.startswith('frames_dropped.'))
        dropped -= int(values['frames_dropped.lost'])
        received, processed = int(values['frames_received']), int(values['frames_processed'])
        return received > int(before['frames_received']) and received == processed + dropped

    values = robot.wait_status(is_complete, 'each image is counted once')[1]
    superseded = 'frames_dropped.superseded'
    assert int(values[superseded]) > int(before[superseded])


def test_images_wake_one_thread_and_not_the_executor(robot, smile):
    def times_woken(thread: int) -> int:
        status = Path(f'/proc/{robot.node.pid}/task/{thread}/status').read_text()
        return int(status.partition('\nvoluntary_ctxt_switches:')[2].split()[0])

    robot.show(smile)
    started_s, before = time.monotonic(), times_woken(robot.node.pid)  # its executor's thread
    for _ in range(30):
        robot.show(smile)
    busy_s, busy = time.monotonic() - started_s, times_woken(robot.node.pid)
    time.sleep(busy_s)  # timers wake it without images, too
    assert (busy - before) - (times_woken(robot.node.pid) - busy) < 20


# --- parameters ---------------------------------------------------------------------------------


def test_an_invalid_value_is_refused_with_the_allowed_ones(robot):
    refused = robot.set_parameters(image_rotation=45)
    assert not refused.successful
    assert '0, 90, 180, 270' in refused.reason
    assert not robot.set_parameters(detector__min_score=1.5).successful
    assert robot.set_parameters(max_faces='many').reason.startswith("max_faces cannot be 'many'")


def test_a_prior_that_is_no_distribution_is_refused_in_one_line(robot):
    for value in ('flat', [0.5, 0.5], [0.2] * 8, [-1.0, 2.0] + [0.0] * 6, '0.5,0.5'):
        refused = robot.set_parameters(expression__prior=value)
        assert not refused.successful
        assert 'neutral, happy' in refused.reason
        assert '\n' not in refused.reason


def test_node_predict_and_bag_give_the_same_probabilities(robot, smile, tmp_path):
    model, calibration = tmp_path / 'model.onnx', tmp_path / 'robot.yaml'
    write_calibration(calibration, write_model(model))
    shares = [0.02, 0.02, 0.9, 0.01, 0.01, 0.02, 0.01, 0.01]
    options = {'model': model, 'calibration': calibration, 'prior': ','.join(map(str, shares))}
    words = [word for name, value in options.items() for word in (f'--{name}', str(value))]
    robot.reconfigure(
        model__file=str(model),
        expression__calibration=str(calibration),
        backend__name='onnxruntime',
        smoothing__half_life_s=0.0,
    )
    happy = robot.show(smile).faces[0]
    assert robot.set_parameters(expression__prior=shares).successful
    sad = robot.show(smile).faces[0]
    assert (happy.label, sad.label) == ('happy', 'sad')

    cv2.imwrite(str(tmp_path / 'smile.png'), smile)
    result = CliRunner().invoke(
        predict.command,
        [str(tmp_path / 'smile.png'), '--json', '--backend', 'onnxruntime', *words],
        catch_exceptions=False,
    )
    (face,) = json.loads(result.stdout.splitlines()[-1])['faces']
    np.testing.assert_allclose(
        list(face['probabilities'].values()), sad.raw_probabilities, atol=1e-4
    )
    bag = record_images(tmp_path / 'bag', [smile])
    assert run_bag(bag, tmp_path / 'out', '--backend', 'onnxruntime', *words).exit_code == 0
    ((_, array),) = read_arrays(tmp_path / 'out')
    np.testing.assert_allclose(array.faces[0].raw_probabilities, sad.raw_probabilities, atol=1e-4)


def test_a_calibration_for_another_model_fails_to_configure(robot, tmp_path):
    info = replace(write_model(tmp_path / 'model.onnx'), source_sha256='ab')
    write_calibration(tmp_path / 'robot.yaml', info)
    robot.clean_up()
    path = str(tmp_path / 'robot.yaml')
    assert robot.set_parameters(expression__calibration=path).successful
    assert not robot.change_state(Transition.TRANSITION_CONFIGURE)
    assert 'the calibration is for another model' in robot.output


def test_all_present_values_can_be_set_again_with_a_live_change(robot):
    """`ros2 param load` and set_parameters_atomically do this with a dump of the node."""
    names = robot.call(ListParameters, 'list_parameters', ListParameters.Request()).result.names
    names = [name for name in names if name != 'max_faces']
    assert 'qos_overrides./image.subscription.depth' in names
    request = GetParameters.Request(names=names)
    values = robot.call(GetParameters, 'get_parameters', request).values
    dump = {n: parameter_value_to_python(v) for n, v in zip(names, values, strict=True)}
    changes = {name.replace('.', '__'): value for name, value in dump.items()}
    result = robot.set_parameters(**changes, max_faces=3)
    assert result.successful, result.reason
    for name, value in (('model.file', 'another'), ('qos_overrides./image.subscription.depth', 9)):
        changed = {**changes, name.replace('.', '__'): value}
        refused = robot.set_parameters(**changed)
        assert not refused.successful
        assert name in refused.reason


@pytest.mark.parametrize('name', ['max_face', 'qos_overrides./no_topic.subscription.depth'])
def test_an_unknown_parameter_is_named(robot, name):
    request = SetParameters.Request(parameters=[Parameter(name, value=3).to_parameter_msg()])
    (refused,) = robot.call(SetParameters, 'set_parameters', request).results
    assert not refused.successful
    assert name in refused.reason


def test_several_changes_are_taken_or_refused_as_a_whole(robot, smile):
    refused = robot.set_parameters(expression__min_confidence=1.0, max_faces=0)
    assert not refused.successful
    assert robot.show(smile).faces[0].label == 'happy'
    assert robot.set_parameters(expression__min_confidence=1, max_faces=5).successful
    (face,) = robot.show(smile).faces
    assert (face.label, face.expression) == ('unknown', face.UNKNOWN)
    assert face.confidence > 0.7


def test_the_backend_can_change_between_clean_up_and_configure(robot, smile):
    robot.reconfigure(backend__name='openvino')
    assert robot.show(smile).faces[0].label == 'happy'
    assert robot.wait_status(lambda s, v: v['backend'] == 'openvino', 'OpenVINO in use')


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
        'depth_topics:=["/left", "/right"]',
        'use_sim_time:=5',
    ],
)
def test_an_invalid_parameter_at_start_is_refused(argument):
    context = rclpy.Context()
    rclpy.init(args=['--ros-args', '-p', argument], context=context)
    try:
        with pytest.raises((ParameterError, ParameterException), match=argument.split(':')[0]):
            DanNode(context=context)
    finally:
        rclpy.shutdown(context=context)


def test_the_installed_modules_are_compiled():
    (module,) = PROGRAMS.parents[1].rglob('dan_ros/ros/node.py')
    assert Path(importlib.util.cache_from_source(module)).exists()


@pytest.mark.parametrize(
    ('words', 'variables', 'message'),
    [
        (['--ros-args', '-r', '__ns:=/a/'], {}, '.*namespace must not end with'),
        ([], {'ROS_LOG_DIR': '/dev/null/log'}, '.*/dev/null/log.*; set ROS_LOG_DIR to a folder'),
    ],
)
def test_what_prevents_a_start_is_one_line_and_exit_code_2(words, variables, message):
    result = subprocess.run(
        [sys.executable, PROGRAMS / 'dan_node', *words],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    (line,) = result.stderr.strip().splitlines()
    assert re.match(f'dan_node: {message}', line)


def test_integers_pass_for_floats_and_what_is_ignored_is_warned_about(start, nobody):
    """At 5 Hz, eight more results of a fast camera take at least seven fifths of a second."""
    unknown = ('-p', 'detector.min_scores:=0.5', '--', '-p', 'max_faces:=4')
    override = 'qos_overrides./{}.subscription.depth'
    topics = [word for name in ('image', 'imag') for word in ('-p', f'{override.format(name)}:=2')]
    robot = start('-p', 'rate.max_hz:=5', *topics, *unknown)
    assert "'detector.min_scores'" in robot.output
    robot.node.wait_for_output(f'ignored: {override.format("imag")};')
    assert 'ignored: -p max_faces:=4;' in robot.output
    robot.show(nobody)
    robot.frames.clear()
    started_s = time.monotonic()
    robot.spin_until(
        lambda: len(robot.frames) > 8,
        'results',
        every=lambda: robot.publisher.publish(robot.image(nobody)),
        period_s=0.02,
    )
    assert time.monotonic() - started_s > 7 / 5


# --- lifecycle ----------------------------------------------------------------------------------


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
        robot.spin_until(lambda: robot.publisher.get_subscription_count() == 0, 'no subscription')
        assert robot.change_state(Transition.TRANSITION_CLEANUP)
        assert robot.state == 'unconfigured'


@without_gpu
@pytest.mark.parametrize(
    ('parameter', 'value', 'usual', 'words'),
    [
        ('backend__name', 'tensorrt', 'auto', 'no CUDA device'),
        ('detector__device', 'cuda', 'cpu', 'detector.device cuda: no CUDA device'),
    ],
)
def test_a_gpu_that_is_not_there_fails_configure_and_says_so(robot, parameter, value, usual, words):
    robot.clean_up()
    assert robot.set_parameters(**{parameter: value}).successful
    assert not robot.change_state(Transition.TRANSITION_CONFIGURE)
    assert words in robot.output
    assert robot.state == 'unconfigured'
    status, _ = robot.wait_status(lambda s, _: words in s.message, 'the failure')
    assert status.level == ERROR
    assert robot.set_parameters(**{parameter: usual}).successful
    robot.configure()


def test_the_log_names_the_device_that_the_detector_really_uses(robot, smile):
    robot.reconfigure(detector__name='haar', detector__device='cuda')
    assert 'detector haar on cpu' in robot.output
    assert robot.show(smile).faces


@without_gpu
def test_with_fallback_the_cpu_works_and_the_diagnostics_warn(robot, smile):
    robot.reconfigure(backend__name='tensorrt', backend__fallback=True)
    assert robot.show(smile).faces
    status, values = robot.wait_status(lambda s, _: 'runs on the CPU' in s.message, 'a warning')
    assert status.level == WARN
    assert (values['backend'], values['device']) == ('onnxruntime', 'cpu')
    assert 'tensorrt cannot be used: no CUDA device' in values['backend_why']


MISSING_LIBRARY = """
import sys

from dan_ros.ros.spin import run_until_signal


def dan_node():
    import no_such_library


sys.exit(run_until_signal(dan_node))
"""


def test_a_missing_library_is_one_line_and_exit_code_2():
    result = subprocess.run(
        [sys.executable, '-c', MISSING_LIBRARY], capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith('dan_node: ')
    assert 'no_such_library' in line


@pytest.mark.skipif(
    os.environ.get('ROS_DISTRO') == 'humble', reason='Humble does not read ROS_STATIC_PEERS'
)
def test_a_middleware_that_does_not_start_is_worth_a_restart():
    """A real error of DDS, caused by an invalid host name."""
    result = subprocess.run(
        [sys.executable, PROGRAMS / 'dan_node'],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, 'ROS_STATIC_PEERS': '::::'},
    )
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith('dan_node: the middleware does not start: ')
    assert 'Traceback' not in result.stderr


LOST_GPU = """
import sys

from dan_ros.backends.onnxruntime import OnnxRuntimeBackend
from dan_ros.errors import GpuLostError
from dan_ros.ros.spin import run_until_signal

infer, runs = OnnxRuntimeBackend.infer, []


def fail_after_three_runs(self, faces):
    if len(faces):
        runs.append(1)
    if len(runs) > 3:
        raise GpuLostError('illegal memory access')
    return infer(self, faces)


def node_class():
    from dan_ros.ros.node import DanNode

    return DanNode


OnnxRuntimeBackend.infer = fail_after_three_runs
sys.exit(run_until_signal(node_class))
"""


def test_a_lost_gpu_ends_the_process_so_that_it_can_be_started_again(tmp_path, smile):
    """The real node with a network that fails as a GPU does after a sticky error."""
    script = tmp_path / 'node.py'
    script.write_text(LOST_GPU)
    robot = Robot(tmp_path / 'log', script=script)
    try:
        robot.wait_active()
        robot.spin_until(
            lambda: robot.node.exit_code is not None,
            'the end of the process',
            every=lambda: robot.publisher.publish(robot.image(smile)),
        )
        assert robot.node.exit_code == 3
        assert 'illegal memory access' in robot.output
        assert 'Traceback' not in robot.output
    finally:
        robot.close()


@pytest.mark.parametrize(
    ('program', 'number'), [('dan_node', signal.SIGHUP), ('sample_camera', signal.SIGTERM)]
)
def test_a_stopped_program_leaves_the_ros_graph_at_once(robot, tmp_path, program, number):
    """Otherwise the node would stay in the graph for 20 s, as after a crash."""
    other = Program(program, '-r', '__node:=other', log=tmp_path / 'log', domain=robot.domain)
    robot.spin_until(
        lambda: (
            robot.client.get_publishers_info_by_topic('/facial_expression')[1:]
            if program == 'dan_node'
            else 'other' in robot.client.get_node_names()
        ),
        'the other program',
    )
    assert other.stop(number) == 0, other.output
    left_s = time.monotonic()
    robot.spin_until(lambda: 'other' not in robot.client.get_node_names(), 'it is gone')
    assert time.monotonic() - left_s < 5


def test_debug_lines_tell_what_the_node_does_with_each_image(start, smile):
    robot = start('--log-level', 'dan_node:=debug')
    robot.show(smile)
    robot.node.wait_for_output('processed /image: faces [')
    bad = robot.image(smile)
    bad.step = 1
    robot.spin_until(  # only the first drop is logged as a warning
        lambda: robot.output.count('dropped an image of /image: bad_step') >= 2,
        'two dropped images',
        every=lambda: robot.publisher.publish(bad),
    )
    assert 'searched the full frame: found 1' in robot.output
    assert '[rcl' not in robot.output


def test_debug_lines_are_off_by_default(robot, smile):
    robot.show(smile)
    assert 'processed /image' not in robot.output


# --- names, QoS, time ---------------------------------------------------------------------------


def test_several_cameras_in_a_namespace(start, smile, nobody):
    topics = "image_topics:=['left/image', '/right/image']"
    names = {'topic': '/head/left/image', 'name': '/head/dan_node'}
    robot = start('-p', topics, '-r', '__ns:=/head', **names)
    right = robot.new_publisher('/right/image')
    left_frame = robot.show(smile)
    right_frame = robot.send_until_answered(robot.image(smile), right)
    assert (left_frame.camera, right_frame.camera) == ('/head/left/image', '/right/image')
    assert left_frame.faces[0].face_id != right_frame.faces[0].face_id
    empty_frame = robot.send_until_answered(robot.image(nobody), right)
    assert (empty_frame.camera, empty_frame.faces) == ('/right/image', [])


def test_simulated_time_without_a_clock(start, smile):
    robot = start('-p', 'use_sim_time:=true')
    assert len(robot.show(smile).faces) == 1
    assert robot.values()['state'] == 'active'


# --- the sample camera --------------------------------------------------------------------------


def test_a_missing_source_is_one_line_and_exit_code_2(tmp_path):
    camera = Program('sample_camera', '-p', 'source:=/no/such/video.mp4', log=tmp_path / 'log')
    assert camera.wait() == 2
    assert '/no/such/video.mp4' in camera.output.splitlines()[-1]
    assert 'Traceback' not in camera.output
