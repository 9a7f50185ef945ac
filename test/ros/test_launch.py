"""The launch file, where ROS's own launch is installed."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

pytest.importorskip('launch_ros')
pytest.importorskip('ros2launch')

import robot as robots
from recording import record_images

ARGUMENTS = (
    'image_topic', 'namespace', 'params_file', 'backend', 'model', 'autostart', 'use_sim_time',
    'log_level', 'image_transport', 'input', 'ros4hri', 'respawn',
)  # fmt: skip


def launch(log: Path, *arguments: str, file: str = 'dan.launch.py') -> subprocess.Popen:
    with log.open('w') as output:
        return subprocess.Popen(
            ['ros2', 'launch', 'dan_ros', file, *arguments],
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=robots.environment_of(robots.new_domain()),
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )


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


def test_the_node_comes_up_and_goes_down(tmp_path):
    log = tmp_path / 'log'
    process = launch(
        log, 'image_topic:=/camera/image_raw', 'namespace:=/head', 'use_sim_time:=true'
    )
    try:
        robots.wait_until(
            lambda: 'waiting for images on /camera/image_raw' in log.read_text(),
            'the node',
            log.read_text,
        )
    finally:
        os.killpg(process.pid, signal.SIGINT)
        process.wait(30)
    assert 'process has finished cleanly' in log.read_text()


def test_arguments_reach_the_node(tmp_path):
    log = tmp_path / 'log'
    process = launch(log, 'image_topic:=/eye/image', 'image_transport:=compressed')
    try:
        robots.wait_until(
            lambda: 'waiting for images on /eye/image/compressed' in log.read_text(),
            'the node',
            log.read_text,
        )
    finally:
        os.killpg(process.pid, signal.SIGINT)
        process.wait(30)


@pytest.mark.parametrize('argument', ['use_sim_time:=maybe', 'params_file:=/no/such.yaml'])
def test_a_bad_argument_is_named(tmp_path, argument):
    process = launch(tmp_path / 'log', argument)
    assert process.wait(30) != 0
    assert argument.split(':=')[1] in (tmp_path / 'log').read_text()


def test_replay_plays_a_bag_into_the_node_and_ends(tmp_path, smile):
    pytest.importorskip('ros2bag')
    bag = record_images(tmp_path / 'bag', [smile] * 20)
    log = tmp_path / 'log'
    process = launch(log, f'bag:={bag}', 'image_topic:=/camera/image_raw', file='replay.launch.py')
    assert process.wait(60) == 0, log.read_text()
    assert 'waiting for images on /camera/image_raw' in log.read_text()


def test_replay_names_what_is_missing(tmp_path):
    log = tmp_path / 'log'
    assert launch(log, 'bag:=/no/such/bag', file='replay.launch.py').wait(30) != 0
    text = log.read_text()
    assert '/no/such/bag' in text or 'dan-ros bag IN OUT' in text
