"""What several tests need."""

import cv2
import hypothesis
import numpy as np
import pytest
from data_sets import write_noise
from skimage.data import astronaut

from dan_ros.pipeline import ExpressionPipeline

hypothesis.settings.register_profile('tests', deadline=None)  # a shared machine pauses now and then
hypothesis.settings.load_profile('tests')


@pytest.fixture(scope='session')
def portrait() -> np.ndarray:
    """A smiling astronaut, uint8 [512, 512, 3] BGR; her face is about (178, 63) to (268, 176)."""
    return np.ascontiguousarray(astronaut()[..., ::-1])


@pytest.fixture(scope='session')
def pipeline() -> ExpressionPipeline:
    """The default pipeline with the bundled model; not to be changed."""
    return ExpressionPipeline.open(detector='yunet')


@pytest.fixture
def portrait_file(portrait, tmp_path):
    """The portrait as a PNG file."""
    path = tmp_path / 'portrait.png'
    cv2.imwrite(str(path), portrait)
    return path


@pytest.fixture
def ferplus_folder(tmp_path):
    """A folder with FER+ files of noise: 14 training faces, 8 validation faces, three classes."""
    write_noise(tmp_path)
    return tmp_path


@pytest.fixture
def start(tmp_path):
    """Start robots that are stopped at the end; every one must end with exit code 0."""
    pytest.importorskip('rclpy')
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
def smile(portrait) -> np.ndarray:
    """The astronaut in a small image; her face is about 57 pixels wide, at the middle."""
    return portrait[:240, 60 : 60 + 320].copy()


@pytest.fixture(scope='session')
def nobody() -> np.ndarray:
    return np.full((240, 320, 3), 120, np.uint8)
