"""What was measured, as tables."""

from collections.abc import Mapping

from rich.markup import escape
from rich.table import Table

from dan_ros.bench.timer import Comparison


def comparison_table(comparison: Comparison) -> Table:
    """Milliseconds of each way, and how many times faster than the baseline it is."""
    table = Table(title=escape(comparison.title), title_justify='left', box=None)
    table.add_column('way')
    for name in ('median ms', 'times faster'):
        table.add_column(name, justify='right')
    for name, ms in comparison.times_ms.items():
        row = (escape(name), f'{ms:.2f}', f'{comparison.times_faster[name]:.2f}')
        table.add_row(*row, style='bold' if name == comparison.baseline else '')
    return table


def steps_table(steps_ms: Mapping[str, Mapping[str, float]], title: str) -> Table:
    """Milliseconds of each step of the pipeline, a row for what it looks at."""
    table = Table(title=escape(title), title_justify='left', box=None)
    table.add_column('pipeline')
    for step in next(iter(steps_ms.values())):
        table.add_column(step, justify='right')
    for name, times_ms in steps_ms.items():
        table.add_row(escape(name), *(f'{ms:.2f}' for ms in times_ms.values()))
    return table
