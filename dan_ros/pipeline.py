"""From camera images to expressions: detect, crop, infer, score."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dan_ros import labels
from dan_ros.backends import Backend, open_backend
from dan_ros.detect import Detector, open_detector
from dan_ros.faces import quality
from dan_ros.faces.boxes import area, is_same_place, overlap
from dan_ros.faces.crop import crop_face, square_about
from dan_ros.faces.quality import QualityThresholds
from dan_ros.images.encodings import to_bgr
from dan_ros.images.opencv import cv2
from dan_ros.images.resize import resize
from dan_ros.labels import logits_to_probabilities
from dan_ros.model import store
from dan_ros.stopwatch import Stopwatch
from dan_ros.types import NO_HINT, Face, FaceExpression, Frame, SearchHint

STEPS = ('reduce', 'detect', 'crop', 'infer')  # of a run, in their order
MAX_FACES = 256  # of a frame; what comes after them costs as much as their square
REGION_SCALE = 2.0  # side of the region in which a face is looked for again, over its box's
REGION_PX = 128  # longer side of the reduced copy of a region
REGION_COST = 2.5  # what a pixel of it costs, over one of a whole image: small ones have overhead

_TURNS = {
    1: cv2.ROTATE_90_CLOCKWISE,
    2: cv2.ROTATE_180,
    3: cv2.ROTATE_90_COUNTERCLOCKWISE,
}
_NO_PROBABILITIES = np.zeros(len(labels.CANONICAL), np.float32)


class ExpressionPipeline:
    """Finds every face in a set of frames and says what each expresses.

    Not safe to share between threads. The attributes may be changed between two runs.

    Attributes:
        detector, backend: what finds faces, and what judges them.
        max_side_px: longer side of the copy that faces are looked for in; crops come from the full
            image.
        max_faces: of each frame, so many faces are judged: the largest of those that can be. One
            that was judged before counts as a quarter larger, so that two do not take turns.
        gates: what a face needs to be judged.
        rotation: degrees clockwise, 0, 90, 180 or 270, by which frames must be turned to stand
            upright; results are in pixels of the frames as given.
        watch: seconds of each of `STEPS` in the last run.
    """

    def __init__(
        self,
        detector: Detector,
        backend: Backend,
        max_side_px: int = 640,
        max_faces: int = 16,
        rotation: int = 0,
        gates: QualityThresholds | None = None,
    ) -> None:
        self.gates = gates or QualityThresholds()
        self.detector = detector
        self.backend = backend
        self.max_side_px = max_side_px
        self.max_faces = max_faces
        self.rotation = rotation
        self.watch = Stopwatch()

    @classmethod
    def open(
        cls,
        model: str = store.DEFAULT_MODEL,
        backend: str = 'auto',
        detector: str = 'auto',
        **options: Any,
    ) -> 'ExpressionPipeline':
        """Open a pipeline by names; see `open_backend` and `open_detector` for them and errors."""
        return cls(open_detector(detector), open_backend(backend, model), **options)

    def run(
        self, frames: Sequence[Frame], priors: Sequence[SearchHint] = ()
    ) -> list[list[FaceExpression]]:
        """Judge the faces of every frame, all of them in one batch.

        Args:
            frames: of as many cameras.
            priors: for each frame what is known of it before; () if nothing is.

        Returns:
            For each frame its faces, the largest first, also those that can't be judged.
        """
        self.watch.restart()
        priors = priors or [NO_HINT] * len(frames)
        candidates = [
            self._candidates(frame, prior) for frame, prior in zip(frames, priors, strict=True)
        ]
        batch = self._crop(candidates)
        self.watch.lap('crop')
        probabilities = self._judge(batch)
        self.watch.lap('infer')
        return [[candidate.judged_by(probabilities) for candidate in own] for own in candidates]

    def find_faces(self, frame: Frame, expected: Sequence[np.ndarray] = ()) -> list[Face]:
        """Faces of one frame in its pixels, the largest first: at most `MAX_FACES`, the surest.

        Args:
            frame: to look at.
            expected: boxes, [4] each. If there are any, and each has a face close by, these faces
                are the answer; the rest of the frame is not looked at then.
        """
        faces = self._find_again(frame, expected) if self._is_cheap(frame, len(expected)) else []
        if not faces:
            faces = self._look_through(frame.image, frame.encoding, self.max_side_px)
        return sorted(faces[:MAX_FACES], key=lambda face: -area(face.box_xyxy))

    def _is_cheap(self, frame: Frame, regions: int) -> bool:
        """Whether looking at so many regions costs less than looking through the frame."""
        width, height = frame.size
        shrink = min(1.0, self.max_side_px / max(width, height))
        return REGION_COST * regions * REGION_PX**2 <= width * height * shrink**2

    def _find_again(self, frame: Frame, expected: Sequence[np.ndarray]) -> list[Face]:
        """A face for each of the boxes; [] if one has none, or two have the same."""
        faces: list[Face] = []
        for box in expected:
            face = self._find_near(frame, box)
            if face is None or any(is_same_place(face.box_xyxy, f.box_xyxy) for f in faces):
                return []
            faces.append(face)
        return faces

    def _find_near(self, frame: Frame, box_xyxy: np.ndarray) -> Face | None:
        """The face that is where a box is, or None."""
        left, top, right, bottom = _region_about(box_xyxy, frame.size)
        if left >= right or top >= bottom:
            return None
        region = frame.image[top:bottom, left:right]
        faces = [
            _moved(face, left, top)
            for face in self._look_through(region, frame.encoding, REGION_PX)
        ]
        nearest = max(faces, key=lambda face: overlap(face.box_xyxy, box_xyxy), default=None)
        if nearest is None or not is_same_place(nearest.box_xyxy, box_xyxy):
            return None
        return nearest

    def _look_through(self, image: np.ndarray, encoding: str, side_px: int) -> list[Face]:
        """Faces of an image in its pixels, found in a copy whose longer side is `side_px`."""
        height, width = image.shape[:2]
        small = _reduce(image, encoding, side_px)
        turns = self.rotation // 90
        upright = cv2.rotate(small, _TURNS[turns]) if turns else small
        self.watch.lap('reduce')
        found = self.detector.detect(upright)
        self.watch.lap('detect')
        if turns == 0 and small.shape[:2] == (height, width):
            return found
        scale = np.array([width / small.shape[1], height / small.shape[0]], np.float32)
        return [_turn_back(face, turns, small.shape[:2], scale) for face in found]

    def _candidates(self, frame: Frame, prior: SearchHint) -> list['_Candidate']:
        candidates = []
        for face in self.find_faces(frame, prior.expected):
            is_known = any(is_same_place(face.box_xyxy, box) for box in prior.judged)
            gates = self.gates.relaxed() if is_known else self.gates
            reason = gates.rejection_reason(face)
            candidates.append(_Candidate(frame, face, is_known, gates, reason))
        return candidates

    def _crop(self, candidates: list[list['_Candidate']]) -> np.ndarray:
        """Batch of the faces to judge, uint8 [N, H, W, 3] RGB, upright.

        Candidates get their row in it, or the reason why they have none.
        """
        able = [[candidate for candidate in own if not candidate.reason] for own in candidates]
        most = sum(min(len(own), self.max_faces) for own in able)
        batch = np.empty((most, *self.backend.model.input_size, 3), np.uint8)
        filled = 0
        for own in able:
            end = filled + self.max_faces
            for candidate in sorted(own, key=_Candidate.rank):
                if filled == end:
                    candidate.reason = quality.TOO_MANY
                elif self._cut(candidate, batch[filled]):
                    candidate.row = filled
                    filled += 1
                else:
                    candidate.reason = quality.BLURRED
        return batch[:filled]

    def _cut(self, candidate: '_Candidate', out: np.ndarray) -> bool:
        """Cut a face into its place in the batch; whether it is sharp enough."""
        scale = self.backend.model.crop_scale
        crop_face(candidate.frame, candidate.face.box_xyxy, scale, out, self.rotation // 90)
        return candidate.gates.is_sharp(out)

    def _judge(self, batch: np.ndarray) -> np.ndarray:
        """Probabilities, float32 [N, 8]."""
        return logits_to_probabilities(self.backend.infer(batch), self.backend.model.labels)


@dataclass
class _Candidate:
    """A face on its way to be judged.

    Attributes:
        frame: it is in.
        face: as found.
        is_known: whether it was judged before.
        gates: it has to pass.
        reason: why it can't be judged, or ''.
        row: in the batch, if it can.
    """

    frame: Frame
    face: Face
    is_known: bool
    gates: QualityThresholds
    reason: str
    row: int = -1

    def rank(self) -> float:
        """The lowest is judged first."""
        return -area(self.face.box_xyxy) / (quality.RELAXED**2 if self.is_known else 1)

    def judged_by(self, probabilities: np.ndarray) -> FaceExpression:
        """The face with its row of float32 [N, 8]."""
        if self.reason:
            return FaceExpression(self.face, _NO_PROBABILITIES, self.reason)
        own = probabilities[self.row]
        return FaceExpression(self.face, own, '' if own.any() else quality.NO_ANSWER)


def _reduce(image: np.ndarray, encoding: str, side_px: int) -> np.ndarray:
    """A BGR copy whose longer side is at most `side_px`; the image itself where it fits."""
    height, width = image.shape[:2]
    shrink = side_px / max(width, height)
    if shrink < 1:
        image = resize(image, max(1, round(width * shrink)), max(1, round(height * shrink)))
    return to_bgr(image, encoding)


def _region_about(box_xyxy: np.ndarray, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the part of an image of `size` in which a face may be now."""
    left, top, side = square_about(box_xyxy, REGION_SCALE)
    width, height = size
    return max(left, 0), max(top, 0), min(left + side, width), min(top + side, height)


