# SPDX-License-Identifier: Apache-2.0
"""Attention: whether the head of a person is turned to the camera, and for how long.

This is the direction of the head. People can look at something else from the corners of their eyes,
and the direction of gaze is not estimated.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dan_ros.faces.camera_model import Camera
from dan_ros.faces.head_direction import angle_to_camera, head_directions
from dan_ros.faces.head_pose import HeadPose
from dan_ros.tracking.debounce import Debounced
from dan_ros.tracking.face_tracker import TrackedFace
from dan_ros.types import Attention

HALF_LIFE_S = 0.15  # half-life of past directions in the average, seconds
FIELD_DEG = 60.0  # half the opening angle of the fields of attention, degrees
STOP_RATIO = 1.4  # angle beyond which a face stops looking, relative to the one where it starts


@dataclass(frozen=True)
class AttentionConfig:
    """Settings of an `AttentionTracker`.

    Attributes:
        angle_deg: angle between the head and the line to the camera at which `looking_at_camera` is
            0.5, degrees. A face starts to look below it, and stops beyond 1.4 times as much. With
            YuNet's landmarks, a sideways turn is measured as 0.7 of its true angle, so the default
            corresponds to a turn of 21 degrees.
        min_duration_s: how long a face must be turned to the camera, or away, before that counts,
            seconds.
    """

    angle_deg: float = 15.0
    min_duration_s: float = 0.3


class AttentionTracker:
    """Estimates the attention of the faces of one camera.

    Attributes:
        config: see `AttentionConfig`; may be replaced between two frames.
    """

    def __init__(self, config: AttentionConfig | None = None) -> None:
        self.config = config or AttentionConfig()
        self._faces: dict[str, _FaceAttention] = {}

    def update(
        self,
        faces: Sequence[TrackedFace],
        face_ids: set[str],
        camera: Camera | None,
        size: tuple[int, int],
    ) -> list[TrackedFace]:
        """Add one frame.

        Args:
            faces: faces of the frame.
            face_ids: ids in view, and of missing faces that may come back; others are forgotten.
            camera: calibration; None if unknown.
            size: (width, height) of the image, pixels.

        Returns:
            The same faces with their attention.
        """
        self._faces = {i: state for i, state in self._faces.items() if i in face_ids}
        landmarks = [face.detection.landmarks for face in faces]
        directions = head_directions(landmarks, camera, size)
        return [
            replace(face, attention=self._update(face, direction))
            for face, direction in zip(faces, directions, strict=True)
        ]

    def _update(self, face: TrackedFace, direction: Sequence[float]) -> Attention:
        state = self._faces.get(face.face_id)
        if state is None:
            state = self._faces[face.face_id] = _FaceAttention(face.time_ns)
        return state.update(direction, face.time_ns, self.config)


class _FaceAttention:
    """The smoothed direction of one head, and whether it counts as looking.

    Plain floats instead of arrays: they are faster for three numbers.
    """

    def __init__(self, now_ns: int) -> None:
        self._direction: Sequence[float] = []  # [3], not normalized; empty at first
        self._direction_ns = now_ns
        self._is_looking = Debounced(False, now_ns)

    def update(self, direction: Sequence[float], now_ns: int, config: AttentionConfig) -> Attention:
        """Add the direction of one frame, [3] as in `head_directions`."""
        score, is_looking = math.nan, False
        if not math.isnan(direction[2]):
            angle_deg = angle_to_camera(self._average(direction, now_ns))
            score = looking_at_camera(angle_deg, config.angle_deg)
            was_looking = self._is_looking.value
            is_looking = angle_deg < config.angle_deg * (STOP_RATIO if was_looking else 1)
        self._is_looking.update(is_looking, now_ns, config.min_duration_s)
        return Attention(score, self._is_looking.value, self._is_looking.lasted_s(now_ns))

    def _average(self, direction: Sequence[float], now_ns: int) -> Sequence[float]:
        past = 0.5 ** ((now_ns - self._direction_ns) / 1e9 / HALF_LIFE_S)
        pairs = zip(self._direction or direction, direction, strict=True)
        self._direction = [past * old + (1 - past) * new for old, new in pairs]
        self._direction_ns = now_ns
        return self._direction


def looking_at_camera(angle_deg: float, half_angle_deg: float) -> float:
    """Map the angle between a head and the line to the camera to [0, 1].

    Args:
        angle_deg: the angle, degrees.
        half_angle_deg: angle that gives 0.5, degrees.

    >>> [round(looking_at_camera(angle, 20), 2) for angle in (0, 10, 20, 30, 60)]
    [1.0, 0.84, 0.5, 0.21, 0.0]
    """
    return float(0.5 ** ((angle_deg / half_angle_deg) ** 2))


def visual_social_engagement(pose: HeadPose) -> float:
    """Return the visual social engagement between a person and the camera, [0, 1].

    S = min(1, M / d): the mutual gaze M divided by the distance d in meters. M is a product of two
    values: how central the person is in the robot's field of attention, and the robot in the
    person's. A field is a cone; the value is 1 on its axis and 0 at its edge. Source: Webb and
    Lemaignan 2022, "Measuring Visual Social Engagement from Proxemics and Gaze",
    https://doi.org/10.1109/RO-MAN53752.2022.9900801. The person's gaze is taken from the head, and
    the robot's is the axis of the camera.

    >>> facing = np.array([0.5, 0.5, -0.5, 0.5])
    >>> visual_social_engagement(HeadPose(np.array([0.0, 0.0, 2.0]), facing))
    0.5
    """
    distance_m = float(np.linalg.norm(pose.position))
    if distance_m == 0:
        return 0.0
    camera_in_face = pose.rotation.T @ -pose.position  # x points forward
    by_person = _centrality(camera_in_face[0], camera_in_face[1:])
    by_robot = _centrality(pose.position[2], pose.position[:2])
    return float(min(1.0, by_person * by_robot / distance_m))


def _centrality(forward_m: float, sideways_m: np.ndarray) -> float:
    """Return how close a point is to the axis of a cone: 1 on the axis, 0 outside the cone."""
    if forward_m <= 0:
        return 0.0
    edge_m = forward_m * math.tan(math.radians(FIELD_DEG))
    return max(0.0, 1 - math.hypot(*sideways_m.tolist()) / edge_m)
