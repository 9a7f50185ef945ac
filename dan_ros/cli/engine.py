# SPDX-License-Identifier: Apache-2.0
"""`dan-ros engine`: builds TensorRT engines in advance."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from dan_ros.backends import PRECISIONS, model_for
from dan_ros.backends.base import OnProgress
from dan_ros.backends.tensorrt.backend import MAX_BATCH, prepare_engine
from dan_ros.backends.tensorrt.engine_builder import FLAVORS, import_tensorrt, runtime_of
from dan_ros.backends.tensorrt.engine_cache import EngineCache, Entry
from dan_ros.cli.common import print_table
from dan_ros.errors import count_of
from dan_ros.model import store
from dan_ros.storage.cache import cache_path, has_cache_folder


@click.group('engine')
def command() -> None:
    """Build, list and delete the engines of the backend tensorrt.

    They are kept in a folder of your cache that no other user can read or write.
    """


@command.command('build')
@click.argument('model', default=store.DEFAULT_MODEL)
@click.option(
    '--precision',
    default='auto',
    show_default=True,
    type=click.Choice(PRECISIONS),
    help='auto: fp16, or int8 for an int8 model.',
)
@click.option(
    '--max-batch',
    default=MAX_BATCH,
    show_default=True,
    type=click.IntRange(1, 1024),
    help='Largest number of faces per run. The node uses only engines with the default.',
)
@click.option(
    '--runtime',
    default='auto',
    show_default=True,
    type=click.Choice(['auto', *FLAVORS]),
    help='TensorRT, or TensorRT for RTX, which builds without a GPU.',
)
def build(model: str, precision: str, max_batch: int, runtime: str) -> None:
    """Build the engine of MODEL unless it is cached.

    MODEL is a known model (see `dan-ros models`) or an ONNX file. The node finds the engine when it
    starts.
    """
    trt = import_tensorrt(runtime)
    file = store.read_model(model_for('tensorrt', model, precision))
    cache = EngineCache()
    with _spinner() as on_progress:
        plan = prepare_engine(trt, cache, file, precision, max_batch, on_progress=on_progress)
    click.echo(
        f'{runtime_of(trt)}: engine of {file.name}, {len(plan) / 1e6:.1f} MB in {cache.folder}'
    )


@command.command('list')
@click.option('--json', 'as_json', is_flag=True, help='Print the engines as one JSON object.')
def list_(as_json: bool) -> None:
    """List the engines and what each was built for."""
    folder, entries = cache_path('engines'), _entries()
    if as_json:
        click.echo(json.dumps({'folder': str(folder), 'engines': [*map(_to_json, entries)]}))
        return
    if not entries:
        click.echo(f'no engines in {folder}')
        return
    table = Table(box=None)
    for title in ('model', 'precision', 'faces', 'runtime', 'GPU', 'MB'):
        table.add_column(title, overflow='fold')
    for entry in entries:
        table.add_row(escape(entry.model), *_built_for(entry), f'{entry.size / 1e6:.1f}')
    print_table(table)
    click.echo(f'in {folder}')


@command.command('clean')
@click.option('--all', 'everything', is_flag=True, help='Delete the usable engines as well.')
def clean(everything: bool) -> None:
    """Delete engines that are damaged or could not be loaded."""
    chosen = [entry for entry in _entries() if everything or entry.key is None]
    for entry in chosen:
        EngineCache().remove(entry)
    size = sum(entry.size for entry in chosen) / 1e6
    click.echo(f'{count_of(len(chosen), "engine")} deleted, {size:.1f} MB')


def _entries() -> list[Entry]:
    """Return the engines in the cache, without creating its folder."""
    return EngineCache().entries() if has_cache_folder('engines') else []


def _built_for(entry: Entry) -> tuple[str, str, str, str]:
    """Return the table columns that describe what an engine was built for."""
    key = entry.key
    if key is None:
        return 'unusable', '', '', ''
    return key.precision, str(key.max_batch), key.runtime, f'{key.gpu} (SM {key.sm})'


def _to_json(entry: Entry) -> dict[str, object]:
    return {
        'file': entry.path.name,
        'model': entry.model,
        'bytes': entry.size,
        'built_for': asdict(entry.key) if entry.key else None,
    }


@contextmanager
def _spinner() -> Iterator[OnProgress]:
    """Print each step on standard error; on a terminal also show a spinner and the time so far."""
    columns = SpinnerColumn(), TextColumn('building'), TimeElapsedColumn()
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        progress.add_task('engine', total=None)
        yield partial(console.print, markup=False, highlight=False, soft_wrap=True)
