# SPDX-License-Identifier: Apache-2.0
"""Synthetic heads at known angles, as the landmarks that a detector would find."""

from dataclasses import dataclass

import cv2
import numpy as np

from dan_ros.faces.camera_model import Camera
from dan_ros.faces.head_pose import FACE_POINTS

SIZE = (640, 480)  # width, height of the images, pixels
PINHOLE = Camera(np.array([[660.0, 0, 322], [0, 660, 236], [0, 0, 1]]), np.zeros(0), '', SIZE)
# Axes of a face that looks against the z axis: x along -z, y along x, z up.
FACING = np.array([[0.0, 1, 0], [0, 0, -1], [-1, 0, 0]])


@dataclass(frozen=True)
class Head:
    """A head that faces the camera and then turns about its own axes.

    Attributes:
        yaw_deg: turn to the person's left, degrees.
        pitch_deg: nod down.
        roll_deg: tilt.
        place: position of the point between the eyes in the camera's optical frame, meters.
    """

    yaw_deg: float
    pitch_deg: float
    roll_deg: float
    place: tuple[float, float, float]

    @property
    def rotation(self) -> np.ndarray:
        """From the face frame of REP-155 to the optical frame, [3, 3]."""
        rotation = _towards(np.array(self.place, float)) @ FACING
        turns = ((0, 0, 1), self.yaw_deg), ((0, 1, 0), self.pitch_deg), ((1, 0, 0), self.roll_deg)
        for axis, degrees in turns:
            rotation = rotation @ cv2.Rodrigues(np.deg2rad(degrees) * np.array(axis, float))[0]
        return rotation

    def points(self, rng: np.random.Generator | None = None, shape_m: float = 0.0) -> np.ndarray:
        """Return landmarks of a face with random shape in the optical frame, [5, 3], meters."""
        shape = FACE_POINTS if rng is None else FACE_POINTS + rng.normal(0, shape_m, (5, 3))
        return shape @ self.rotation.T + self.place

    def landmarks(
        self,
        rng: np.random.Generator | None = None,
        noise_px: float = 0.0,
        shape_m: float = 0.0,
    ) -> np.ndarray:
        """Landmarks in the image of `PINHOLE`, [5, 2], pixels, with noise."""
        rays = self.points(rng, shape_m) @ PINHOLE.matrix.T
        pixels = rays[:, :2] / rays[:, 2:]
        return pixels if rng is None else pixels + rng.normal(0, noise_px, (5, 2))


def facing_angle_deg(head: Head) -> float:
    """The true angle between the head's forward direction and the line to the camera."""
    forward, to_camera = head.rotation[:, 0], -np.array(head.place, float)
    cosine = forward @ to_camera / np.linalg.norm(to_camera)
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


def _towards(place: np.ndarray) -> np.ndarray:
    """The shortest rotation [3, 3] of the optical axis to a position."""
    axis = np.cross([0, 0, 1], place)
    length = np.linalg.norm(axis)
    if length == 0:
        return np.eye(3)
    return cv2.Rodrigues(axis / length * np.arctan2(length, place[2]))[0]
