"""The values that travel between the steps of the pipeline.

Pixel coordinates: x to the right, y down, the origin at the outer corner of the top left pixel, so
that an image W wide spans x from 0 to W and the centre of its first pixel is (0.5, 0.5).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dan_ros import labels

FRAME_ENCODINGS = ('bgr8', 'rgb8', 'bgra8', 'rgba8', 'mono8')


@dataclass(frozen=True)
class Frame:
    """One camera image, as the camera ordered its channels.

    Attributes:
        image: uint8, [H, W, C] or, for mono8, [H, W]; may be a view into a message (rows may be
            padded), is never written to.
        encoding: one of `FRAME_ENCODINGS`.
    """

    image: np.ndarray
    encoding: str = 'bgr8'

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.image.shape[1], self.image.shape[0]


@dataclass(frozen=True)
class Face:
    """One detected face, in pixels of the frame it was found in.

    Attributes:
        box_xyxy: float32 [4], left, top, right, bottom; may reach past the border of the frame.
        score: the detector's confidence, [0, 1].
        landmarks: float32 [5, 2], x and y of the right eye, left eye, nose tip, right and left
            mouth corner (right and left of the person); [0, 2] if the detector gives none.
    """

    box_xyxy: np.ndarray
    score: float
    landmarks: np.ndarray


@dataclass(frozen=True)
class SearchHint:
    """What a camera's last frame tells of its next, all boxes as in `Face`.

    Attributes:
        judged: boxes of the faces that were judged. They count as a quarter larger and pass the
            gates more easily, so that a face at a limit does not come and go.
        expected: boxes of all its faces: they are looked for there alone, and in the whole frame
            only if one of them is not found. Empty: the whole frame is looked through.
    """

    judged: Sequence[np.ndarray] = ()
    expected: Sequence[np.ndarray] = ()


NO_HINT = SearchHint()


@dataclass(frozen=True)
class FaceExpression:
    """A face and what the network says of it.

    Attributes:
        face: where it is.
        probabilities: float32 [8], indexed like `labels.CANONICAL`, sums to 1; all zero when the
            face was not judged.
        reason: why it was not judged, one of `quality.REASONS`; '' if it was.
    """

    face: Face
    probabilities: np.ndarray
    reason: str = ''

    @property
    def is_judged(self) -> bool:
        """Whether the network gave this face a usable answer."""
        return bool(self.probabilities.any())

    @property
    def confidence(self) -> float:
        """Probability of the most likely class, [0, 1]; 0 when the face was not judged."""
        return float(self.probabilities.max())

    def expression(self, min_confidence: float = 0.0) -> int:
        """Canonical index of the most likely class, or `labels.UNKNOWN`.

        UNKNOWN stands for a face that was not judged, or less surely than `min_confidence`.
        """
        if not self.is_judged or self.confidence < min_confidence:
            return labels.UNKNOWN
        return int(self.probabilities.argmax())
