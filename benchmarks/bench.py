"""`make bench`: every part against what people would write themselves, in one run, in turns.

    python3 benchmarks/bench.py [--out FOLDER] [--rounds N] [--only network --only node ...]

Writes bench.json and pictures, and prints the tables. Figures are ratios of medians: milliseconds
are those of this machine on this day. docs/performance.md takes its numbers from a run of all:

    cp bench/bench.json bench/*.png docs/ && make docs
"""

import json
from collections.abc import Callable
from pathlib import Path

import click
from node_bench import measure_nodes
from parts import (
    compare_crops,
    compare_detectors,
    compare_networks,
    compare_pipelines,
    measure_growth,
    split_pipelines,
)
from report import Results
from rich.console import Console

from dan_ros.bench.timer import Comparison

PIPELINE, NODE = 'pipeline', 'node'
COMPARISONS: dict[str, Callable[[int], list[Comparison]]] = {
    'network': compare_networks,
    'detector': compare_detectors,
    'crop': compare_crops,
    PIPELINE: compare_pipelines,
}


@click.command()
@click.option('--out', default='bench', type=click.Path(path_type=Path), help='Folder to write.')
@click.option('--rounds', default=10, show_default=True, type=click.IntRange(1))
@click.option(
    '--only', multiple=True, type=click.Choice([*COMPARISONS, NODE]), help='May be repeated.'
)
@click.option(
    '--seconds',
    default=6.0,
    show_default=True,
    help='Of each measurement of a node, all its turns together.',
)
def main(out: Path, rounds: int, only: tuple[str, ...], seconds: float) -> None:
    """Measure everything, or the parts named."""
    results = measure(rounds, only or (*COMPARISONS, NODE), seconds)
    out.mkdir(parents=True, exist_ok=True)
    content = json.dumps(results.to_json(), indent=2) + '\n'
    (out / 'bench.json').write_text(content, encoding='utf-8')
    for name, figure in results.pictures():
        figure.savefig(out / name)
    console = Console()
    console.print(', '.join(f'{key} {value}' for key, value in results.machine.items()))
    for table in results.tables():
        console.print(table)


def measure(rounds: int, wanted: tuple[str, ...], seconds: float) -> Results:
    """Run the parts that are wanted."""
    say = Console(stderr=True).print
    results = Results(rounds=rounds, seconds=seconds)
    for name, compare_all in COMPARISONS.items():
        if name in wanted:
            say(f'{name} ...')
            results.comparisons += compare_all(rounds)
    if PIPELINE in wanted:
        say('steps and growth of the pipeline ...')
        results.steps_ms, results.growths = split_pipelines(rounds), measure_growth(rounds)
    if NODE in wanted:
        results.nodes = measure_nodes(seconds, say)
    return results


if __name__ == '__main__':
    main()
