# SPDX-License-Identifier: Apache-2.0
"""Fixtures that several tests need."""

import cv2
import hypothesis
import numpy as np
import pytest
from command import Command
from data_sets import write_noise
from skimage.data import astronaut

from dan_ros.pipeline import ExpressionPipeline

hypothesis.settings.register_profile('tests', deadline=None)  # a loaded machine pauses at times
hypothesis.settings.load_profile('tests')


@pytest.fixture(scope='session')
def portrait() -> np.ndarray:
    """A smiling astronaut, uint8 [512, 512, 3] BGR; her face is about (178, 63) to (268, 176)."""
    return np.ascontiguousarray(astronaut()[..., ::-1])


@pytest.fixture(scope='session')
def smile(portrait) -> np.ndarray:
    """The astronaut in a small image; her face is about 57 pixels wide and in the middle."""
    return portrait[:240, 60 : 60 + 320].copy()


@pytest.fixture(scope='session')
def nobody() -> np.ndarray:
    """An image without a face."""
    return np.full((240, 320, 3), 120, np.uint8)


@pytest.fixture(scope='session')
def pipeline() -> ExpressionPipeline:
    """The default pipeline with the bundled model; tests must not change it."""
    return ExpressionPipeline.open(detector='yunet')


@pytest.fixture
def portrait_file(portrait, tmp_path):
    """The portrait as a PNG file."""
    path = tmp_path / 'portrait.png'
    cv2.imwrite(str(path), portrait)
    return path


@pytest.fixture
def run(monkeypatch, capsys) -> Command:
    """Runs `dan-ros` with arguments."""
    return Command(monkeypatch, capsys)


@pytest.fixture
def ferplus_folder(tmp_path):
    """A folder with FER+ files of noise: 14 training faces, 8 validation faces, three classes."""
    write_noise(tmp_path)
    return tmp_path


@pytest.fixture
def start(tmp_path):
    """Start nodes that stop at the end of the test; each must end with exit code 0."""
    from robot import Robot

    started = []

    def start_one(*ros_arguments, wait=True, **options):
        robot = Robot(tmp_path / f'node{len(started)}.log', *ros_arguments, **options)
        started.append(robot)
        if wait:
            robot.wait_active()
        return robot

    yield start_one
    codes = [robot.close() for robot in started]
    for robot in started:
        assert 'Traceback' not in robot.node.output, robot.node.output
    assert codes == [0] * len(started)


@pytest.fixture(scope='session')
def running_robots(tmp_path_factory):
    """The node that all tests of this process share; a list, so that it can be replaced."""
    robots = []
    yield robots
    assert [robot.close() for robot in robots] in ([], [0])


@pytest.fixture
def robot(running_robots, tmp_path_factory):
    """A running node with default parameters, shared with other tests and reset before each."""
    from robot import Robot

    if running_robots and running_robots[0].node.exit_code is not None:
        running_robots.pop().close()
    if not running_robots:
        running_robots.append(Robot(tmp_path_factory.mktemp('robot') / 'node.log'))
        running_robots[0].wait_active()
    (robot,) = running_robots
    robot.reset()
    yield robot
    assert 'Traceback' not in robot.output, robot.output
