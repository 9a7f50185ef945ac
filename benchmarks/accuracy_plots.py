# SPDX-License-Identifier: Apache-2.0
"""Plots of how many faces are found and classified correctly under each condition."""

from collections.abc import Mapping
from textwrap import fill

from matplotlib.figure import Figure

from dan_ros.palette import ACCENT, BASELINE
from dan_ros.plots.style import SMALL_PT, new_figure, styled

Shares = Mapping[str, float]  # 'found' and 'accuracy', of all faces, [0, 1]
LABEL_LETTERS = 24  # characters per line of a label below a panel, which is a quarter of the page


@styled
def draw_conditions(shares: Mapping[str, Shares], x_label: str) -> Figure:
    """Draw one bar per condition: found faces in gray, and in it the correct ones in blue."""
    figure = new_figure(0.9 + 0.27 * len(shares))
    axes = figure.add_subplot()
    places = range(len(shares))
    for key, color, name in (('found', BASELINE, 'found'), ('accuracy', ACCENT, 'correct')):
        values = [100 * one[key] for one in shares.values()]
        bars = axes.barh(places, values, color=color, height=0.72, label=name)
    axes.bar_label(
        bars, fmt='%.1f', label_type='center', color='white', fontsize=SMALL_PT, weight='bold'
    )
    axes.set_yticks(places, list(shares))
    axes.tick_params(axis='y', length=0)
    axes.invert_yaxis()
    axes.set(xlim=(0, 100), xlabel=x_label)
    figure.legend(loc='outside upper right', ncols=2)
    return figure


@styled
def draw_series(varied: Mapping[str, Mapping[float, Shares]], title: str) -> Figure:
    """Draw one panel per varied quantity: shares of found and of correct faces over it."""
    figure = new_figure(2.5, title)
    panels = figure.subplots(1, len(varied), sharey=True, squeeze=False)[0]
    for axes, (quantity, values) in zip(panels, varied.items(), strict=True):
        names = [f'{value:g}' for value in values]
        for key, color, name in (('found', BASELINE, 'found'), ('accuracy', ACCENT, 'correct')):
            axes.plot(
                names, [100 * one[key] for one in values.values()], 'o-', color=color, label=name
            )
        axes.set(ylim=(0, 103), xlabel=fill(quantity, LABEL_LETTERS))
        axes.tick_params(axis='x', labelsize=SMALL_PT)
        axes.xaxis.label.set_size(SMALL_PT)
        axes.grid(axis='y')
    panels[0].set_ylabel('percent of the faces')
    panels[0].legend(loc='lower left')
    return figure
