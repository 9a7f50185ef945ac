# SPDX-License-Identifier: Apache-2.0
"""The part of `dan-ros bag` that converts many bags into one result folder."""

import math
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dan_ros.backends.base import available_cpus
from dan_ros.bag.many.executor import WORKER_BYTES
from dan_ros.bag.many.job import resolve_settings
from dan_ros.bag.many.page import LIST, PAGE, problem_of, render_list, render_page
from dan_ros.bag.many.processes import ProcessExecutor, default_jobs, free_bytes
from dan_ros.bag.many.result_folder import ResultFolder
from dan_ros.bag.many.run import BagTask, ManyBags
from dan_ros.bag.many.sources import find_bags
from dan_ros.bag.settings import BagSettings
from dan_ros.cli.common import progress_bar, warn
from dan_ros.errors import DanError, DataError, count_of
from dan_ros.model import store
from dan_ros.storage.atomic import atomic_write_bytes

if TYPE_CHECKING:
    from dan_ros.bag.many.executor import Executor
    from dan_ros.bag.many.ray_cluster import RayExecutor

PATIENCE_S = 30.0  # time without a working worker after which the user gets a warning
SPEED_PERIOD_S = 600.0  # averaging time of the speed, for the estimate of the remaining time


def convert_many(
    sources: Sequence[Path],
    out: Path,
    settings: BagSettings,
    force: bool,
    jobs: int | None,
    ray_address: str | None,
) -> int:
    """Convert many bags and return the exit code.

    `jobs` is None to choose it, and `ray_address` None for processes of this machine.

    Raises:
        DanError: the run cannot start or cannot continue.
    """
    out = out.resolve()
    bags = find_bags(sources, _print_unreadable)
    _check_apart(bags, out)
    with ExitStack() as stack:
        cluster = None
        if ray_address:
            from dan_ros.bag.many.ray_cluster import RayExecutor

            cluster = stack.enter_context(closing(RayExecutor(ray_address, jobs)))
        settings = _resolve(settings, cluster)
        sha256 = store.read_model(settings.model).sha256
        folder = stack.enter_context(ResultFolder.open(out))
        many = ManyBags(folder, bags, settings, sha256, force, _print_read)
        _print_begin(many)
        if waiting := len(many.waiting):
            executor, threads = _start(waiting, jobs, cluster)
            try:
                with closing(executor):
                    _run(many, folder, executor, threads)
            except (KeyboardInterrupt, DanError, OSError):
                _finish_early(many, folder, settings)
                raise
        return _finish(many, folder, settings)


def _print_unreadable(error: OSError) -> None:
    warn(f'{error.filename} is left out: {error.strerror}')


def _print_begin(many: ManyBags) -> None:
    if ready := sum(task.is_done for task in many.tasks.values()):
        click.echo(f'done already: {ready} of {count_of(len(many.tasks), "bag")}', err=True)
    for task in many.tasks.values():
        if task.failure:
            click.echo(f'Error: {task.failure}', err=True)
        if task.old_source and task.old_source.name != task.source.name:
            was = f'{task.source} was {task.old_source.name} before'
            click.echo(f'{was}; its results stay {task.name}', err=True)


def _check_apart(bags: Sequence[Path], out: Path) -> None:
    for bag in bags:
        if bag.is_relative_to(out) or (bag.is_dir() and out.is_relative_to(bag)):
            raise DataError(f'one of {out} and {bag} is inside the other; choose another folder')


def _resolve(settings: BagSettings, cluster: 'RayExecutor | None') -> BagSettings:
    """Open the models once where the jobs will run.

    So all workers use the same models, and errors appear before the work starts.
    """
    if settings.model not in (store.DEFAULT_MODEL, *store.KNOWN_MODELS):
        path = store.expand_path(settings.model).resolve()
        settings = replace(settings, model=str(path))
    if cluster:
        found = cluster.resolve(settings.to_json(), PATIENCE_S, _print_wait)
    else:
        found = resolve_settings(settings.to_json())
    if found['error']:
        raise DanError(f'{"on a node: " if cluster else ""}{found["error"]}')
    warn(found['warning'])
    return BagSettings.from_json(found['settings'])


