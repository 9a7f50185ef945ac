# SPDX-License-Identifier: Apache-2.0
"""Tables and plots of measured times. Only the plots need matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from dan_ros.bench.timer import Comparison

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GRAY, BLUE, YELLOW, RED = '#9aa0a6', '#2a6fbb', '#e0a030', '#c0504d'
DPI = 130
ROW_INCHES = 0.28  # height of a bar

Steps = Mapping[str, Mapping[str, float]]  # case -> step of the pipeline -> milliseconds


def comparison_table(comparison: Comparison) -> Table:
    """Show the median time of each variant and its speed relative to the baseline."""
    table = _new_table(comparison.title, 'variant', 'median ms', 'times faster')
    for name, ms in comparison.times_ms.items():
        row = (escape(name), f'{ms:.2f}', f'{comparison.times_faster[name]:.2f}')
        table.add_row(*row, style='bold' if name == comparison.baseline else '')
    return table


def steps_table(steps_ms: Steps, title: str) -> Table:
    """Show the time of each step of the pipeline, one row per case."""
    table = _new_table(title, 'pipeline', *next(iter(steps_ms.values())))
    for name, times_ms in steps_ms.items():
        table.add_row(escape(name), *(f'{ms:.2f}' for ms in times_ms.values()))
    return table


def _new_table(title: str, first_column: str, *number_columns: str) -> Table:
    table = Table(first_column, title=escape(title), title_justify='left', box=None)
    for name in number_columns:
        table.add_column(name, justify='right')
    return table


def draw_report(comparisons: Sequence[Comparison], steps_ms: Steps, title: str) -> Figure:
    """Plot all comparisons, and below them the steps of the pipeline if there are any."""
    from matplotlib.figure import Figure

    heights = [len(comparison.times_ms) + 1.5 for comparison in comparisons]
    heights += [len(steps_ms) + 2.0] * bool(steps_ms)
    figure = Figure(figsize=(9, 1 + ROW_INCHES * sum(heights)), dpi=DPI, layout='constrained')
    figure.suptitle(title, fontsize=10, parse_math=False)
    panels = figure.subplots(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    for axes, comparison in zip(panels, comparisons, strict=False):
        _draw_comparison(axes, comparison)
    if steps_ms:
        _draw_steps(panels[-1], steps_ms)
    return figure


def _draw_comparison(axes: Axes, comparison: Comparison) -> None:
    names = list(comparison.times_ms)
    values = [comparison.times_faster[name] for name in names]
    colors = [GRAY if name == comparison.baseline else BLUE for name in names]
    bars = axes.barh(names, values, color=colors, height=0.7)
    labels = [
        f'{value:.{1 if value >= 10 else 2}f}x  ({comparison.times_ms[name]:.1f} ms)'
        for name, value in zip(names, values, strict=True)
    ]
    axes.bar_label(bars, labels, padding=4, fontsize=8)
    axes.invert_yaxis()
    axes.set_title(comparison.title, loc='left', fontsize=9)
    axes.set_xlim(0, max(values) * 1.25)
    axes.spines[['top', 'right', 'bottom']].set_visible(False)
    axes.set_xticks([])
    axes.tick_params(labelsize=8)


def _draw_steps(axes: Axes, steps_ms: Steps) -> None:
    """Draw one stacked bar per case."""
    names = list(steps_ms)
    left = [0.0] * len(names)
    for color, step in zip((GRAY, BLUE, YELLOW, RED), steps_ms[names[0]], strict=True):
        values = [steps_ms[name][step] for name in names]
        axes.barh(names, values, left=left, color=color, label=step, height=0.6)
        left = [a + b for a, b in zip(left, values, strict=True)]
    axes.invert_yaxis()
    axes.set_title('steps of the pipeline, ms', loc='left', fontsize=9)
    axes.tick_params(labelsize=8)
    axes.spines[['top', 'right']].set_visible(False)
    axes.legend(frameon=False, ncols=4, fontsize=8, loc='lower right', bbox_to_anchor=(1, 1))
