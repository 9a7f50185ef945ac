"""What was measured, as pictures, drawn with matplotlib, without a window."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase

from dan_ros.bench.timer import Comparison

GREY, BLUE, YELLOW, RED = '#9aa0a6', '#2a6fbb', '#e0a030', '#c0504d'
DPI = 130

Steps = Mapping[str, Mapping[str, float]]


def draw_comparisons(comparisons: Sequence[Comparison]) -> Figure:
    """How many times faster than its baseline each way is."""
    rows = sum(len(c.times_ms) + 1.5 for c in comparisons)
    figure = Figure(figsize=(9, 0.9 + 0.28 * rows), layout='constrained')
    _draw_panels(figure, comparisons)
    return figure


def draw_machine(comparisons: Sequence[Comparison], steps_ms: Steps, title: str) -> Figure:
    """The same with the steps of the pipeline below."""
    rows = sum(len(c.times_ms) + 1.5 for c in comparisons), len(steps_ms) + 3.0
    figure = Figure(figsize=(9, 1.2 + 0.28 * sum(rows)), dpi=DPI, layout='constrained')
    figure.suptitle(title, fontsize=10, parse_math=False)
    above, below = figure.subfigures(2, 1, height_ratios=rows, squeeze=False)[:, 0]
    _draw_panels(above, comparisons)
    draw_steps(below.subplots(), steps_ms)
    return figure


def _draw_panels(figure: FigureBase, comparisons: Sequence[Comparison]) -> None:
    heights = [len(c.times_ms) for c in comparisons]
    axes = figure.subplots(len(comparisons), 1, height_ratios=heights, squeeze=False)[:, 0]
    for panel, comparison in zip(axes, comparisons, strict=True):
        _draw_comparison(panel, comparison)


def _draw_comparison(axes: Axes, comparison: Comparison) -> None:
    names = list(comparison.times_ms)
    values = [comparison.times_faster[name] for name in names]
    colours = [GREY if name == comparison.baseline else BLUE for name in names]
    bars = axes.barh(names, values, color=colours, height=0.7)
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


def draw_steps(axes: Axes, steps_ms: Steps) -> None:
    """A bar for what the pipeline looks at, in parts for its steps; milliseconds."""
    names = list(steps_ms)
    left = [0.0] * len(names)
    for colour, step in zip((GREY, BLUE, YELLOW, RED), steps_ms[names[0]], strict=True):
        values = [steps_ms[name][step] for name in names]
        axes.barh(names, values, left=left, color=colour, label=step, height=0.6)
        left = [a + b for a, b in zip(left, values, strict=True)]
    axes.invert_yaxis()
    axes.set_title('steps of the pipeline, ms', loc='left', fontsize=9)
    axes.tick_params(labelsize=8)
    axes.spines[['top', 'right']].set_visible(False)
    axes.legend(frameon=False, ncols=4, fontsize=8, loc='lower right', bbox_to_anchor=(1, 1))
