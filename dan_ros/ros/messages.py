"""From the pipeline's results to messages."""

import math
from collections.abc import Sequence

import numpy as np
from geometry_msgs.msg import Point, Point32, Quaternion
from geometry_msgs.msg import Pose as PoseMessage
from sensor_msgs.msg import Image, RegionOfInterest
from std_msgs.msg import Header

from dan_ros import labels
from dan_ros.following import FollowedFace
from dan_ros.msg import FacialExpression, FacialExpressionArray
from dan_ros.pose import Pose


def stamp_to_ns(header: Header) -> int:
    """Nanoseconds of a header's stamp, also where it is negative, which `Time.from_msg` refuses."""
    return header.stamp.sec * 1_000_000_000 + header.stamp.nanosec


def faces_to_array(
    faces: Sequence[FollowedFace],
    poses: Sequence[Pose | None],
    header: Header,
    camera: str,
    size: tuple[int, int],
) -> FacialExpressionArray:
    """Message of one frame.

    Args:
        faces: of the frame.
        poses: of each face, in the frame of the header; None where it is not known.
        header: of the image, is used unchanged.
        camera: resolved name of the image topic.
        size: (width, height) of the image, pixels.
    """
    return FacialExpressionArray(
        header=header,
        camera=camera,
        faces=[
            _face_to_message(face, pose, header, camera, size)
            for face, pose in zip(faces, poses, strict=True)
        ],
    )


def _face_to_message(
    face: FollowedFace, pose: Pose | None, header: Header, camera: str, size: tuple[int, int]
) -> FacialExpression:
    found = face.seen.face
    return FacialExpression(
        header=header,
        camera=camera,
        face_id=face.face_id,
        roi=box_to_roi(found.box_xyxy, size),
        detection_confidence=found.score,
        landmarks=[Point32(x=float(x), y=float(y)) for x, y in found.landmarks],
        expression=face.expression,
        label=labels.label_of(face.expression),
        confidence=face.confidence,
        probabilities=face.probabilities,
        raw_probabilities=face.seen.probabilities,
        pose=[] if pose is None else [pose_to_message(pose)],
    )


def pose_to_message(pose: Pose) -> PoseMessage:
    """Message of a pose."""
    x, y, z = pose.position.tolist()
    qx, qy, qz, qw = pose.quaternion_xyzw.tolist()
    return PoseMessage(
        position=Point(x=x, y=y, z=z), orientation=Quaternion(x=qx, y=qy, z=qz, w=qw)
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
