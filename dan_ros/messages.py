# SPDX-License-Identifier: Apache-2.0
"""Converts the faces of a frame to messages, with the message classes of ROS or rosbags."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from dan_ros import labels
from dan_ros.faces.head_pose import HeadPose
from dan_ros.tracking.events import FaceEvent, FaceState, dominant_expression
from dan_ros.tracking.face_tracker import TrackedFace


class MessageClasses:
    """Message classes. Each must accept all its fields as keyword arguments.

    Args:
        find: returns the class of a type, such as geometry_msgs/msg/Pose.
    """

    def __init__(self, find: Callable[[str], Any]) -> None:
        self.FaceScene = find('dan_ros/msg/FaceScene')
        self.FaceState = find('dan_ros/msg/FaceState')
        self.FacialExpression = find('dan_ros/msg/FacialExpression')
        self.FacialExpressionArray = find('dan_ros/msg/FacialExpressionArray')
        self.FacialExpressionEvent = find('dan_ros/msg/FacialExpressionEvent')
        self.Point = find('geometry_msgs/msg/Point')
        self.Point32 = find('geometry_msgs/msg/Point32')
        self.Pose = find('geometry_msgs/msg/Pose')
        self.Quaternion = find('geometry_msgs/msg/Quaternion')
        self.RegionOfInterest = find('sensor_msgs/msg/RegionOfInterest')

    def array(
        self,
        faces: Sequence[TrackedFace],
        header: Any,
        camera: str,
        size: tuple[int, int],
    ) -> Any:
        """Return the FacialExpressionArray of one frame.

        Args:
            faces: faces of the frame.
            header: std_msgs/Header of the image, copied unchanged.
            camera: resolved name of the image topic.
            size: (width, height) of the image, pixels.
        """
        return self.FacialExpressionArray(
            header=header,
            camera=camera,
            faces=[self._face(face, header, camera, size) for face in faces],
        )

    def pose(self, pose: HeadPose) -> Any:
        """Convert a pose to geometry_msgs/Pose."""
        x, y, z = pose.position.tolist()
        qx, qy, qz, qw = pose.quaternion_xyzw.tolist()
        return self.Pose(
            position=self.Point(x=x, y=y, z=z), orientation=self.Quaternion(x=qx, y=qy, z=qz, w=qw)
        )

    def _face(self, face: TrackedFace, header: Any, camera: str, size: tuple[int, int]) -> Any:
        detection = face.detection
        x_offset, y_offset, width, height = box_to_region(detection.box_xyxy, size)
        return self.FacialExpression(
            header=header,
            camera=camera,
            face_id=face.face_id,
            roi=self.RegionOfInterest(
                x_offset=x_offset, y_offset=y_offset, width=width, height=height, do_rectify=False
            ),
            detection_confidence=detection.score,
            landmarks=[self.Point32(x=float(x), y=float(y), z=0.0) for x, y in detection.landmarks],
            expression=face.expression,
            label=labels.label_of(face.expression),
            confidence=face.confidence,
            probabilities=face.probabilities,
            raw_probabilities=face.raw.probabilities,
            pose=[] if face.pose is None else [self.pose(face.pose)],
            looking_at_camera=face.attention.score,
            looking=face.attention.is_looking,
            looking_s=face.attention.seconds,
        )

    def event(self, event: FaceEvent, header: Any, camera: str) -> Any:
        """Return the FacialExpressionEvent of a change."""
        state = event.state
        return self.FacialExpressionEvent(
            header=header,
            camera=camera,
            face_id=state.face_id,
            kind=int(event.kind),
            expression=state.expression,
            label=labels.label_of(state.expression),
            previous_expression=event.previous_expression,
            previous_label=labels.label_of(event.previous_expression),
            confidence=state.confidence,
            detection_confidence=state.detection_confidence,
            looking=state.attention.is_looking,
            looking_at_camera=state.attention.score,
            lasted_s=event.lasted_s,
        )

    def scene(self, states: Mapping[str, Sequence[FaceState]], header: Any) -> Any:
        """Return the FaceScene of all cameras; `header` is that of the image that changed it."""
        all_states = [state for faces in states.values() for state in faces]
        dominant = dominant_expression(all_states)
        return self.FaceScene(
            header=header,
            face_count=len(all_states),
            looking_count=sum(state.attention.is_looking for state in all_states),
            dominant_expression=dominant,
            dominant_label=labels.label_of(dominant),
            faces=[self._state(s, camera) for camera, faces in states.items() for s in faces],
        )

    def _state(self, state: FaceState, camera: str) -> Any:
        return self.FaceState(
            camera=camera,
            face_id=state.face_id,
            expression=state.expression,
            label=labels.label_of(state.expression),
            confidence=state.confidence,
            looking=state.attention.is_looking,
            in_view_s=state.in_view_s,
            expression_s=state.expression_s,
            looking_s=state.attention.seconds,
        )


def box_to_region(box_xyxy: np.ndarray, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the smallest region of whole pixels that covers a box.

    The region is clipped to the image and has at least one pixel.

    Args:
        box_xyxy: [4], left, top, right, bottom, pixels.
        size: (width, height) of the image, pixels.

    Returns:
        Left, top, width and height, pixels.

    >>> box_to_region(np.array([-3.0, 1.5, 9.2, 40.0]), (8, 30))
    (0, 1, 8, 29)
    """
    width, height = size
    left, top, right, bottom = (float(value) for value in box_xyxy)
    x_offset = min(max(math.floor(left), 0), width - 1)
    y_offset = min(max(math.floor(top), 0), height - 1)
    return (
        x_offset,
        y_offset,
        min(max(math.ceil(right), x_offset + 1), width) - x_offset,
        min(max(math.ceil(bottom), y_offset + 1), height) - y_offset,
    )


def stamp_to_ns(stamp: Any) -> int:
    """Convert a stamp to nanoseconds; unlike `Time.from_msg`, accepts negative stamps."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)
