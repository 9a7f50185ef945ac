# SPDX-License-Identifier: Apache-2.0
"""The crop rule: a square around the face, resized to the input of the network."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dan_ros.faces.crop import crop_face, square_about
from dan_ros.types import Frame


def cut(image, box, size=32, scale=1.0, encoding='bgr8', turns=0):
    out = np.empty((size, size, 3), np.uint8)
    crop_face(Frame(image, encoding), np.array(box), scale, out, turns)
    return out


def test_the_square_has_the_center_of_the_box_and_its_longer_side():
    assert square_about(np.array([100.0, 50.0, 140.0, 110.0]), 0.5) == (105, 65, 30)


def test_a_crop_without_scaling_has_the_exact_pixels_in_rgb():
    image = np.random.RandomState(0).randint(0, 256, (64, 64, 3), np.uint8)
    np.testing.assert_array_equal(cut(image, [16, 8, 48, 40]), image[8:40, 16:48, ::-1])


@pytest.mark.parametrize(
    ('encoding', 'pixel'),
    [
        ('bgr8', (10, 20, 30)),
        ('rgb8', (30, 20, 10)),
        ('bgra8', (10, 20, 30, 99)),
        ('rgba8', (30, 20, 10, 99)),
    ],
)
def test_every_encoding_gives_rgb(encoding, pixel):
    image = np.full((50, 50, len(pixel)), pixel, np.uint8)
    assert (cut(image, [5, 5, 45, 45], encoding=encoding) == (30, 20, 10)).all()


def test_a_box_far_larger_than_the_image_takes_no_memory_for_it():
    """A copy of the square of 1.6 million x 1.6 million pixels would take 7 TiB."""
    image = np.full((50, 50, 3), 60, np.uint8)
    crop = cut(image, [-8e5, -8e5, 8e5, 8e5])
    assert (crop == 60).all()


def test_gray_is_repeated():
    image = np.full((50, 50), 77, np.uint8)
    assert (cut(image, [5, 5, 45, 45], encoding='mono8') == 77).all()


def test_the_nearest_pixel_is_repeated_beyond_the_border():
    image = np.zeros((40, 40, 3), np.uint8)
    image[:, 0] = 200
    crop = cut(image, [-16, 4, 16, 36])
    assert (crop[:, :16] == 200).all()
    assert (crop[:, 17:] == 0).all()


def test_a_quarter_turn_rotates_the_crop():
    image = np.zeros((32, 32, 3), np.uint8)
    image[:, :8] = 255  # the left edge, which a clockwise turn brings to the top
    crop = cut(image, [0, 0, 32, 32], turns=1)
    assert (crop[:8] == 255).all()
    assert (crop[8:] == 0).all()


def test_shrinking_averages_instead_of_skipping():
    image = np.zeros((128, 128, 3), np.uint8)
    image[::2] = 200
    np.testing.assert_allclose(cut(image, [0, 0, 128, 128]), 100, atol=1)


corner = st.floats(-500, 500)


@given(corner, corner, st.floats(0, 500), st.floats(0, 500), st.floats(0.1, 3))
def test_any_box_can_be_cropped(left, top, width, height, scale):
    image = np.full((30, 50, 3), 9, np.uint8)
    assert (cut(image, [left, top, left + width, top + height], scale=scale) == 9).all()
