"""Face detectors, one a file."""

from collections.abc import Callable
from typing import Protocol

import numpy as np

from dan_ros.errors import DanError, ModelError
from dan_ros.model import store
from dan_ros.types import Face

DETECTORS = ('auto', 'yunet', 'haar')
DEVICES = ('cpu', 'cuda')
FETCH_TIMEOUT_S = 4.0  # of a small file; a node that is stopped meanwhile has 5 s under ros2 launch


class Detector(Protocol):
    """Finds faces in one image.

    Attributes:
        name: 'yunet', 'haar' or 'whole'.
        warning: what the user should know about this choice, or ''.
        min_score: faces the detector is less sure of than this, [0, 1], are left out.
    """

    name: str
    warning: str
    min_score: float

    def detect(self, image_bgr: np.ndarray) -> list[Face]:
        """Find faces in uint8 [H, W, 3]; boxes and landmarks are in its pixels."""
        ...


def open_detector(
    name: str = 'auto',
    min_score: float = 0.6,
    model_file: str = '',
    threads: int = 0,
    device: str = 'cpu',
    say: Callable[[str], object] = lambda text: None,
) -> Detector:
    """Open a detector.

    Args:
        name: 'yunet'; 'haar'; or 'auto', which is YuNet and, where its file can't be had, Haar with
            a `warning`.
        min_score: [0, 1].
        model_file: path of YuNet's file; '' looks in the usual places, the network last.
        threads: CPU threads; 0 leaves the choice to the backend.
        device: one of `DEVICES`, for YuNet.
        say: told when the network is asked for YuNet's file.

    Raises:
        DanError: the name is unknown, or the detector's file is missing or damaged.
    """
    if name not in DETECTORS:
        raise DanError(f'unknown detector {name!r}; the detectors are {", ".join(DETECTORS)}')
    if name == 'haar':
        from dan_ros.detect.haar import HaarDetector

        return HaarDetector(min_score)
    try:
        content = _yunet_content(model_file, say)
    except ModelError as error:
        if name == 'yunet' or model_file:
            raise
        from dan_ros.detect.haar import HaarDetector

        return HaarDetector(
            min_score,
            warning=f'YuNet is not to be had, the weaker Haar cascade is used instead: {error}',
        )
    from dan_ros.detect.yunet import YuNetDetector

    return YuNetDetector(content, min_score, threads, device)


def _yunet_content(model_file: str, say: Callable[[str], object]) -> bytes:
    if model_file:
        return store.read_pinned('yunet', model_file).content
    try:
        return store.read_model('yunet').content
    except ModelError:
        say(f'fetching {store.KNOWN_MODELS["yunet"].url}')
        store.fetch_model('yunet', FETCH_TIMEOUT_S)
        return store.read_model('yunet').content
