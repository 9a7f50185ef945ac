# SPDX-License-Identifier: Apache-2.0
"""Tests that need their own node: signals, backends, invalid overrides, a camera program."""

import signal
from pathlib import Path

import pytest
from robot import Program
from test_node import ERROR, SHARE


def test_two_runs_give_different_ids(robot, start, smile):
    other = start()
    ids = {each.show(smile).faces[0].face_id for each in (robot, other)}
    assert len(ids) == 2
    assert all(face_id.isidentifier() for face_id in ids)


def test_the_default_backend_never_loads_torch(start, smile):
    robot = start()
    robot.show(smile)
    maps = Path(f'/proc/{robot.node.pid}/maps').read_text()
    assert 'onnxruntime' in maps
    assert 'libtorch' not in maps


def test_both_signals_at_once_are_one(start):
    program = start().node
    program.send_signal(signal.SIGTERM)
    assert program.stop(signal.SIGINT) == 0


@pytest.mark.parametrize('library', ['libpython|libc.so', '_rclpy_pybind11', 'onnxruntime'])
def test_a_signal_during_start_ends_it_with_code_0(tmp_path, library):
    """The first libraries are loaded before Python can handle signals."""
    program = Program('dan_node', log=tmp_path / 'log')
    program.wait_for_library(library.split('|')[-1])
    allowed = (0, -signal.SIGTERM) if 'libc' in library else (0,)
    assert program.stop(signal.SIGTERM) in allowed
    assert 'Traceback' not in program.output


def test_qos_overrides_are_honored(start, smile):
    robot = start('-p', 'qos_overrides./image.subscription.reliability:=reliable')
    assert 'qos_overrides' not in robot.output
    (endpoint,) = robot.client.get_subscriptions_info_by_topic('/image')
    assert endpoint.qos_profile.reliability.name == 'RELIABLE'
    assert len(robot.show(smile).faces) == 1


@pytest.mark.parametrize('value', ['reliability:=sometimes', 'depth:=-1', 'history:=5'])
def test_an_invalid_qos_override_fails_activation_in_one_line(start, value):
    robot = start('-p', f'qos_overrides./image.subscription.{value}', wait=False)
    robot.node.wait_for_output('activate failed')
    status, _ = robot.wait_status(lambda s, _: s.level == ERROR, 'the failure')
    assert 'qos_overrides' in status.message
    lines = robot.output.split('activate failed')[1].strip().splitlines()
    assert len(lines) == 1
    assert robot.state == 'inactive'


def test_the_sample_camera_feeds_the_node(robot, tmp_path):
    robot.reconfigure(topic='/camera/image_raw', image_topics=['/camera/image_raw'])
    camera = Program(
        'sample_camera',
        '-r',
        'image_raw:=/camera/image_raw',
        '-p',
        'rate_hz:=15.0',
        log=tmp_path / 'camera.log',
        domain=robot.domain,
        # Profile for cameras, as advised in README.md; without it, most large images would be lost
        FASTDDS_DEFAULT_PROFILES_FILE=str(SHARE / 'config' / 'fastdds_large_images.xml'),
    )
    try:
        robot.spin_until(lambda: len(robot.faces) >= 5, 'faces of the sample camera')
    finally:
        assert camera.stop() == 0
    assert {face.camera for face in robot.faces} == {'/camera/image_raw'}
    assert robot.faces[-1].label == 'happy'
