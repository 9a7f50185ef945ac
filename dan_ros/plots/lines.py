# SPDX-License-Identifier: Apache-2.0
"""Plots of several quantities over one axis, for a training or a long run of the node."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dan_ros.plots.style import new_figure, styled

PANEL_IN = 1.6  # height of a panel


@dataclass(frozen=True)
class Panel:
    """Lines that share a vertical axis."""

    title: str  # drawn on top of the panel
    lines: Mapping[str, Sequence[float]]  # N values by name; NaN leaves a gap
    unit: str = ''  # label of the vertical axis
    from_zero: bool = True  # whether the axis begins at 0


@styled
def draw_lines(
    x: Sequence[float], panels: Sequence[Panel], x_label: str, title: str = '', marker: str = ''
) -> Figure:
    """Draw panels one below the other over the same N values of `x`."""
    figure = new_figure(0.7 + PANEL_IN * len(panels), title)
    column = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axes, panel in zip(column, panels, strict=True):
        for name, values in panel.lines.items():
            axes.plot(x, values, marker=marker, label=name, linewidth=1.0)
        axes.set_title(panel.title, fontsize=8)
        axes.set_ylabel(panel.unit)
        axes.grid(axis='y')
        if panel.from_zero:
            axes.set_ylim(bottom=0)
        if len(panel.lines) > 1:
            axes.legend(loc='center left', bbox_to_anchor=(1.0, 0.5))
    column[-1].set_xlabel(x_label)
    column[-1].margins(x=0.02)
    if all(isinstance(value, int) for value in x):
        column[-1].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    figure.align_ylabels()
    return figure
