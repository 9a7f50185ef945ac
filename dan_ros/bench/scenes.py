"""Images with faces in them, to measure on."""

import itertools

import numpy as np

from dan_ros.detect import Detector
from dan_ros.faces.boxes import area
from dan_ros.faces.crop import crop_face
from dan_ros.images.opencv import cv2
from dan_ros.pipeline import ExpressionPipeline
from dan_ros.types import Frame
from dan_ros.video_pipeline import StampedFrame, VideoConfig, VideoPipeline

FACE_SIDE = 400  # pixels, of a picture of a face
FRAMING = 1.8  # side of the picture over the longer side of the face's box
DRAWING_SIDE = 800
SKIN, SHADED, HAIR, WHITE, IRIS, LIPS, MOUTH = (
    (150, 180, 225),
    (128, 158, 204),
    (35, 45, 60),
    (235, 235, 235),
    (60, 50, 40),
    (90, 90, 180),
    (60, 50, 110),
)  # BGR
# Centre, half axes and colour of the ellipses of a drawn face, over the side of the drawing.
ELLIPSES = (
    ((0.5, 0.44), (0.34, 0.40), HAIR),
    ((0.5, 0.95), (0.16, 0.30), SHADED),
    ((0.5, 0.52), (0.27, 0.36), SKIN),
    ((0.5, 0.27), (0.25, 0.12), HAIR),
    ((0.395, 0.40), (0.08, 0.02), HAIR),
    ((0.605, 0.40), (0.08, 0.02), HAIR),
    ((0.395, 0.475), (0.055, 0.030), WHITE),
    ((0.605, 0.475), (0.055, 0.030), WHITE),
    ((0.395, 0.475), (0.024, 0.026), IRIS),
    ((0.605, 0.475), (0.024, 0.026), IRIS),
    ((0.475, 0.53), (0.012, 0.060), SHADED),
    ((0.5, 0.60), (0.045, 0.030), SHADED),
    ((0.475, 0.615), (0.012, 0.008), HAIR),
    ((0.525, 0.615), (0.012, 0.008), HAIR),
    ((0.5, 0.72), (0.10, 0.035), LIPS),
    ((0.5, 0.715), (0.085, 0.012), MOUTH),
)
BACKGROUND = (130, 140, 150)
STEP_PX = 4  # by which faces of a walk move between two images: at 30 Hz a face width in a second


def draw_face() -> np.ndarray:
    """A drawn face that detectors take for one, uint8 [400, 400, 3], BGR.

    So every machine measures on the same picture, whatever is installed.
    """
    side = DRAWING_SIDE
    drawing: np.ndarray = np.full((side, side, 3), BACKGROUND, np.uint8)
    for centre, half_axes, colour in ELLIPSES:
        place, size = ((round(x * side), round(y * side)) for x, y in (centre, half_axes))
        cv2.ellipse(drawing, place, size, 0, 0, 360, colour, cv2.FILLED, cv2.LINE_AA)
    drawing = cv2.GaussianBlur(drawing, (0, 0), side / 160)
    light = np.linspace(1.08, 0.86, side, dtype=np.float32)[None, :, None]
    drawing = (drawing * light).clip(0, 255).astype(np.uint8)
    face: np.ndarray = cv2.resize(drawing, (FACE_SIDE, FACE_SIDE), interpolation=cv2.INTER_AREA)
    return face


def face_of(image_bgr: np.ndarray, detector: Detector) -> np.ndarray | None:
    """The largest face of a picture with some of what is about it, or None if none is found.

    Returns:
        uint8 [400, 400, 3], BGR.
    """
    faces = detector.detect(image_bgr)
    if not faces:
        return None
    box = max((face.box_xyxy for face in faces), key=area)
    picture = np.empty((FACE_SIDE, FACE_SIDE, 3), np.uint8)
    crop_face(Frame(image_bgr), box, FRAMING, picture)
    return np.ascontiguousarray(picture[..., ::-1])


def scene(
    width: int, height: int, faces: int, face_bgr: np.ndarray, moved_px: int = 0
) -> np.ndarray:
    """An image with some faces in a row, uint8 [height, width, 3], BGR.

    Args:
        width, height: pixels.
        faces: how many.
        face_bgr: picture of the face, uint8 [h, h, 3].
        moved_px: how far down from their place they are.
    """
    rng = np.random.default_rng(0)
    coarse = rng.integers(60, 200, (6, 8, 3)).astype(np.float32)
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    image = image.clip(0, 255).astype(np.uint8)
    side = min(height // 2, width // max(4, faces))
    face = cv2.resize(face_bgr, (side, side), interpolation=cv2.INTER_AREA)
    top = height // 4 + moved_px
    for index in range(faces):
        left = (2 * index + 1) * width // (2 * faces) - side // 2
        image[top : top + side, left : left + side] = face
    return image


class Walk:
    """Faces that move a little from image to image, followed as the node does.

    Args:
        pipeline: finds and judges them.
        size: (width, height) of the images, pixels.
        faces: how many.
        face_bgr: see `scene`.
        interval: `detector.interval`.
    """

    def __init__(
        self,
        pipeline: ExpressionPipeline,
        size: tuple[int, int],
        faces: int,
        face_bgr: np.ndarray,
        interval: int,
    ) -> None:
        self.interval = interval
        places = [*range(interval), *range(interval, 0, -1)]  # there and back, in two intervals
        frames = [Frame(scene(*size, faces, face_bgr, STEP_PX * place)) for place in places]
        self._frames = itertools.cycle(frames)
        config = VideoConfig(detector_interval=interval, pipeline=pipeline.config)
        self._video = VideoPipeline(pipeline, config)
        self._stamp_ns = 0

    def __call__(self) -> None:
        """Look at the images of one interval: the first as a whole, the others near the faces."""
        for _ in range(self.interval):
            self._stamp_ns += 33_000_000
            self._video.run({'/camera': StampedFrame(next(self._frames), self._stamp_ns)})
