"""What was measured, as tables and pictures."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from measuring import Comparison, machine
from node_bench import NodeResult
from parts import Growth
from rich.table import Table

GREY, BLUE, YELLOW, RED = '#9aa0a6', '#2a6fbb', '#e0a030', '#c0504d'


@dataclass
class Results:
    """Everything that a run of the benchmark gives; parts that were not run are empty.

    Attributes:
        comparisons: of ways to do the same.
        steps_ms: median of each step of the pipeline, by what it looks at.
        growths: of the pipeline's time.
        nodes: over DDS.
    """

    comparisons: list[Comparison] = field(default_factory=list)
    steps_ms: dict[str, dict[str, float]] = field(default_factory=dict)
    growths: list[Growth] = field(default_factory=list)
    nodes: list[NodeResult] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """As it is written to bench.json."""
        return {
            'machine': machine(),
            'comparisons': [
                {**asdict(c), 'times_faster': c.times_faster} for c in self.comparisons
            ],
            'pipeline_steps_ms': self.steps_ms,
            'pipeline_growth': [asdict(growth) for growth in self.growths],
            'nodes': [asdict(node) for node in self.nodes],
        }

    def tables(self) -> Iterator[Table]:
        """One a comparison, and so on."""
        for comparison in self.comparisons:
            table = Table('way', 'median ms', 'times faster', title=comparison.title, box=None)
            for name, ms in comparison.times_ms.items():
                table.add_row(name, f'{ms:.2f}', f'{comparison.times_faster[name]:.1f}')
            yield table
        if self.steps_ms:
            yield _table_of_steps(self.steps_ms)
        for growth in self.growths:
            table = Table(
                '', 'median ms', 'floor ms', title=f'pipeline by {growth.title}', box=None
            )
            for name, ms in growth.times_ms.items():
                table.add_row(name, f'{ms:.2f}', f'{growth.floors_ms[name]:.2f}')
            yield table
        if self.nodes:
            yield _table_of_nodes(self.nodes)

    def pictures(self) -> Iterator[tuple[str, Figure]]:
        """Figures, each with the name of its file."""
        if self.comparisons:
            yield 'bench.png', draw_comparisons(self.comparisons)
        if self.steps_ms:
            yield 'pipeline.png', draw_pipeline(self.steps_ms, self.growths)


def _table_of_steps(steps_ms: dict[str, dict[str, float]]) -> Table:
    steps = next(iter(steps_ms.values()))
    table = Table('pipeline', *steps, title='steps of the pipeline, median ms', box=None)
    for name, times_ms in steps_ms.items():
        table.add_row(name, *(f'{ms:.2f}' for ms in times_ms.values()))
    return table


def _table_of_nodes(nodes: list[NodeResult]) -> Table:
    table = Table(
        *('node', 'images', 'sent/s', 'done/s', 'age ms', '99 %', 'late/early'),
        *('pipeline ms', 'own ms', 'CPU ms', 'MiB', 'start s'),
        title='node over DDS, in its own process',
        box=None,
    )
    for n in nodes:
        table.add_row(
            n.node,
            n.images,
            f'{n.sent_hz:.0f}',
            f'{n.done_hz:.1f}',
            f'{n.age_ms:.1f}',
            f'{n.age_99_ms:.1f}',
            f'{n.growth:.1f}',
            f'{n.pipeline_ms:.1f}',
            f'{n.own_ms:.1f}',
            f'{n.cpu_ms:.1f}',
            f'{n.memory_mib:.0f}',
            f'{n.start_s:.1f}',
        )
    return table


def draw_comparisons(comparisons: list[Comparison]) -> Figure:
    """How many times faster than its baseline each way is."""
    figure = Figure(figsize=(9, 0.9 + 0.28 * sum(len(c.times_ms) + 1.5 for c in comparisons)))
    figure.set_layout_engine('constrained')
    heights = [len(c.times_ms) for c in comparisons]
    axes = figure.subplots(len(comparisons), 1, height_ratios=heights, squeeze=False)[:, 0]
    for panel, comparison in zip(axes, comparisons, strict=True):
        names = list(comparison.times_ms)
        values = [comparison.times_faster[name] for name in names]
        colours = [GREY if name == comparison.baseline else BLUE for name in names]
        bars = panel.barh(names, values, color=colours, height=0.7)
        labels = [
            f'{value:.1f}x  ({comparison.times_ms[name]:.1f} ms)'
            for name, value in zip(names, values, strict=True)
        ]
        panel.bar_label(bars, labels, padding=4, fontsize=8)
        panel.invert_yaxis()
        panel.set_title(comparison.title, loc='left', fontsize=9)
        panel.set_xlim(0, max(values) * 1.25)
        panel.spines[['top', 'right', 'bottom']].set_visible(False)
        panel.set_xticks([])
        panel.tick_params(labelsize=8)
    return figure


def draw_pipeline(steps_ms: dict[str, dict[str, float]], growths: list[Growth]) -> Figure:
    """What the pipeline's time goes into, and how it grows; milliseconds."""
    figure = Figure(figsize=(9, 5), layout='constrained')
    above, below = figure.subfigures(2, 1, height_ratios=[1, 1.2])
    _draw_steps(above.subplots(), steps_ms)
    for axes, growth in zip(
        below.subplots(1, len(growths), squeeze=False)[0], growths, strict=True
    ):
        _draw_growth(axes, growth)
    return figure


def _draw_steps(axes: Axes, steps_ms: dict[str, dict[str, float]]) -> None:
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


def _draw_growth(axes: Axes, growth: Growth) -> None:
    names = list(growth.times_ms)
    bars = axes.bar(names, list(growth.times_ms.values()), color=BLUE, width=0.6)
    axes.bar_label(bars, fmt='%.1f', fontsize=8)
    axes.scatter(
        names,
        [growth.floors_ms[name] for name in names],
        marker='_',
        s=500,
        color=RED,
        label='floor by arithmetic',
        zorder=2,
    )
    axes.set_title(growth.title, loc='left', fontsize=9)
    axes.tick_params(labelsize=8)
    axes.spines[['top', 'right']].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc='upper left', markerscale=0.4)
