# SPDX-License-Identifier: Apache-2.0
"""Pictures of faces: the part they show, level eyes, faces at the border."""

import cv2
import numpy as np
import pytest

from dan_ros.faces.picture import aligned_face, cropped_face, eye_angle
from dan_ros.types import Face, Frame

BOX = (130, 70, 230, 190)
EYES = np.array([[155, 110], [205, 110], [180, 130], [160, 160], [200, 160]], np.float32)


def scene_turned(degrees):
    """A face turned clockwise, with a red right eye and a blue left eye."""
    image = np.full((260, 360, 3), 90, np.uint8)
    cv2.circle(image, (155, 110), 6, (0, 0, 255), -1)
    cv2.circle(image, (205, 110), 6, (255, 0, 0), -1)
    turn = cv2.getRotationMatrix2D((180, 130), -degrees, 1.0)
    image = cv2.warpAffine(image, turn, (360, 260), borderValue=(90, 90, 90))
    landmarks = (EYES @ turn[:, :2].T + turn[:, 2]).astype(np.float32)
    return Frame(image), Face(np.float32(BOX), 0.9, landmarks)


def place_of(picture, color):
    rows, columns = np.nonzero((np.abs(picture.astype(int) - color) < 60).all(2))
    return columns.mean() / picture.shape[1], rows.mean() / picture.shape[0]


@pytest.mark.parametrize('degrees', [0, 25, -40, 90, 180])
def test_the_eyes_of_an_aligned_face_are_level_in_their_places(degrees):
    frame, face = scene_turned(degrees)
    picture = aligned_face(frame, face, (128, 128))
    assert picture.shape == (128, 128, 3)
    # The box is 120 pixels high, so the picture shows 120 x 120 pixels around (180, 130).
    assert place_of(picture, (0, 0, 255)) == pytest.approx((35 / 120, 40 / 120), abs=0.015)
    assert place_of(picture, (255, 0, 0)) == pytest.approx((85 / 120, 40 / 120), abs=0.015)
    assert np.degrees(eye_angle(face)) % 360 == pytest.approx(degrees % 360, abs=0.01)


@pytest.mark.parametrize('size', [(128, 128), (64, 128), (200, 50)])
def test_a_crop_shows_the_whole_box_undistorted(size):
    frame, face = scene_turned(0)
    picture = cropped_face(frame, face, size)
    assert picture.shape == (size[1], size[0], 3)
    scale = max(100 / size[0], 120 / size[1])
    for color, x in (((0, 0, 255), 155), ((255, 0, 0), 205)):
        expected = 0.5 + (x - 180) / size[0] / scale, 0.5 + (110 - 130) / size[1] / scale
        assert place_of(picture, color) == pytest.approx(expected, abs=0.02)
    upright = aligned_face(frame, face, size)
    assert np.abs(upright.astype(int) - picture).mean() < 2


@pytest.mark.parametrize('encoding', ['bgr8', 'rgba8', 'mono8'])
def test_outside_the_image_a_picture_is_black(encoding):
    shape = {'bgr8': (40, 40, 3), 'rgba8': (40, 40, 4), 'mono8': (40, 40)}[encoding]
    frame = Frame(np.full(shape, 200, np.uint8), encoding)
    face = Face(np.float32([-20, -20, 20, 20]), 0.9, EYES - 100)
    for draw in (cropped_face, aligned_face):
        picture = draw(frame, face, (64, 64))
        assert picture[:28, :28].max() == 0
        assert picture[40:, 40:].min() == 200


@pytest.mark.parametrize('landmarks', [np.zeros((0, 2)), np.ones((5, 2))])
def test_without_two_eyes_no_face_is_aligned(landmarks):
    frame, _ = scene_turned(0)
    face = Face(np.float32(BOX), 0.9, landmarks.astype(np.float32))
    assert aligned_face(frame, face, (64, 64)) is None
    assert cropped_face(frame, face, (64, 64)).shape == (64, 64, 3)
