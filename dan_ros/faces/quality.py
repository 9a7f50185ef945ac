"""Which faces can be judged: those large, frontal and sharp enough."""

import math
from dataclasses import dataclass

import numpy as np

from dan_ros.images.opencv import cv2
from dan_ros.types import Face

NOSE_DEPTH = 0.45  # how far the nose stands out, over the distance from eyes to mouth
RELAXED = 0.8  # part of a gate that is enough for a face that has passed it
MEAN_OF_COLOURS = np.full((1, 3), 1 / 3, np.float32)
DETAIL_SIDE = 96  # pixels; side of the crop that `sharpness` smoothes by one pixel

TOO_SMALL, TURNED_AWAY, BLURRED = 'too_small', 'turned_away', 'blurred'
TOO_MANY = 'too_many'  # faces in the frame, and this is not one of the largest
NO_ANSWER = 'no_answer'  # the network gave numbers that are none
REASONS = (TOO_SMALL, TURNED_AWAY, BLURRED, TOO_MANY, NO_ANSWER)


@dataclass(frozen=True)
class QualityThresholds:
    """The least a face must have to be judged.

    The defaults pass over 99.5 % of FER+'s validation faces.

    Attributes:
        min_side_px: longer side of the face's box in the image, pixels.
        min_frontality: see `frontality`, [0, 1].
        min_sharpness: see `sharpness`, cycles a face.
    """

    min_side_px: float = 24.0
    min_frontality: float = 0.1
    min_sharpness: float = 3.5

    def relaxed(self) -> 'QualityThresholds':
        """For a face that was judged in the last image, so that it does not come and go."""
        return QualityThresholds(
            self.min_side_px * RELAXED,
            self.min_frontality * RELAXED,
            self.min_sharpness * RELAXED,
        )

    def rejection_reason(self, face: Face) -> str:
        """Why a face need not be cut out at all: `TOO_SMALL`, `TURNED_AWAY`, or ''."""
        left, top, right, bottom = face.box_xyxy
        if max(right - left, bottom - top) < self.min_side_px:
            return TOO_SMALL
        return TURNED_AWAY if frontality(face.landmarks) < self.min_frontality else ''

    def is_sharp(self, crop: np.ndarray) -> bool:
        """Whether a cut out face, uint8 [H, W, 3], is sharp enough."""
        return self.min_sharpness == 0 or sharpness(crop) >= self.min_sharpness


ACCEPT_ALL = QualityThresholds(0, 0, 0)  # which every face passes


def frontality(landmarks: np.ndarray) -> float:
    """How much a face looks at the camera, by how far the nose is off the middle of the eyes.

    The nose tip moves aside by its depth times the sine of the turn. Measured along the line of the
    eyes, over the distance from eyes to mouth, which a turn to the side leaves as it is.

    Args:
        landmarks: [5, 2] as in `Face`, or [0, 2].

    Returns:
        1 for a frontal face, 0 for one turned by 90 degrees or more, 1 without landmarks.
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
    """How fine the detail of a cut out face is: its mean spatial frequency.

    The root mean square of the Laplacian over that of the gradient, which does not depend on
    contrast. Sharp faces have 7 to 12; 3.5 is a blur at which the network fails at
    every third face.

    Args:
        crop: uint8 [H, W, 3], RGB or BGR.

    Returns:
        Cycles over the side of the crop; 0 for a plain surface.
    """
    side = crop.shape[0]
    grey = cv2.transform(crop.astype(np.float32), MEAN_OF_COLOURS)
    smooth = cv2.GaussianBlur(grey, (0, 0), side / DETAIL_SIDE)  # else noise would count as detail
    across, down = cv2.norm(smooth[:, 2:], smooth[:, :-2]), cv2.norm(smooth[2:], smooth[:-2])
    gradient = math.hypot(across, down) / 2 / side
    if gradient < 1e-3:
        return 0.0
    _, deviation = cv2.meanStdDev(cv2.Laplacian(smooth, cv2.CV_32F))
    return float(side / (2 * math.pi) * deviation[0, 0] / gradient)
