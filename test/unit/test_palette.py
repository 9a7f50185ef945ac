# SPDX-License-Identifier: Apache-2.0
"""The palette: colors that everybody can tell apart, and text that can be read on them."""

import itertools

import numpy as np
import pytest

from dan_ros import labels, palette

COLORS = {
    'unknown': palette.UNKNOWN,
    **dict(zip(labels.CANONICAL, palette.EXPRESSIONS, strict=True)),
}
# Linear RGB as people with complete color blindness see it: Machado et al. 2009,
# https://www.inf.ufrgs.br/~oliveira/pubs_files/CVD_Simulation/CVD_Simulation.html.
SEEN_WITH = {
    'normal vision': np.eye(3),
    'protanopia': [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    'deuteranopia': [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    'tritanopia': [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


def to_oklab(linear_rgb: np.ndarray) -> np.ndarray:
    """See https://bottosson.github.io/posts/oklab/."""
    lms = linear_rgb @ np.array(
        [
            [0.4122214708, 0.2119034982, 0.0883024619],
            [0.5363325363, 0.6806995451, 0.2817188376],
            [0.0514459929, 0.1073969566, 0.6299787005],
        ]
    )
    return np.cbrt(lms) @ np.array(
        [
            [0.2104542553, 1.9779984951, 0.0259040371],
            [0.7936177850, -2.4285922050, 0.7827717662],
            [-0.0040720468, 0.4505937099, -0.8086757660],
        ]
    )


@pytest.mark.parametrize('vision', SEEN_WITH)
def test_everybody_can_tell_the_expressions_apart(vision):
    srgb = np.array([palette.to_rgb(color) for color in COLORS.values()]) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    seen = to_oklab((linear @ np.array(SEEN_WITH[vision]).T).clip(0, 1))
    for (one, a), (other, b) in itertools.combinations(zip(COLORS, seen, strict=True), 2):
        assert np.linalg.norm(a - b) >= 0.08, (one, other)


def test_text_can_be_read():
    """WCAG requires a contrast of 4.5 : 1."""
    for color in COLORS.values():
        assert palette.contrast(palette.ink_on(color), color) >= 4.5, color
    for theme in (palette.LIGHT, palette.DARK):
        for ink, paper in itertools.product((theme.ink, theme.muted), (theme.paper, theme.panel)):
            assert palette.contrast(ink, paper) >= 4.5


def test_contrast_is_that_of_wcag():
    assert palette.contrast('#ffffff', '#000000') == pytest.approx(21)
    assert palette.contrast('#777777', '#ffffff') == pytest.approx(4.48, abs=0.01)


def test_an_unknown_expression_has_a_color_of_its_own():
    assert palette.color_of(labels.UNKNOWN) == palette.UNKNOWN
    assert palette.color_of(1) == COLORS['happy']
    assert palette.to_bgr('#010203') == (3, 2, 1)
