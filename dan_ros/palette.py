# SPDX-License-Identifier: Apache-2.0
"""The colors of pictures, plots and web pages, as `#rrggbb`; needs no library.

The colors of the expressions can be told apart with each kind of color blindness: the distance of
any two of them in OKLab, as seen with protanopia, deuteranopia or tritanopia, is at least 0.08
(test_palette.py). Some are too pale for thin lines on white: give areas an outline, and lines a
label.
"""

from dataclasses import dataclass

from dan_ros import labels

# By canonical index: neutral, happy, sad, surprise, fear, disgust, anger, contempt.
EXPRESSIONS = (
    '#b4b4b4',
    '#f2d23f',
    '#4684f2',
    '#5ce9f5',
    '#8c3eab',
    '#69b746',
    '#c84b00',
    '#bd79ae',
)
UNKNOWN = '#565b61'

# Colors of series in plots, after Okabe and Ito, https://jfly.uni-koeln.de/color/.
ACCENT = '#0072b2'  # color of the main series of a plot
BASELINE = '#9aa0a6'  # color of the series it is compared with
ALERT = '#d55e00'  # limits, mistakes
SERIES = (ACCENT, '#e69f00', '#009e73', ALERT, '#cc79a7', '#56b4e9')


@dataclass(frozen=True)
class Theme:
    """Colors of a page or a plot."""

    paper: str  # background
    panel: str  # background of parts that stand out
    ink: str  # text
    muted: str  # less important text, axes; contrast with `paper` and `panel` at least 4.5 : 1
    grid: str  # thin lines


LIGHT = Theme(paper='#ffffff', panel='#f5f6f8', ink='#1b1f24', muted='#5a626d', grid='#dde1e6')
DARK = Theme(paper='#12161b', panel='#1b2128', ink='#e8ebef', muted='#9aa4b0', grid='#2c343d')


def color_of(expression: int) -> str:
    """Return the color of a canonical index or `labels.UNKNOWN`."""
    return UNKNOWN if expression == labels.UNKNOWN else EXPRESSIONS[expression]


def to_rgb(color: str) -> tuple[int, int, int]:
    """Return red, green and blue of `#rrggbb`, each 0 to 255."""
    red, green, blue = bytes.fromhex(color[1:])
    return red, green, blue


def to_bgr(color: str) -> tuple[int, int, int]:
    """Return blue, green and red of `#rrggbb`, each 0 to 255, as OpenCV takes them."""
    red, green, blue = to_rgb(color)
    return blue, green, red


def ink_on(color: str) -> str:
    """Return the color of text on a filled area: dark or white, whichever is easier to read."""
    return max((LIGHT.ink, LIGHT.paper), key=lambda ink: contrast(ink, color))


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of two colors, 1 to 21.

    As WCAG 2.2 defines it, https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio.
    """
    dark, light = sorted(map(_luminance, (one, other)))
    return (light + 0.05) / (dark + 0.05)


def _luminance(color: str) -> float:
    """Relative luminance, [0, 1]."""
    channels = [value / 255 for value in to_rgb(color)]
    red, green, blue = (
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
