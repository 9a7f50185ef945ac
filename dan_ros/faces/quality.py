# SPDX-License-Identifier: Apache-2.0
"""Decides which faces are large, frontal and sharp enough to be classified."""

import math
from dataclasses import dataclass

import numpy as np

from dan_ros.images.opencv import cv2
from dan_ros.types import Face

NOSE_DEPTH = 0.45  # depth of the nose tip, as a fraction of the distance from eyes to mouth
# Factors that lower the thresholds for a face that passed them in the last image. The factor for
# sharpness only covers the noise of a still camera, which changes the sharpness of a blurred face
# by 1 to 2 %. A lower factor would keep the label of illegible faces, whose sharpness is 2.8 to
# 3.4.
RELAXED, RELAXED_SHARPNESS = 0.8, 0.97
MEAN_OF_COLORS = np.full((1, 3), 1 / 3, np.float32)
DETAIL_SIDE_PX = 96  # side of a crop at which `sharpness` smooths with a sigma of 1 pixel

TOO_SMALL, TURNED_AWAY, BLURRED = 'too_small', 'turned_away', 'blurred'
TOO_MANY = 'too_many'  # the face is not among the largest `max_faces` ones
NO_ANSWER = 'no_answer'  # the network returned NaN or infinity
NO_CONSENT = 'no_consent'  # the face is not released, or moved too far since the last image
REASONS = (TOO_SMALL, TURNED_AWAY, BLURRED, TOO_MANY, NO_ANSWER, NO_CONSENT)


@dataclass(frozen=True)
class QualityThresholds:
    """Thresholds that a face must pass to be classified.

    With the defaults, more than 99.5 % of the validation faces of FER+ pass.
    """

    min_side_px: float = 24.0  # longer side of the face's box, pixels
    min_frontality: float = 0.1  # see `frontality`, [0, 1]
    min_sharpness: float = 3.5  # see `sharpness`, cycles per face

    def relaxed(self) -> 'QualityThresholds':
        """Return lower thresholds for a face that passed in the last image, to avoid flicker."""
        return QualityThresholds(
            self.min_side_px * RELAXED,
            self.min_frontality * RELAXED,
            self.min_sharpness * RELAXED_SHARPNESS,
        )

    def rejection_reason(self, face: Face) -> str:
        """Return why a face fails before it is cropped: `TOO_SMALL`, `TURNED_AWAY`, or ''."""
        left, top, right, bottom = face.box_xyxy
        if max(right - left, bottom - top) < self.min_side_px:
            return TOO_SMALL
        return TURNED_AWAY if frontality(face.landmarks) < self.min_frontality else ''

    def is_sharp(self, crop: np.ndarray) -> bool:
        """Return whether a cropped face, uint8 [H, W, 3], is sharp enough."""
        return self.min_sharpness == 0 or sharpness(crop) >= self.min_sharpness


ACCEPT_ALL = QualityThresholds(0, 0, 0)


def frontality(landmarks: np.ndarray) -> float:
    """Return how frontal a face is, from the sideways offset of its nose.

    When the head turns, the nose tip moves away from the midpoint of the eyes by its depth times
    the sine of the angle. The offset is measured along the line between the eyes and divided by the
    distance from eyes to mouth, which does not change with that angle.

    Args:
        landmarks: [5, 2] as in `Face`, or [0, 2].

    Returns:
        1 for a frontal face, 0 for one turned by 90 degrees or more; 1 without landmarks.
    """
    if len(landmarks) == 0:
        return 1.0
    right_eye, left_eye, nose, right_mouth, left_mouth = landmarks.tolist()
    eyes = _between(right_eye, left_eye)
    mouth = _between(right_mouth, left_mouth)
    across = left_eye[0] - right_eye[0], left_eye[1] - right_eye[1]
    width, height = math.hypot(*across), math.dist(eyes, mouth)
    if width == 0 or height == 0:
        return 0.0
    along = (nose[0] - eyes[0]) * across[0] + (nose[1] - eyes[1]) * across[1]
    return float(max(0.0, 1 - abs(along) / width / height / NOSE_DEPTH))


def _between(a: list[float], b: list[float]) -> tuple[float, float]:
    return (a[0] + b[0]) / 2, (a[1] + b[1]) / 2


def sharpness(crop: np.ndarray) -> float:
    """Return the mean spatial frequency of a cropped face.

    This is the root mean square of the Laplacian divided by that of the gradient, which does not
    depend on contrast. Sharp faces have 7 to 12; at 3.5 the network misclassifies every third face.

    Args:
        crop: uint8 [H, W, 3], RGB or BGR.

    Returns:
        Cycles per side of the crop; 0 for a uniform image.
    """
    side = crop.shape[0]
    gray = cv2.transform(crop.astype(np.float32), MEAN_OF_COLORS)
    # Smooth first, so that noise does not count as detail.
    smooth = cv2.GaussianBlur(gray, (0, 0), side / DETAIL_SIDE_PX)
    across, down = cv2.norm(smooth[:, 2:], smooth[:, :-2]), cv2.norm(smooth[2:], smooth[:-2])
    gradient = math.hypot(across, down) / 2 / side
    if gradient < 1e-3:
        return 0.0
    _, deviation = cv2.meanStdDev(cv2.Laplacian(smooth, cv2.CV_32F))
    return float(side / (2 * math.pi) * deviation[0, 0] / gradient)
