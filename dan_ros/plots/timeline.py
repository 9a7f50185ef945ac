# SPDX-License-Identifier: Apache-2.0
"""Plot of one face over time: its probabilities and its published label."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from dan_ros import labels
from dan_ros.palette import EXPRESSIONS, LIGHT, color_of, ink_on
from dan_ros.plots.style import SMALL_PT, new_figure, styled

MIN_NAMED_SHARE = 0.07  # share of the width from which a band shows the name of its label


@styled
def draw_timeline(
    times_s: Sequence[float],
    rows: np.ndarray,
    expressions: Sequence[int],
    after_gap: Sequence[bool],
    title: str,
) -> Figure:
    """Draw the probabilities as stacked areas, and below them a band with the published label.

    Args:
        times_s: N times, ascending, seconds.
        rows: float [N, 8], probabilities by canonical index.
        expressions: N canonical indices of the published label, or `labels.UNKNOWN`.
        after_gap: whether the face was missing before each moment; gaps stay empty.
    """
    figure = new_figure(2.9, title)
    areas, band = figure.subplots(2, 1, height_ratios=(6, 1), sharex=True)
    times, shares = _with_gaps(np.array(times_s), np.asarray(rows, np.float64), after_gap)
    areas.stackplot(times, shares.T, colors=EXPRESSIONS, linewidth=0)
    edges = np.cumsum(shares, axis=1)[:, :-1]
    areas.plot(times, edges, color=LIGHT.paper, linewidth=0.4)
    areas.set(ylim=(0, 1), ylabel='probability', facecolor=LIGHT.panel)
    width_s = max(times[-1] - times[0], 1e-3)
    _draw_band(band, times_s, expressions, after_gap, width_s)
    band.set(yticks=[], xlabel='seconds since the start of the bag', facecolor=LIGHT.panel)
    band.set_ylabel('label', rotation=0, ha='right', va='center')
    areas.set_xlim(times[0], times[0] + width_s)
    used = [*np.flatnonzero(shares.max(axis=0) >= 0.05)][::-1]
    patches = [Patch(color=EXPRESSIONS[index], label=labels.CANONICAL[index]) for index in used]
    if labels.UNKNOWN in expressions:
        patches.append(Patch(color=color_of(labels.UNKNOWN), label='unknown'))
    areas.legend(handles=patches, loc='center left', bbox_to_anchor=(1.0, 0.5))
    return figure


def _draw_band(
    axes: Axes,
    times: Sequence[float],
    expressions: Sequence[int],
    after_gap: Sequence[bool],
    width_s: float,
) -> None:
    """Draw one span for each run of equal labels; wide spans show the label."""
    start = 0
    for index in range(1, len(times)):
        is_last, is_gap = index == len(times) - 1, after_gap[index]
        if not (is_last or is_gap or expressions[index] != expressions[start]):
            continue
        begin, end = times[start], times[index - 1 if is_gap else index]
        color = color_of(expressions[start])
        axes.axvspan(begin, end, color=color, linewidth=0)
        if end - begin > MIN_NAMED_SHARE * width_s:
            name, middle = labels.label_of(expressions[start]), (begin + end) / 2
            axes.text(
                middle, 0.5, name, ha='center', va='center', color=ink_on(color), fontsize=SMALL_PT
            )
        start = index
    axes.set_ylim(0, 1)


def _with_gaps(
    times: np.ndarray, rows: np.ndarray, after_gap: Sequence[bool]
) -> tuple[np.ndarray, np.ndarray]:
    """Return times and rows, with rows of zeros at the start and end of each gap."""
    gaps = np.flatnonzero(after_gap[1:])
    edges = np.concatenate([times[gaps] + 1e-6, times[gaps + 1] - 1e-6])
    order = np.concatenate([gaps + 1, gaps + 1])
    return np.insert(times, order, edges), np.insert(rows, order, 0.0, axis=0)
