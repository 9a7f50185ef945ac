# SPDX-License-Identifier: Apache-2.0
"""The values passed between the steps of the pipeline.

Pixel coordinates: x points right, y points down, and the origin is the outer corner of the top left
pixel. An image of width W spans x from 0 to W, and the center of its first pixel is (0.5, 0.5).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dan_ros import labels

FRAME_ENCODINGS = ('bgr8', 'rgb8', 'bgra8', 'rgba8', 'mono8')


@dataclass(frozen=True)
class Frame:
    """One camera image in the camera's own channel order.

    Attributes:
        image: uint8 [H, W, C], or [H, W] for mono8. It may be a view into a message with padded
            rows, and is never written to.
        encoding: one of `FRAME_ENCODINGS`.
    """

    image: np.ndarray
    encoding: str = 'bgr8'

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.image.shape[1], self.image.shape[0]

    def pixels(self, min_scale: float) -> np.ndarray:
        """Return the image, or a smaller copy of it if that is cheaper.

        Args:
            min_scale: smallest useful size of the copy, relative to the image.
        """
        return self.image


@dataclass(frozen=True)
class Face:
    """One detected face, in pixels of its frame.

    Attributes:
        box_xyxy: float32 [4], left, top, right, bottom; may extend beyond the frame.
        score: confidence of the detector, [0, 1].
        landmarks: float32 [5, 2], x and y of the right eye, left eye, nose tip, right mouth corner
            and left mouth corner, where right and left are the person's; [0, 2] if the detector
            finds no landmarks.
    """

    box_xyxy: np.ndarray
    score: float
    landmarks: np.ndarray


@dataclass(frozen=True)
class SearchHint:
    """Hints from the previous frames of a camera for the next one. Boxes are as in `Face`.

    Attributes:
        classified_boxes: faces classified in the last frame. They pass relaxed quality thresholds
            and count as larger, so that a face at a threshold does not flicker.
        predicted_boxes: where the faces are expected. Only the regions around these boxes are
            searched, or the full frame if one of the faces is not found.
        changed_boxes: parts of the frame in which new faces may have appeared. If one is found,
            the full frame is searched. None: unknown; without predicted boxes, the full frame is
            searched.
        allowed_boxes: only faces that overlap one of these boxes are classified; None: all faces.
    """

    classified_boxes: Sequence[np.ndarray] = ()
    predicted_boxes: Sequence[np.ndarray] = ()
    changed_boxes: Sequence[np.ndarray] | None = None
    allowed_boxes: Sequence[np.ndarray] | None = None

    def allows(self, box_xyxy: np.ndarray) -> bool:
        """Return whether the face in a box may be classified."""
        if self.allowed_boxes is None:
            return True
        return any(_overlaps(box_xyxy, other) for other in self.allowed_boxes)


NO_HINT = SearchHint()


def _overlaps(a_xyxy: np.ndarray, b_xyxy: np.ndarray) -> bool:
    return bool((a_xyxy[:2] < b_xyxy[2:]).all() and (b_xyxy[:2] < a_xyxy[2:]).all())


@dataclass(frozen=True)
class FaceExpression:
    """A detected face and its expression in one frame.

    Attributes:
        face: the detection.
        probabilities: float32 [8], indexed like `labels.CANONICAL`; they sum to 1, or are all 0 if
            the face was not classified.
        reason: why the face was not classified, one of `quality.REASONS`; '' if it was.
    """

    face: Face
    probabilities: np.ndarray
    reason: str = ''

    @property
    def is_classified(self) -> bool:
        """Whether the network classified this face."""
        return bool(self.probabilities.any())

    @property
    def confidence(self) -> float:
        """Probability of the most likely class, [0, 1]; 0 if the face was not classified."""
        return float(self.probabilities.max())

    def expression(self, min_confidence: float = 0.0) -> int:
        """Return the canonical index of the most likely class.

        Returns `labels.UNKNOWN` if the face was not classified, or if the probability of that class
        is below `min_confidence`.
        """
        if not self.is_classified or self.confidence < min_confidence:
            return labels.UNKNOWN
        return int(self.probabilities.argmax())


@dataclass(frozen=True)
class Attention:
    """How a person's head is turned to the camera; not the direction of gaze.

    Attributes:
        score: how directly the head faces the camera, [0, 1]; NaN if it cannot be estimated.
        is_looking: whether it counts as looking, with hysteresis; False if unknown.
        seconds: how long `is_looking` has had its value, seconds.
    """

    score: float = math.nan
    is_looking: bool = False
    seconds: float = 0.0


NO_ATTENTION = Attention()
