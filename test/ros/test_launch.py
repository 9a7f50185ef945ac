# SPDX-License-Identifier: Apache-2.0
"""The launch files, where ROS's own launch is installed."""

import os
import signal
import subprocess

import pytest
from processes import Process
from recording import record_images

pytest.importorskip('launch_ros')
pytest.importorskip('ros2launch')

ARGUMENTS = (
    'image_topic', 'namespace', 'params_file', 'backend', 'model', 'autostart', 'use_sim_time',
    'log_level', 'image_transport', 'input', 'ros4hri', 'respawn',
)  # fmt: skip


@pytest.fixture
def launch(tmp_path):
    """Start launch files; the whole process group is killed at the end of the test."""
    started = []

    def start(*arguments: str, file: str = 'dan.launch.py') -> Process:
        command = ['ros2', 'launch', 'dan_ros', file, *arguments]
        started.append(Process(command, tmp_path / 'log', start_new_session=True))
        return started[-1]

    yield start
    for process in started:
        if process.exit_code is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()


def stop(process: Process) -> None:
    """Send Ctrl-C to the launch file and its nodes."""
    os.killpg(process.pid, signal.SIGINT)
    process.wait()


def test_every_argument_is_described():
    shown = subprocess.run(
        ['ros2', 'launch', 'dan_ros', 'dan.launch.py', '--show-args'],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in ARGUMENTS:
        assert f"'{name}':" in shown
    assert 'no description given' not in shown


def test_the_node_starts_and_stops(launch):
    process = launch('image_topic:=/camera/image_raw', 'namespace:=/head', 'use_sim_time:=true')
    process.wait_for_output('waiting for images on /camera/image_raw')
    stop(process)
    assert 'process has finished cleanly' in process.output


def test_arguments_reach_the_node(launch):
    process = launch('image_topic:=/eye/image', 'image_transport:=compressed')
    process.wait_for_output('waiting for images on /eye/image/compressed')
    stop(process)


@pytest.mark.parametrize('argument', ['use_sim_time:=maybe', 'params_file:=/no/such.yaml'])
def test_an_invalid_argument_is_named(launch, argument):
    process = launch(argument)
    assert process.wait() != 0
    assert argument.split(':=')[1] in process.output


def test_replay_plays_a_bag_into_the_node_and_ends(launch, tmp_path, smile):
    pytest.importorskip('ros2bag')
    bag = record_images(tmp_path / 'bag', [smile] * 20)
    process = launch(f'bag:={bag}', 'image_topic:=/camera/image_raw', file='replay.launch.py')
    assert process.wait() == 0, process.output
    assert 'waiting for images on /camera/image_raw' in process.output


def test_replay_names_what_is_missing(launch):
    process = launch('bag:=/no/such/bag', file='replay.launch.py')
    assert process.wait() != 0
    assert '/no/such/bag' in process.output or 'dan-ros bag IN OUT' in process.output
