"""From the pipeline's results to messages."""

import math
from collections.abc import Sequence

import numpy as np
from geometry_msgs.msg import Point32
from sensor_msgs.msg import Image, RegionOfInterest
from std_msgs.msg import Header

from dan_ros import labels
from dan_ros.msg import FacialExpression, FacialExpressionArray
from dan_ros.types import FaceExpression


def stamp_to_ns(header: Header) -> int:
    """Nanoseconds of a header's stamp, also where it is negative, which `Time.from_msg` refuses."""
    return header.stamp.sec * 1_000_000_000 + header.stamp.nanosec


def faces_to_array(
    faces: Sequence[FaceExpression],
    face_ids: Sequence[str],
    header: Header,
    camera: str,
    size: tuple[int, int],
    min_confidence: float,
) -> FacialExpressionArray:
    """Message of one frame.

    Args:
        faces: what was found, and the id of each.
        face_ids: in the order of `faces`.
        header: of the image, is used unchanged.
        camera: resolved name of the image topic.
        size: (width, height) of the image, pixels.
        min_confidence: below it a face is UNKNOWN.
    """
    return FacialExpressionArray(
        header=header,
        camera=camera,
        faces=[
            _face_to_message(face, face_id, header, camera, size, min_confidence)
            for face, face_id in zip(faces, face_ids, strict=True)
        ],
    )


def _face_to_message(
    face: FaceExpression,
    face_id: str,
    header: Header,
    camera: str,
    size: tuple[int, int],
    min_confidence: float,
) -> FacialExpression:
    expression = face.expression(min_confidence)
    return FacialExpression(
        header=header,
        camera=camera,
        face_id=face_id,
        roi=box_to_roi(face.face.box_xyxy, size),
        detection_confidence=face.face.score,
        landmarks=[Point32(x=float(x), y=float(y)) for x, y in face.face.landmarks],
        expression=expression,
        label=labels.label_of(expression),
        confidence=face.confidence,
        probabilities=face.probabilities,
        raw_probabilities=face.probabilities,
    )


def box_to_roi(box_xyxy: np.ndarray, size: tuple[int, int]) -> RegionOfInterest:
    """The smallest region of whole pixels that covers a box, cut to the image; at least 1 x 1."""
    width, height = size
    left, top, right, bottom = (float(value) for value in box_xyxy)
    x_offset = min(max(math.floor(left), 0), width - 1)
    y_offset = min(max(math.floor(top), 0), height - 1)
    return RegionOfInterest(
        x_offset=x_offset,
        y_offset=y_offset,
        width=min(max(math.ceil(right), x_offset + 1), width) - x_offset,
        height=min(max(math.ceil(bottom), y_offset + 1), height) - y_offset,
    )


def bgr_to_image(image_bgr: np.ndarray, header: Header) -> Image:
    """Message of a picture, uint8 [H, W, 3] in BGR."""
    message = Image(
        header=header,
        height=image_bgr.shape[0],
        width=image_bgr.shape[1],
        encoding='bgr8',
        step=image_bgr.shape[1] * 3,
    )
    message.data.frombytes(memoryview(np.ascontiguousarray(image_bgr)).cast('B'))
    return message
