# SPDX-License-Identifier: Apache-2.0
"""Images made smaller: close to the mean over areas, at any sizes."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dan_ros.images.resize import resize

SIDES = st.integers(1, 300)


@pytest.mark.parametrize(
    'size',
    [(511, 511), (400, 300), (256, 256), (200, 340), (171, 128), (96, 96), (31, 77), (300, 20)],
)
def test_it_is_close_to_the_mean_over_areas(portrait, size):
    by_area = cv2.resize(portrait, size, interpolation=cv2.INTER_AREA)
    difference = np.abs(resize(portrait, *size).astype(int) - by_area)
    assert difference.mean() < 2.5


def test_it_does_not_pick_pixels(portrait):
    """Linear interpolation alone would pick pixels when it makes an image eleven times smaller."""
    picked = cv2.resize(portrait, (45, 45), interpolation=cv2.INTER_LINEAR)
    by_area = cv2.resize(portrait, (45, 45), interpolation=cv2.INTER_AREA)
    assert np.abs(picked.astype(int) - by_area).mean() > 5
    assert np.abs(resize(portrait, 45, 45).astype(int) - by_area).mean() < 1.5


@pytest.mark.parametrize('side', [97, 191, 193, 383, 384, 385, 513, 767, 771, 1023, 2000])
def test_it_leaves_little_more_noise_than_the_mean_over_areas(side):
    """More noise would mean that it skips pixels."""
    noise = np.random.default_rng(0).normal(128, 30, (side, side)).clip(0, 255).astype(np.uint8)
    by_area = cv2.resize(noise, (96, 96), interpolation=cv2.INTER_AREA)
    assert resize(noise, 96, 96).std() < 1.5 * by_area.std()


def test_enlarged_it_is_linear(portrait):
    expected = cv2.resize(portrait, (700, 600), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(resize(portrait, 700, 600), expected)


@settings(deadline=None)
@given(SIDES, SIDES, SIDES, SIDES, st.sampled_from([(), (3,), (4,)]), st.integers(0, 255))
def test_any_sizes_and_a_plain_image_stays_plain(height, width, to_height, to_width, shape, value):
    image = np.full((height, width, *shape), value, np.uint8)
    result = resize(image, to_width, to_height)
    assert result.shape == (to_height, to_width, *shape)
    assert result.dtype == np.uint8
    assert (result == value).all()
