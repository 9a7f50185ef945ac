# SPDX-License-Identifier: Apache-2.0
"""Images with faces for measurements."""

import numpy as np

from dan_ros.detect import Detector
from dan_ros.faces.boxes import area
from dan_ros.faces.crop import crop_face
from dan_ros.images.opencv import cv2
from dan_ros.types import Frame

FACE_SIDE = 400  # side of a picture of a face, pixels
FRAMING = 1.8  # side of the picture relative to the longer side of the face box
DRAWING_SIDE = 800  # pixels
STEP_PX = 4  # motion between two images: at 30 Hz about one face width per second
SKIN, SHADOW, HAIR, WHITE, IRIS, LIPS, MOUTH, BACKGROUND = (
    (150, 180, 225),
    (128, 158, 204),
    (35, 45, 60),
    (235, 235, 235),
    (60, 50, 40),
    (90, 90, 180),
    (60, 50, 110),
    (130, 140, 150),
)  # BGR
# Ellipses of the drawn face: center and half axes relative to the side of the drawing, color.
ELLIPSES = (
    ((0.5, 0.44), (0.34, 0.40), HAIR),
    ((0.5, 0.95), (0.16, 0.30), SHADOW),
    ((0.5, 0.52), (0.27, 0.36), SKIN),
    ((0.5, 0.27), (0.25, 0.12), HAIR),
    ((0.395, 0.40), (0.08, 0.02), HAIR),
    ((0.605, 0.40), (0.08, 0.02), HAIR),
    ((0.395, 0.475), (0.055, 0.030), WHITE),
    ((0.605, 0.475), (0.055, 0.030), WHITE),
    ((0.395, 0.475), (0.024, 0.026), IRIS),
    ((0.605, 0.475), (0.024, 0.026), IRIS),
    ((0.475, 0.53), (0.012, 0.060), SHADOW),
    ((0.5, 0.60), (0.045, 0.030), SHADOW),
    ((0.475, 0.615), (0.012, 0.008), HAIR),
    ((0.525, 0.615), (0.012, 0.008), HAIR),
    ((0.5, 0.72), (0.10, 0.035), LIPS),
    ((0.5, 0.715), (0.085, 0.012), MOUTH),
)


def draw_face() -> np.ndarray:
    """Draw a face that the detectors find, so that every machine measures on the same picture.

    Returns:
        uint8 [400, 400, 3], BGR.
    """
    side = DRAWING_SIDE
    drawing: np.ndarray = np.full((side, side, 3), BACKGROUND, np.uint8)
    for center, half_axes, color in ELLIPSES:
        place, size = ((round(x * side), round(y * side)) for x, y in (center, half_axes))
        cv2.ellipse(drawing, place, size, 0, 0, 360, color, cv2.FILLED, cv2.LINE_AA)
    drawing = cv2.GaussianBlur(drawing, (0, 0), side / 160)
    light = np.linspace(1.08, 0.86, side, dtype=np.float32)[None, :, None]
    drawing = (drawing * light).clip(0, 255).astype(np.uint8)
    face: np.ndarray = cv2.resize(drawing, (FACE_SIDE, FACE_SIDE), interpolation=cv2.INTER_AREA)
    return face


def crop_largest_face(image_bgr: np.ndarray, detector: Detector) -> np.ndarray | None:
    """Cut out the largest face of an image with some of its surroundings.

    Returns:
        uint8 [400, 400, 3], BGR; None if the detector finds no face.
    """
    faces = detector.detect(image_bgr)
    if not faces:
        return None
    box = max((face.box_xyxy for face in faces), key=area)
    crop = np.empty((FACE_SIDE, FACE_SIDE, 3), np.uint8)  # RGB
    crop_face(Frame(image_bgr), box, FRAMING, crop)
    return np.ascontiguousarray(crop[..., ::-1])


def make_background(width: int, height: int, rng: np.random.Generator) -> np.ndarray:
    """Make a smooth random image, float32 [height, width, 3]."""
    coarse = rng.integers(60, 200, (6, 8, 3)).astype(np.float32)
    image: np.ndarray = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return image


def make_scene(
    width: int, height: int, faces: int, face_bgr: np.ndarray, offset_px: int = 0
) -> np.ndarray:
    """Make an image with equal faces in a row.

    Sizes are in pixels, `face_bgr` is uint8 [h, h, 3]. The faces are shifted down by `offset_px`.

    Returns:
        uint8 [height, width, 3], BGR.

    Example:
        >>> make_scene(640, 480, 2, draw_face()).shape
        (480, 640, 3)
    """
    image = make_background(width, height, np.random.default_rng(0)).clip(0, 255).astype(np.uint8)
    side = min(height // 2, width // max(4, faces))
    face = cv2.resize(face_bgr, (side, side), interpolation=cv2.INTER_AREA)
    top = height // 4 + offset_px
    for index in range(faces):
        left = (2 * index + 1) * width // (2 * faces) - side // 2
        image[top : top + side, left : left + side] = face
    return image


def make_moving_scenes(
    size: tuple[int, int], faces: int, face_bgr: np.ndarray, steps: int
) -> list[np.ndarray]:
    """Make 2 * `steps` images in which the faces move down and back by 4 pixels per image.

    See `make_scene`; `size` is (width, height).
    """
    positions = [*range(steps), *range(steps, 0, -1)]
    return [make_scene(*size, faces, face_bgr, STEP_PX * position) for position in positions]
