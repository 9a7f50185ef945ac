# SPDX-License-Identifier: Apache-2.0
"""The style of all plots: fonts, sizes, lines and colors."""

import functools
import io
from collections.abc import Callable
from typing import Any, ParamSpec

import matplotlib
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dan_ros.palette import LIGHT, SERIES

WIDTH_IN = 7.2  # fits between the margins of an A4 or Letter page
MAX_HEIGHT_IN = 9.6  # likewise
SMALL_PT = 7.5  # font size of numbers at bars, and of ticks with long names
DPI = 150

RC: dict[Any, Any] = {  # see https://matplotlib.org/stable/users/explain/customizing.html
    'figure.dpi': DPI,
    'figure.facecolor': LIGHT.paper,
    'savefig.facecolor': LIGHT.paper,
    'font.family': 'DejaVu Sans',  # comes with matplotlib, so a plot is the same on all machines
    'font.size': 9,
    'text.color': LIGHT.ink,
    'text.parse_math': False,  # file names may contain dollar signs
    'axes.facecolor': LIGHT.paper,
    'axes.edgecolor': LIGHT.muted,
    'axes.labelcolor': LIGHT.muted,
    'axes.titlecolor': LIGHT.ink,
    'axes.titlesize': 9,
    'axes.titlelocation': 'left',
    'axes.titleweight': 'bold',
    'axes.labelsize': 8.5,
    'axes.linewidth': 0.7,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.axisbelow': True,
    'axes.prop_cycle': cycler(color=SERIES),
    'grid.color': LIGHT.grid,
    'grid.linewidth': 0.7,
    'xtick.color': LIGHT.muted,
    'ytick.color': LIGHT.muted,
    'xtick.labelcolor': LIGHT.ink,
    'ytick.labelcolor': LIGHT.ink,
    'xtick.labelsize': 8,
    'ytick.labelsize': 8,
    'xtick.major.width': 0.7,
    'ytick.major.width': 0.7,
    'xtick.major.size': 3,
    'ytick.major.size': 3,
    'lines.linewidth': 1.5,
    'lines.markersize': 4,
    'legend.frameon': False,
    'legend.fontsize': 8,
}

P = ParamSpec('P')


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Decorate a function that draws a figure: it draws in the style of the package."""

    @functools.wraps(draw)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with matplotlib.rc_context(RC):
            return draw(*args, **kwargs)

    return wrapper


def new_figure(height_in: float, title: str = '', width_in: float = WIDTH_IN) -> Figure:
    """Return an empty figure of a size in inches, at most as high as a page.

    The title, on the upper left, may have two lines.
    """
    size = (width_in, min(height_in, MAX_HEIGHT_IN))
    figure = Figure(figsize=size, layout='constrained')
    if title:
        figure.suptitle(title, x=0.01, ha='left', fontsize=10, fontweight='bold')
    return figure


def hide_axes(axes: Axes) -> None:
    """Remove the axis lines and ticks."""
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def encode(figure: Figure, kind: str = 'png') -> bytes:
    """Encode a figure as png, jpg, jpeg, pdf or svg."""
    file = io.BytesIO()
    with matplotlib.rc_context(RC):
        figure.savefig(file, format=kind)
    return file.getvalue()
