"""No search: the image is a face already, as another detector cut it out."""

import numpy as np

from dan_ros.types import Face


class FullFrameDetector:
    """Takes every image for one face; see `Detector`.

    Args:
        crop_scale: of the model's crop rule; the box is as much smaller than the image, so that the
            rule cuts out all of it.
    """

    name = 'whole'
    warning = ''

    def __init__(self, crop_scale: float) -> None:
        self.min_score = 0.0
        self._crop_scale = crop_scale

    def detect(self, image_bgr: np.ndarray) -> list[Face]:
        """One face about the middle of uint8 [H, W, 3], with no landmarks."""
        height, width = image_bgr.shape[:2]
        half = max(width, height) / self._crop_scale / 2
        box = np.array([width / 2 - half, height / 2 - half, width / 2 + half, height / 2 + half])
        return [Face(box.astype(np.float32), 1.0, np.zeros((0, 2), np.float32))]
