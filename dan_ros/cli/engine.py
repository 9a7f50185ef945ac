"""`dan-ros engine`: TensorRT engines, built before the robot needs them."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict

import click
from rich.console import Console
from rich.table import Table

from dan_ros.backends import PRECISIONS, model_for
from dan_ros.backends.tensorrt.backend import MAX_BATCH, Say, prepare_engine
from dan_ros.backends.tensorrt.engine_builder import FLAVOURS, import_tensorrt, runtime_of
from dan_ros.backends.tensorrt.engine_cache import EngineCache, Entry
from dan_ros.model import store
from dan_ros.storage.cache import cache_path, has_cache_folder


@click.group('engine')
def command() -> None:
    """Build, list and clean the engines that the backend tensorrt runs.

    They lie in a folder of the user's cache that nobody else can read or write.
    """


@command.command('build')
@click.argument('model', default=store.DEFAULT_MODEL)
@click.option('--precision', default='auto', show_default=True, type=click.Choice(PRECISIONS))
@click.option(
    '--max-batch',
    default=MAX_BATCH,
    show_default=True,
    type=click.IntRange(1, 1024),
    help='Most faces at once; the node uses engines of the default alone.',
)
@click.option(
    '--runtime',
    default='auto',
    show_default=True,
    type=click.Choice(['auto', *FLAVOURS]),
    help='TensorRT, or TensorRT for RTX, which also builds without a GPU.',
)
def build(model: str, precision: str, max_batch: int, runtime: str) -> None:
    """Build the engine of MODEL, a known name or an ONNX file, unless it is there.

    Float models give fp16, or fp32 if asked; int8 ones int8. The node finds it when it starts.
    """
    trt = import_tensorrt(runtime)
    file = store.read_model(model_for('tensorrt', model, precision))
    cache = EngineCache()
    with _shown() as say:
        plan = prepare_engine(trt, cache, file, precision, max_batch, say=say)
    click.echo(
        f'{runtime_of(trt)}: engine of {file.name}, {len(plan) / 1e6:.1f} MB in {cache.folder}'
    )


@command.command('list')
@click.option('--json', 'as_json', is_flag=True, help='The engines as one JSON object.')
def list_(as_json: bool) -> None:
    """List the engines, and what each was built for."""
    folder, entries = cache_path('engines'), _entries()
    if as_json:
        click.echo(json.dumps({'folder': str(folder), 'engines': [*map(_as_dict, entries)]}))
        return
    if not entries:
        click.echo(f'no engines in {folder}')
        return
    table = Table(box=None)
    for title in ('model', 'precision', 'faces', 'runtime', 'GPU', 'MB'):
        table.add_column(title, overflow='fold')
    for entry in entries:
        key = entry.key
        made_for = (
            (key.precision, str(key.max_batch), key.runtime, f'{key.gpu} (SM {key.sm})')
            if key
            else ('unusable', '', '', '')
        )
        table.add_row(entry.model, *made_for, f'{entry.size / 1e6:.1f}')
    Console().print(table)
    click.echo(f'in {folder}')


@command.command('clean')
@click.option('--all', 'everything', is_flag=True, help='Every engine, not only unusable ones.')
def clean(everything: bool) -> None:
    """Delete engines that were damaged or could not be loaded; with --all every engine."""
    chosen = [entry for entry in _entries() if everything or entry.key is None]
    for entry in chosen:
        EngineCache().remove(entry)
    size = sum(entry.size for entry in chosen) / 1e6
    click.echo(f'{len(chosen)} engines deleted, {size:.1f} MB')


def _entries() -> list[Entry]:
    """The engines there are; looking makes no folder."""
    return EngineCache().entries() if has_cache_folder('engines') else []


def _as_dict(entry: Entry) -> dict[str, object]:
    return {
        'file': entry.path.name,
        'model': entry.model,
        'bytes': entry.size,
        'built_for': asdict(entry.key) if entry.key else None,
    }


@contextmanager
def _shown() -> Iterator[Say]:
    """Show what is said beside a spinner, and keep it on the screen."""
    console = Console(stderr=True)
    with console.status('engine') as status:

        def say(text: str) -> None:
            status.update(text)
            console.print(text)

        yield say
