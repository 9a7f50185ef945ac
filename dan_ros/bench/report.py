# SPDX-License-Identifier: Apache-2.0
"""Tables of measured times."""

from collections.abc import Mapping

from rich.markup import escape
from rich.table import Table

from dan_ros.bench.timer import Comparison

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