def _moved(face: Face, x: float, y: float) -> Face:
    return replace(
        face,
        box_xyxy=face.box_xyxy + np.array([x, y, x, y], np.float32),
        landmarks=face.landmarks + np.array([x, y], np.float32),
    )


def _turn_back(face: Face, turns: int, size: tuple[int, int], scale: np.ndarray) -> Face:
    """Map a face of the upright reduced copy to pixels of the frame.

    Args:
        turns: clockwise quarter turns from the reduced copy to the upright one.
        size: (height, width) of the reduced copy before turning.
        scale: float [2], frame pixels per pixel of the reduced copy, in x and y.
    """
    if turns == 0:
        return Face(face.box_xyxy * np.tile(scale, 2), face.score, face.landmarks * scale)
    corners = _turn_points_back(face.box_xyxy.reshape(2, 2), turns, size) * scale
    box = np.concatenate([corners.min(axis=0), corners.max(axis=0)]).astype(np.float32)
    landmarks = _turn_points_back(face.landmarks, turns, size) * scale
    return Face(box, face.score, landmarks.astype(np.float32))


def _turn_points_back(points: np.ndarray, turns: int, size: tuple[int, int]) -> np.ndarray:
    height, width = size
    x, y = points[:, 0], points[:, 1]
    turned = {1: (y, height - x), 2: (width - x, height - y), 3: (width - y, x)}
    return np.stack(turned[turns], axis=1)
