# SPDX-License-Identifier: Apache-2.0
"""OpenCV's Haar cascade: needs no model file, but misses more faces and finds no landmarks."""

from pathlib import Path

import numpy as np

from dan_ros.detect.base import Detector
from dan_ros.errors import ModelError
from dan_ros.images.opencv import cv2
from dan_ros.types import Face

CASCADE = 'haarcascade_frontalface_default.xml'
SYSTEM_FOLDERS = ('/usr/share/opencv4/haarcascades', '/usr/share/opencv/haarcascades')
HALF_SCORE_WEIGHT = 3.0  # weight of the last stage that gives a score of 0.5


class HaarDetector(Detector):
    """Finds frontal faces with the Viola-Jones cascade; see `Detector`.

    Args:
        min_score: lowest score of a face, [0, 1]; the score is w / (w + 3), where w is the weight
            of the cascade's last stage.

    Raises:
        ModelError: this OpenCV was installed without cascades.
    """

    name = 'haar'

    def __init__(self, min_score: float = 0.6) -> None:
        super().__init__(min_score)
        self._cascade = cv2.CascadeClassifier(str(_cascade_path()))

    def detect(self, image_bgr: np.ndarray) -> list[Face]:
        """Find faces in a BGR image, uint8 [H, W, 3]; the highest score comes first."""
        gray = cv2.cvtColor(image_bgr, cv2.COLOR_BGR2GRAY)
        boxes, _, weights = self._cascade.detectMultiScale3(
            gray, scaleFactor=1.1, minNeighbors=5, outputRejectLevels=True
        )
        faces = [
            _to_face(np.asarray(box), float(weight))
            for box, weight in zip(boxes, weights, strict=True)
        ]
        faces = [face for face in faces if face.score >= self.min_score]
        return sorted(faces, key=lambda face: -face.score)


def _to_face(box_xywh: np.ndarray, weight: float) -> Face:
    # The same crop rule fits both detectors: on 311 faces, the median side of the cascade's square
    # was 1.00 times the longer side of YuNet's box, and the median center distance 0.006 times.
    left, top, width, height = (float(value) for value in box_xywh)
    box = np.array([left, top, left + width, top + height], np.float32)
    weight = max(weight, 0.0)
    return Face(box, weight / (weight + HALF_SCORE_WEIGHT), np.zeros((0, 2), np.float32))


def _cascade_path() -> Path:
    packaged = getattr(getattr(cv2, 'data', None), 'haarcascades', '')
    for folder in (packaged, *SYSTEM_FOLDERS):
        path = Path(folder) / CASCADE
        if folder and path.is_file():
            return path
    raise ModelError(
        f'OpenCV {cv2.__version__} is installed without {CASCADE}: install the Debian package '
        'opencv-data, or get YuNet with `dan-ros models fetch yunet`'
    )
