# SPDX-License-Identifier: Apache-2.0
"""The base class of all face detectors."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from dan_ros.backends.base import OnProgress, ignore_progress
from dan_ros.types import Face


@dataclass(frozen=True)
class DetectorConfig:
    """Settings of a detector; each detector uses those that apply to it.

    Attributes:
        min_score: faces with a lower score are dropped, [0, 1].
        model_file: path of the detector's model; '' searches the usual folders, or downloads it.
        threads: CPU threads; 0 lets the library choose.
        device: one of `DEVICES`.
        on_progress: called with one sentence before a download.
    """

    min_score: float = 0.6
    model_file: str = ''
    threads: int = 0
    device: str = 'cpu'
    on_progress: OnProgress = ignore_progress


class Detector(ABC):
    """Finds the faces in an image.

    Attributes:
        name: its name in the registry.
        warning: a limitation to show to the user, or ''.
        device: one of `DEVICES`, on which it runs.
        min_score: faces with a lower score are dropped, [0, 1].
    """

    name: ClassVar[str]
    warning: str = ''
    device: str = 'cpu'

    def __init__(self, min_score: float = 0.6) -> None:
        self.min_score = min_score

    @classmethod
    def open(cls, config: DetectorConfig) -> 'Detector':
        """Open the detector; override it to use more settings than `min_score`."""
        return cls(config.min_score)

    @abstractmethod
    def detect(self, image_bgr: np.ndarray) -> list[Face]:
        """Find faces.

        Args:
            image_bgr: uint8 [H, W, 3].

        Returns:
            Faces in pixels of the image. A box must reach from forehead to chin, like YuNet's,
            because the crop rule was measured with such boxes.
        """

    def detect_in_part(self, image_bgr: np.ndarray) -> list[Face]:
        """Find faces in a part of an image; may be faster than `detect` if there are none."""
        return self.detect(image_bgr)
