# SPDX-License-Identifier: Apache-2.0
"""Face detectors, one per file; the library of each is imported at first use."""

from dan_ros.backends.base import OnProgress, ignore_progress
from dan_ros.detect.base import Detector, DetectorConfig
from dan_ros.detect.registry import DETECTORS, REGISTRY, detector_class, register
from dan_ros.errors import DanError, ModelError

__all__ = ['DETECTORS', 'DEVICES', 'Detector', 'DetectorConfig', 'open_detector', 'register']

DEVICES = ('cpu', 'cuda')


def open_detector(
    name: str = 'auto',
    min_score: float = 0.6,
    model_file: str = '',
    threads: int = 0,
    device: str = 'cpu',
    on_progress: OnProgress = ignore_progress,
) -> Detector:
    """Open a face detector.

    Args:
        name: one of `DETECTORS`; 'auto' is YuNet, or Haar with a `warning` if YuNet's file cannot
            be found or downloaded.
        min_score, model_file, threads, device, on_progress: see `DetectorConfig`.

    Raises:
        DanError: the name is unknown, or the detector's file is missing or damaged.

    >>> open_detector('haar').name
    'haar'
    """
    config = DetectorConfig(min_score, model_file, threads, device, on_progress)
    if name == 'auto':
        return _open_best(config)
    if name not in REGISTRY:
        known = ', '.join(('auto', *REGISTRY))
        raise DanError(f'unknown detector {name!r}; the detectors are {known}')
    return detector_class(name).open(config)


def _open_best(config: DetectorConfig) -> Detector:
    try:
        return detector_class('yunet').open(config)
    except ModelError as error:
        if config.model_file:
            raise
        detector = detector_class('haar').open(config)
        detector.warning = f'YuNet is not available, using the weaker Haar cascade: {error}'
        return detector
