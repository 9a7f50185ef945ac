"""`make bench`: every part against what people would write themselves, in one run, in turns.

    python3 benchmarks/bench.py [--out FOLDER] [--rounds N] [--only network --only node ...]

Writes bench.json and bench.png and prints the tables. Figures are ratios of medians: milliseconds
are those of this machine on this day.
"""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import click
from matplotlib.figure import Figure
from measuring import Comparison, machine
from node_bench import NodeResult, measure_nodes
from parts import (
    compare_crops,
    compare_detectors,
    compare_networks,
    compare_pipelines,
    split_pipelines,
)
from rich.console import Console
from rich.table import Table

PARTS: dict[str, Callable[[int], list[Comparison]]] = {
    'network': compare_networks,
    'detector': compare_detectors,
    'crop': compare_crops,
    'pipeline': compare_pipelines,
}
NODE = 'node'


@click.command()
@click.option('--out', default='bench', type=click.Path(path_type=Path), help='Folder to write.')
@click.option('--rounds', default=30, show_default=True, type=click.IntRange(1))
@click.option('--only', multiple=True, type=click.Choice([*PARTS, NODE]), help='May be repeated.')
@click.option('--seconds', default=8.0, show_default=True, help='Of each measurement of a node.')
def main(out: Path, rounds: int, only: tuple[str, ...], seconds: float) -> None:
    """Measure everything, or the parts named."""
    console = Console(stderr=True)
    comparisons: list[Comparison] = []
    for name, measure in PARTS.items():
        if not only or name in only:
            console.print(f'{name} ...')
            comparisons += measure(rounds)
    splits = split_pipelines(rounds) if not only or 'pipeline' in only else {}
    nodes: list[NodeResult] = []
    if not only or NODE in only:
        nodes = measure_nodes(seconds, console.print)
    out.mkdir(parents=True, exist_ok=True)
    content = {
        'machine': machine(),
        'comparisons': [{**asdict(c), 'times_faster': c.times_faster} for c in comparisons],
        'pipeline_steps_ms': splits,
        'nodes': [asdict(node) for node in nodes],
    }
    (out / 'bench.json').write_text(json.dumps(content, indent=2) + '\n', encoding='utf-8')
    show(comparisons, splits, nodes)
    if comparisons:
        draw(comparisons).savefig(out / 'bench.png')
    if splits:
        draw_steps(splits).savefig(out / 'steps.png', dpi=130)


def show(
    comparisons: list[Comparison], splits: dict[str, dict[str, float]], nodes: list[NodeResult]
) -> None:
    """Print the tables."""
    console = Console()
    console.print(', '.join(f'{key} {value}' for key, value in machine().items()))
    for comparison in comparisons:
        table = Table('way', 'median ms', 'times faster', title=comparison.title, box=None)
        for name, ms in comparison.times_ms.items():
            table.add_row(name, f'{ms:.2f}', f'{comparison.times_faster[name]:.1f}')
        console.print(table)
    if splits:
        steps = next(iter(splits.values()))
        table = Table('pipeline', *steps, title='steps of the pipeline, median ms', box=None)
        for name, times_ms in splits.items():
            table.add_row(name, *(f'{ms:.2f}' for ms in times_ms.values()))
        console.print(table)
    if nodes:
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
        console.print(table)


def draw(comparisons: list[Comparison]) -> Figure:
    """How many times faster than its baseline each way is."""
    figure = Figure(figsize=(9, 0.9 + 0.28 * sum(len(c.times_ms) + 1.5 for c in comparisons)))
    figure.set_layout_engine('constrained')
    heights = [len(c.times_ms) for c in comparisons]
    axes = figure.subplots(len(comparisons), 1, height_ratios=heights, squeeze=False)[:, 0]
    for panel, comparison in zip(axes, comparisons, strict=True):
        names = list(comparison.times_ms)
        values = [comparison.times_faster[name] for name in names]
        colours = ['#9aa0a6' if name == comparison.baseline else '#2a6fbb' for name in names]
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


def draw_steps(splits: dict[str, dict[str, float]]) -> Figure:
    """What the time of the pipeline goes into."""
    figure = Figure(figsize=(9, 0.8 + 0.45 * len(splits)), layout='constrained')
    axes = figure.subplots()
    names = list(splits)
    left = [0.0] * len(names)
    colours = ('#9aa0a6', '#2a6fbb', '#e0a030', '#c0504d')
    for colour, step in zip(colours, splits[names[0]], strict=True):
        values = [splits[name][step] for name in names]
        axes.barh(names, values, left=left, color=colour, label=step, height=0.6)
        left = [a + b for a, b in zip(left, values, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel('ms')
    axes.spines[['top', 'right']].set_visible(False)
    axes.legend(frameon=False, ncols=len(colours), loc='lower right', bbox_to_anchor=(1, 1))
    return figure


if __name__ == '__main__':
    main()
