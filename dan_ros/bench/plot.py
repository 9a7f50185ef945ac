# SPDX-License-Identifier: Apache-2.0
"""Plots of measured times, as wide as a page."""

import textwrap
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec

from dan_ros.bench.report import Steps
from dan_ros.bench.timer import Comparison
from dan_ros.palette import ACCENT, BASELINE, SERIES
from dan_ros.plots.style import SMALL_PT, hide_axes, new_figure, styled

ROW_IN = 0.3  # height of a bar, enough for a name of two lines
HEAD_IN = 0.5  # height of a panel's title and margin
NAME_WIDTH = 30  # characters in a line of a name
TITLE_WIDTH = 76  # characters in the title above a row of panels
MAX_COLUMNS = 4


@styled
def draw_bench(comparisons: Sequence[Comparison], steps_ms: Steps, title: str) -> Figure:
    """Plot comparisons, those of the same variants side by side, and below them any steps."""
    groups = _group(comparisons)
    heights = [HEAD_IN + ROW_IN * len(group[0].times_ms) for group in groups]
    heights += [HEAD_IN + ROW_IN * (len(steps_ms) + 1)] * bool(steps_ms)
    figure = new_figure(0.5 + sum(heights), title)
    grid = GridSpec(len(heights), 1, figure=figure, height_ratios=heights)
    for row, group in enumerate(groups):
        columns = grid[row].subgridspec(1, len(group)).subplots(sharey=True, squeeze=False)[0]
        for axes, comparison in zip(columns, group, strict=True):
            _draw_comparison(axes, comparison, len(group), is_first=axes is columns[0])
    if steps_ms:
        _draw_steps(figure.add_subplot(grid[-1]), steps_ms)
    return figure


def _group(comparisons: Sequence[Comparison]) -> list[list[Comparison]]:
    """Group neighbors that have the same variants."""
    groups: list[list[Comparison]] = []
    for one in comparisons:
        last = groups[-1] if groups else []
        if last and len(last) < MAX_COLUMNS and [*last[0].times_ms] == [*one.times_ms]:
            last.append(one)
        else:
            groups.append([one])
    return groups


def _draw_comparison(axes: Axes, comparison: Comparison, columns: int, is_first: bool) -> None:
    names = list(comparison.times_ms)
    values = [comparison.times_faster[name] for name in names]
    colors = [BASELINE if name == comparison.baseline else ACCENT for name in names]
    bars = axes.barh(range(len(names)), values, color=colors, height=0.68)
    texts = [
        f'{_significant(comparison.times_faster[name])}\N{MULTIPLICATION SIGN}'
        f'  {_significant(ms)} ms'
        for name, ms in comparison.times_ms.items()
    ]
    axes.bar_label(bars, texts, padding=3, fontsize=6.5)
    axes.set_title(textwrap.fill(comparison.title, TITLE_WIDTH // columns), fontsize=8)
    axes.set_xlim(0, max(values) * (1 + 0.25 * columns))  # room for the text after a bar
    axes.set_xticks([])
    axes.set_yticks(range(len(names)), _wrap(names), fontsize=SMALL_PT)
    hide_axes(axes)
    axes.tick_params(labelleft=is_first)
    axes.set_ylim(len(names) - 0.5, -0.5)


def _significant(value: float) -> str:
    """Format a number with about three digits."""
    return f'{value:.{2 if value < 10 else 1 if value < 100 else 0}f}'


def _wrap(names: Sequence[str]) -> list[str]:
    return [textwrap.fill(name, NAME_WIDTH, max_lines=2, placeholder=' ...') for name in names]


def _draw_steps(axes: Axes, steps_ms: Steps) -> None:
    """Draw one stacked bar per case."""
    names = list(steps_ms)
    left = [0.0] * len(names)
    colors = (BASELINE, *SERIES)
    for color, step in zip(colors, steps_ms[names[0]], strict=False):
        values = [steps_ms[name][step] for name in names]
        axes.barh(range(len(names)), values, left=left, color=color, label=step, height=0.68)
        left = [a + b for a, b in zip(left, values, strict=True)]
    axes.set_yticks(range(len(names)), _wrap(names), fontsize=SMALL_PT)
    axes.tick_params(axis='y', length=0)
    axes.invert_yaxis()
    axes.set_title('steps of the pipeline, ms', fontsize=8)
    axes.legend(ncols=4, loc='lower right', bbox_to_anchor=(1, 1), borderaxespad=0)
