"""What several tests need."""

import cv2
import numpy as np
import pytest
from skimage.data import astronaut

from dan_ros.pipeline import ExpressionPipeline


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
