# SPDX-License-Identifier: Apache-2.0
"""Draw faces and their expressions on an image."""

from collections.abc import Sequence

import numpy as np

from dan_ros import labels, palette
from dan_ros.images.encodings import to_bgr
from dan_ros.images.opencv import cv2
from dan_ros.tracking.face_tracker import TrackedFace
from dan_ros.types import FaceExpression, Frame

FONT = cv2.FONT_HERSHEY_SIMPLEX


def annotate(
    frame: Frame,
    faces: Sequence[FaceExpression],
    names: Sequence[str] | None = None,
    expressions: Sequence[int] | None = None,
) -> np.ndarray:
    """Draw the box, landmarks, label and probabilities of each face.

    Args:
        frame: the image; it is not changed.
        faces: faces in it, boxes in its pixels.
        names: text in front of each label, such as the face's id.
        expressions: canonical index of each face's label, or `labels.UNKNOWN`; by default the most
            likely class.

    Returns:
        uint8 [H, W, 3], BGR.
    """
    canvas = np.array(to_bgr(frame.image, frame.encoding), order='C')
    for index, face in enumerate(faces):
        name = names[index] if names else ''
        expression = face.expression() if expressions is None else expressions[index]
        _draw_face(canvas, face, name, expression)
    return canvas


def annotate_tracked(frame: Frame, faces: Sequence[TrackedFace]) -> np.ndarray:
    """Draw tracked faces with id, label and smoothed probabilities; see `annotate`."""
    return annotate(
        frame,
        [face.smoothed for face in faces],
        [face.face_id for face in faces],
        [face.expression for face in faces],
    )


def caption(face: FaceExpression, name: str, expression: int) -> str:
    """Return the text for a face, such as `kqzw1 happy 93%`; `name` may be ''."""
    parts = [
        name,
        labels.label_of(expression),
        f'{face.confidence:.0%}' if face.is_classified else '',
    ]
    return ' '.join(filter(None, parts))


def _draw_face(canvas: np.ndarray, face: FaceExpression, name: str, expression: int) -> None:
    color = palette.to_bgr(palette.color_of(expression))
    left, top, right, bottom = (round(float(value)) for value in face.face.box_xyxy)
    thickness = max(1, round(max(canvas.shape[:2]) / 500))
    cv2.rectangle(canvas, (left, top), (right, bottom), color, thickness, cv2.LINE_AA)
    for x, y in face.face.landmarks:
        cv2.circle(canvas, (round(float(x)), round(float(y))), thickness, color, -1, cv2.LINE_AA)
    text = caption(face, name, expression)
    scale = max(0.4, max(canvas.shape[:2]) / 1400)
    _draw_tag(canvas, text, (left, top), palette.color_of(expression), scale)
    if face.is_classified and bottom - top >= 60:
        _draw_bars(canvas, face.probabilities, (left, bottom), right - left, thickness)


def _draw_tag(
    canvas: np.ndarray, text: str, corner: tuple[int, int], color: str, scale: float
) -> None:
    """Draw text on a filled box above `corner`, moved to stay inside the image."""
    thickness = max(1, round(scale * 1.6))
    (width, height), base = cv2.getTextSize(text, FONT, scale, thickness)
    pad = max(2, height // 3)
    left = min(max(0, corner[0]), max(0, canvas.shape[1] - width - 2 * pad))
    top = max(0, corner[1] - height - base - 2 * pad)
    corner_end = (left + width + 2 * pad, top + height + base + 2 * pad)
    cv2.rectangle(canvas, (left, top), corner_end, palette.to_bgr(color), -1)
    ink = palette.to_bgr(palette.ink_on(color))
    origin = (left + pad, top + pad + height)
    cv2.putText(canvas, text, origin, FONT, scale, ink, thickness, cv2.LINE_AA)


def _draw_bars(
    canvas: np.ndarray,
    probabilities: np.ndarray,
    corner: tuple[int, int],
    width: int,
    thickness: int,
) -> None:
    """Draw a strip under the face, divided among the classes by their probabilities."""
    edges = corner[0] + np.concatenate([[0], np.cumsum(probabilities)]) * width
    top, bottom = corner[1] + 2 * thickness, corner[1] + 2 * thickness + max(4, width // 16)
    for color, left, right in zip(palette.EXPRESSIONS, edges, edges[1:], strict=False):
        corner_end = (round(right), bottom)
        cv2.rectangle(canvas, (round(left), top), corner_end, palette.to_bgr(color), -1)
