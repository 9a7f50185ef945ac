# SPDX-License-Identifier: Apache-2.0
"""`make bench`: compare each part with a plain implementation of the same task.

    python3 benchmarks/bench.py [--out FOLDER] [--rounds N] [--only network --only node ...]

Prints tables and writes bench.json and bench.png. Compare ratios: absolute times depend on the
machine and its load.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import click
from node_bench import NodeResult, measure_nodes
from parts import (
    compare_crops,
    compare_detectors,
    compare_growth,
    compare_networks,
    compare_pipelines,
)
from rich.console import Console
from rich.table import Table

from dan_ros.backends.base import node_threads
from dan_ros.bench.machine import describe_machine
from dan_ros.bench.plot import draw_bench
from dan_ros.bench.report import comparison_table
from dan_ros.bench.timer import Comparison
from dan_ros.errors import count_of
from dan_ros.plots.style import encode

GROWTH, NODE = 'growth', 'node'
COMPARISONS: dict[str, Callable[[int], list[Comparison]]] = {
    'network': compare_networks,
    'detector': compare_detectors,
    'crop': compare_crops,
    'pipeline': compare_pipelines,
}
PARTS = (*COMPARISONS, GROWTH, NODE)


@dataclass
class Results:
    """Results of a run; parts that did not run are empty.

    Attributes:
        rounds: number of rounds of each comparison.
        seconds: duration of each node measurement.
        machine: description of the machine before the run.
        comparisons: comparisons of the variants of one task.
        growth: times of the pipeline for more faces, pixels and cameras.
        nodes: results over DDS.
    """

    rounds: int
    seconds: float
    machine: dict[str, str] = field(default_factory=describe_machine)
    comparisons: list[Comparison] = field(default_factory=list)
    growth: list[Comparison] = field(default_factory=list)
    nodes: list[NodeResult] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return the content of bench.json."""
        comparisons = [comparison.to_json() for comparison in self.comparisons]
        return {**asdict(self), 'node_threads': node_threads(), 'comparisons': comparisons}


@click.command()
@click.option('--out', default='bench', type=click.Path(path_type=Path), help='Output folder.')
@click.option('--rounds', default=10, show_default=True, type=click.IntRange(1))
@click.option('--only', multiple=True, type=click.Choice(PARTS), help='May be repeated.')
@click.option(
    '--seconds', default=6.0, show_default=True, help='Duration of each measurement of a node.'
)
def main(out: Path, rounds: int, only: tuple[str, ...], seconds: float) -> None:
    """Measure all parts, or only those given."""
    results = Results(rounds, seconds)
    try:
        measure(results, only or PARTS)
    finally:  # also after Ctrl-C
        show(results)
    out.mkdir(parents=True, exist_ok=True)
    content = json.dumps(results.to_json(), indent=2) + '\n'
    (out / 'bench.json').write_text(content, encoding='utf-8')
    if results.comparisons:
        title = f'{results.machine["cpu"]}, {count_of(int(results.machine["cores"]), "core")}'
        figure = draw_bench(results.comparisons, {}, title)
        (out / 'bench.png').write_bytes(encode(figure))


def measure(results: Results, parts: tuple[str, ...]) -> None:
    """Run the given parts."""
    on_progress = Console(stderr=True).print
    for name, compare_all in COMPARISONS.items():
        if name in parts:
            on_progress(name)
            results.comparisons += compare_all(results.rounds)
    if GROWTH in parts:
        on_progress(GROWTH)
        results.growth = compare_growth(results.rounds)
    if NODE in parts:
        results.nodes = measure_nodes(results.seconds, on_progress)


def show(results: Results) -> None:
    """Print the machine and all tables."""
    console = Console()
    console.print(', '.join(f'{key} {value}' for key, value in results.machine.items()))
    for comparison in [*results.comparisons, *results.growth]:
        console.print(comparison_table(comparison))
    if results.nodes:
        columns = [column.name.replace('_', ' ') for column in fields(NodeResult)]
        table = Table(*columns, title='node over DDS, in its own process', box=None)
        for node in results.nodes:
            table.add_row(*map(_cell, asdict(node).values()))
        console.print(table)


def _cell(value: str | float | None) -> str:
    return f'{value:.1f}' if isinstance(value, float) else value or ''


if __name__ == '__main__':
    main()
