# SPDX-License-Identifier: Apache-2.0
"""No detection: each image is one face, already cropped by another detector."""

import numpy as np

from dan_ros.detect.base import Detector
from dan_ros.types import Face


class FullFrameDetector(Detector):
    """Returns the whole image as one face.

    Args:
        crop_scale: scale of the model's crop rule. The box is smaller than the image by this
            factor, so that the crop is the whole image.
    """

    name = 'whole'

    def __init__(self, crop_scale: float) -> None:
        super().__init__(min_score=0.0)
        self._crop_scale = crop_scale

    def detect(self, image_bgr: np.ndarray) -> list[Face]:
        """Return one face in the center of uint8 [H, W, 3], without landmarks."""
        height, width = image_bgr.shape[:2]
        half = max(width, height) / self._crop_scale / 2
        box = np.array([width / 2 - half, height / 2 - half, width / 2 + half, height / 2 + half])
        return [Face(box.astype(np.float32), 1.0, np.zeros((0, 2), np.float32))]
