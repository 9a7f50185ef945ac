"""What was measured, as tables and pictures."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from node_bench import NodeResult
from parts import Growth
from rich.table import Table

from dan_ros.backends.base import node_threads
from dan_ros.bench.machine import describe_machine
from dan_ros.bench.plots import BLUE, RED, draw_comparisons, draw_steps
from dan_ros.bench.tables import comparison_table, steps_table
from dan_ros.bench.timer import Comparison


@dataclass
class Results:
    """Everything that a run of the benchmark gives; parts that were not run are empty.

    Attributes:
        comparisons: of ways to do the same.
        steps_ms: median of each step of the pipeline, by what it looks at.
        growths: of the pipeline's time.
        nodes: over DDS.
        machine: what it was measured on, before it began.
        rounds: turns of each way of a comparison, at most.
        seconds: of each node.
    """

    comparisons: list[Comparison] = field(default_factory=list)
    steps_ms: dict[str, dict[str, float]] = field(default_factory=dict)
    growths: list[Growth] = field(default_factory=list)
    nodes: list[NodeResult] = field(default_factory=list)
    machine: dict[str, str] = field(default_factory=describe_machine)
    rounds: int = 0
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """As it is written to bench.json."""
        return {
            'machine': self.machine,
            'node_threads': node_threads(),
            'rounds': self.rounds,
            'seconds': self.seconds,
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
            yield comparison_table(comparison)
        if self.steps_ms:
            yield steps_table(self.steps_ms, 'steps of the pipeline, median ms')
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


def _table_of_nodes(nodes: list[NodeResult]) -> Table:
    table = Table(
        *('node', 'images', 'sent/s', 'done/s', 'age ms', '99 %', 'late/early', 'times fresher'),
        *('pipeline ms', 'own ms', 'with reduce', 'CPU ms', 'times less', 'MiB', 'start s'),
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
            '' if n.times_fresher is None else f'{n.times_fresher:.1f}',
            f'{n.pipeline_ms:.1f}',
            f'{n.own_ms:.1f}',
            f'{n.own_with_reduce_ms:.1f}',
            f'{n.cpu_ms:.1f}',
            '' if n.times_less_cpu is None else f'{n.times_less_cpu:.1f}',
            f'{n.memory_mib:.0f}',
            f'{n.start_s:.1f}',
        )
    return table


def draw_pipeline(steps_ms: dict[str, dict[str, float]], growths: list[Growth]) -> Figure:
    """What the pipeline's time goes into, and how it grows; milliseconds."""
    figure = Figure(figsize=(9, 5), layout='constrained')
    above, below = figure.subfigures(2, 1, height_ratios=[1, 1.2])
    draw_steps(above.subplots(), steps_ms)
    for axes, growth in zip(
        below.subplots(1, len(growths), squeeze=False)[0], growths, strict=True
    ):
        _draw_growth(axes, growth)
    return figure


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