def _start(bags: int, jobs: int | None, cluster: 'RayExecutor | None') -> 'tuple[Executor, int]':
    """Return the executor of the jobs, and the threads of each job."""
    if cluster:
        click.echo(
            f'{count_of(bags, "bag")} on a Ray cluster with {count_of(cluster.slots(), "core")}',
            err=True,
        )
        return cluster, 1
    cores = available_cpus()
    chosen = min(jobs or default_jobs(bags), bags)
    threads = max(1, cores // chosen)
    click.echo(
        f'{count_of(bags, "bag")}, {chosen} at a time with {count_of(threads, "thread")} each '
        f'({count_of(cores, "core")}, {free_bytes() / 1e9:.0f} GB of memory free)',
        err=True,
    )
    return ProcessExecutor(chosen, threads), threads


def _run(many: ManyBags, folder: ResultFolder, executor: 'Executor', threads: int) -> None:
    before = many.bytes_done()
    total = sum(task.size for task in many.waiting)
    warn_at_s = time.monotonic() + PATIENCE_S

    def show() -> None:
        nonlocal warn_at_s
        if many.is_working():
            warn_at_s = time.monotonic() + PATIENCE_S
        elif time.monotonic() > warn_at_s:
            warn_at_s = math.inf
            _print_wait()
        ended = sum(bool(task.is_done or task.failure) for task in many.tasks.values())
        bar.update(
            row,
            completed=many.bytes_done() - before,
            description=f'bag {ended} of {len(many.tasks)}',
        )

    with progress_bar('{task.percentage:.0f} %', SPEED_PERIOD_S) as bar:
        row = bar.add_task('', total=total)
        many.run(executor, threads, show, lambda task: _print_end(task, folder), _print_death)


def _print_line(text: str, err: bool = False) -> None:
    """Print a line above the progress bar; `click.echo` would print it into the bar."""
    print(text, file=sys.stderr if err else sys.stdout, flush=True)


def _print_wait() -> None:
    need = f'a core and {WORKER_BYTES / 1e9:g} GB of memory'
    _print_line(f'Warning: no worker has begun; each needs {need}; waiting', err=True)


def _print_read(bags: int) -> None:
    click.echo(f'reading {count_of(bags, "bag")} to check what was moved or renamed', err=True)


def _print_death(task: BagTask, cause: str) -> None:
    _print_line(f'Warning: {task.name}: its worker ended ({cause}); trying again', err=True)


def _print_end(task: BagTask, folder: ResultFolder) -> None:
    if task.failure:
        _print_line(f'Error: {task.failure}', err=True)
        return
    summary = folder.records[task.name]['summary']
    _print_line(f'{task.name}: {summary["text"]}')
    if problem := problem_of(summary):
        _print_line(f'Error: {task.name}: {problem}', err=True)
    for warning in summary['warnings']:
        _print_line(f'Warning: {task.name}: {warning}', err=True)


def _finish_early(many: ManyBags, folder: ResultFolder, settings: BagSettings) -> None:
    """Write the summary of the finished bags, if there is enough disk space."""
    try:
        _finish(many, folder, settings)
    except BrokenPipeError:  # the terminal was closed; the summary is written
        pass
    except OSError as error:
        reason = error.strerror or error
        warn(f'{PAGE} and {LIST} are not up to date: {reason}')


def _finish(many: ManyBags, folder: ResultFolder, settings: BagSettings) -> int:
    """Write and print the summary, and return the exit code."""
    folder.drop_removed()
    done = [n for n, task in many.tasks.items() if task.is_done and n in folder.records]
    summaries = [folder.records[name]['summary'] for name in done]
    _warn(folder, summaries)
    failures = {name: task.failure for name, task in many.tasks.items() if task.failure}
    sources = {name: record['source'] for name, record in folder.records.items()}
    sources |= {name: str(task.source) for name, task in many.tasks.items()}
    waiting = len(many.waiting)
    page = render_page(folder.records, failures, settings, many.fingerprint, waiting)
    atomic_write_bytes(folder.path / PAGE, page)
    atomic_write_bytes(folder.path / LIST, render_list(folder.records, failures, sources))
    incomplete = sum(bool(problem_of(summary)) for summary in summaries)
    images = sum(summary['frames'] for summary in summaries)
    parts = [f'{count_of(len(done), "bag")}, {count_of(images, "image")}']
    if incomplete:
        parts.append(f'{incomplete} of them incomplete')
    if failures:
        parts.append(f'{len(failures)} failed')
    if waiting:
        parts.append(f'{waiting} not done')
    click.echo(f'{"; ".join(parts)}; see {os.path.relpath(folder.path / PAGE)}')
    return 1 if failures or incomplete else 0


def _warn(folder: ResultFolder, summaries: Iterable[dict[str, Any]]) -> None:
    """Warn of results that miss files, topics that are left out, and copies of bags."""
    if strays := folder.strays():
        others = f' and {count_of(len(strays) - 1, "other")}' if strays[1:] else ''
        warn(
            f'{strays[0]}{others}: parts of these results are missing; delete the rest or convert '
            'the bag again'
        )
    left_out = Counter(item for summary in summaries for item in summary['left_out'].items())
    for (topic, reason), count in left_out.items():
        warn(
            f'{topic} is left out in {count_of(count, "bag")}: {reason}; to process it, use '
            f'--topic {topic}'
        )
    for name, other in _find_copies(folder):
        warn(f'{name} has the same content as {other}; both are counted')


def _find_copies(folder: ResultFolder) -> list[tuple[str, str]]:
    """Return pairs of the names of bags with the same content."""
    first: dict[str, str] = {}  # name by content
    names = sorted(folder.records)
    pairs = [(name, first.setdefault(folder.records[name]['sha256'], name)) for name in names]
    return [(name, other) for name, other in pairs if name != other]
