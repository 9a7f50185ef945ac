# SPDX-License-Identifier: Apache-2.0
"""Converts many bags: submits jobs to workers, publishes their results, retries failed workers."""

import os
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from itertools import takewhile
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

from dan_ros.backends.base import available_cpus
from dan_ros.bag.many.executor import Ended, Executor
from dan_ros.bag.many.job import (
    DONE,
    FAILED,
    FATAL,
    PROGRESS,
    UNCHANGED,
    UNSEEN,
    Job,
    hash_files,
    stat_files,
)
from dan_ros.bag.many.result_folder import ResultFolder
from dan_ros.bag.many.sources import name_bags
from dan_ros.bag.settings import BagSettings
from dan_ros.errors import DataError

MAX_ATTEMPTS = 3  # attempts to convert a bag whose worker dies
POLL_S = 0.5


@dataclass
class BagTask:
    """One bag of a run."""

    name: str  # name of the bag and its results
    source: Path  # resolved path of the bag
    files: list[list[Any]]  # see `stat_files`; [] if they cannot be read
    failure: str  # why there are no new results, or ''
    # Hash of its content if its files have the sizes of a bag that no longer exists, or ''.
    sha256: str = ''
    # Path that had the same content in an earlier run and no longer exists.
    old_source: Path | None = None
    known_sha256: str = ''  # hash of a content that has results with the same settings, or ''
    is_done: bool = False  # whether its results are complete
    attempts: int = 0  # number of attempts so far
    work: Path | None = None  # folder of the present attempt

    @property
    def size(self) -> int:
        """Size of the bag, bytes; at least 1."""
        return max(1, sum(int(size) for _, size, _ in self.files))

    def share_done(self) -> float:
        """Share of the bag that the present attempt has processed, [0, 1]."""
        try:
            return float((self.work / PROGRESS).read_text()) if self.work else 0.0
        except (OSError, ValueError):  # the file does not exist yet, or is being written
            return 0.0


class ManyBags:
    """Converts many bags into one result folder.

    With `force`, bags that are done are converted too. `on_read` gets the number of bags that must
    be read because they may have been moved.

    Attributes:
        tasks: all bags, by name.
        fingerprint: see `BagSettings.fingerprint`.
    """

    def __init__(
        self,
        folder: ResultFolder,
        bags: Iterable[Path],
        settings: BagSettings,
        model_sha256: str,
        force: bool = False,
        on_read: Callable[[int], object] = lambda bags: None,
    ) -> None:
        self._folder, self._settings = folder, settings
        self.fingerprint = settings.fingerprint(model_sha256)
        tasks = [BagTask('', bag, *_stat(bag)) for bag in bags]
        names = name_bags([task.source for task in tasks], self._known_names(tasks, on_read))
        self.tasks = {names[task.source]: task for task in tasks}
        for name, task in self.tasks.items():
            task.name = name
            self._look_up(task, force)
        self._running: dict[str, BagTask] = {}

    @property
    def waiting(self) -> list[BagTask]:
        """The bags that must be converted."""
        return [task for task in self.tasks.values() if not (task.is_done or task.failure)]

    def bytes_done(self) -> float:
        """Total size of the bags to process, bytes."""
        ended = (t.size for t in self.tasks.values() if t.is_done or t.failure)
        return sum(ended) + sum(t.size * t.share_done() for t in self._running.values())

    def is_working(self) -> bool:
        """Whether a worker has started on a bag and does not only wait for a free core."""
        return any(t.work and (t.work / PROGRESS).exists() for t in self._running.values())

    def run(
        self,
        executor: Executor,
        threads: int,
        on_progress: Callable[[], object] = lambda: None,
        on_end: Callable[[BagTask], object] = lambda task: None,
        on_death: Callable[[BagTask, str], object] = lambda task, cause: None,
    ) -> None:
        """Convert all bags that are not done.

        `on_progress` is called about twice a second, `on_end` when a bag is finished or has failed,
        and `on_death` with the cause when a worker died and its bag will be retried.

        Raises:
            DataError: the run cannot continue, such as on a full disk; finished bags are kept.
        """
        queue = deque(self.waiting)
        next_s = time.monotonic()
        while queue or self._running:
            while queue and executor.has_room():
                self._submit(queue.popleft(), executor, threads)
            for ended in executor.wait(POLL_S):
                task = self._running.pop(ended.name)
                self._handle(task, ended)
                if task.is_done or task.failure:
                    on_end(task)
                else:
                    on_death(task, ended.cause_of_death)
                    queue.append(task)
            if time.monotonic() >= next_s:  # reads one file per running job
                on_progress()
                next_s = time.monotonic() + POLL_S
        on_progress()

    def _known_names(
        self, tasks: list[BagTask], on_read: Callable[[int], object]
    ) -> dict[Path, str]:
        """Return the names of earlier runs by path, also of bags that were moved or renamed."""
        records = self._folder.records
        known = {Path(record['source']): name for name, record in records.items()}
        lost = [path for path in known if not os.path.lexists(path)]
        sizes = {_sizes(records[known[path]]['files']) for path in lost}
        new = [t for t in tasks if t.source not in known and t.files and _sizes(t.files) in sizes]
        if not new:
            return known
        on_read(len(new))
        with ThreadPool(available_cpus()) as pool:
            hashes = pool.map(_hash, [task.source for task in new], chunksize=1)
        lost_by_hash = defaultdict(list)
        for path in lost:
            lost_by_hash[records[known[path]]['sha256']].append(path)
        for task, sha256 in zip(new, hashes, strict=True):
            task.sha256 = sha256
            if same := lost_by_hash[sha256]:
                task.old_source = max(same, key=lambda path: _common_parts(path, task.source))
                same.remove(task.old_source)
                known[task.source] = known[task.old_source]
        return known

    def _look_up(self, task: BagTask, force: bool) -> None:
        """Find out whether a bag is done."""
        record = self._folder.records.get(task.name)
        if task.failure or force or not record or record['settings'] != self.fingerprint:
            return
        if self._folder.has_results(task.name):
            task.known_sha256 = record['sha256']
            task.is_done = (record['source'], record['files']) == (str(task.source), task.files)
            if not task.is_done and task.sha256 == task.known_sha256:
                now = {'source': str(task.source), 'files': task.files}
                self._folder.record(task.name, {**record, **now})
                task.is_done = True

    def _submit(self, task: BagTask, executor: Executor, threads: int) -> None:
        task.attempts += 1
        task.work = self._folder.new_work()
        self._running[task.name] = task
        job = Job(
            task.name,
            str(task.source),
            str(task.work),
            str(self._folder.path),
            self._settings.to_json(),
            self.fingerprint,
            threads,
            task.known_sha256,
            self._folder.token,
        )
        executor.submit(asdict(job))

    def _handle(self, task: BagTask, ended: Ended) -> None:
        """Publish the results of a job, or record why there are none."""
        assert task.work is not None
        work, task.work = task.work, None
        outcome = ended.outcome
        if outcome is None:
            self._folder.discard(work)
            if task.attempts == MAX_ATTEMPTS:
                task.failure = (
                    f'{task.source}: {task.attempts} workers died ({ended.cause_of_death})'
                )
            return
        state = outcome['state']
        if state == FATAL or (state == UNSEEN and os.path.lexists(task.source)):
            raise DataError(outcome['reason'])
        if state in (FAILED, UNSEEN):
            task.failure = outcome['reason']
            if state == UNSEEN:
                task.failure = f'{task.source}: it was removed during the run'
            self._folder.discard(work)
            return
        record = self._to_record(task, outcome)
        if state == UNCHANGED:
            old = self._folder.records[task.name]
            self._folder.record(task.name, {**old, **record})
            self._folder.discard(work)
        elif state == DONE:
            self._folder.publish(task.name, work, record)
        task.is_done = True

    def _to_record(self, task: BagTask, outcome: dict[str, Any]) -> dict[str, Any]:
        names = ('files', 'sha256', 'summary', 'seconds')
        kept: dict[str, Any] = {name: outcome[name] for name in names if name in outcome}
        return {'source': str(task.source), 'settings': self.fingerprint, **kept}


def _stat(bag: Path) -> tuple[list[list[Any]], str]:
    """Return the files of a bag, and '' or why they cannot be read."""
    try:
        return stat_files(bag), ''
    except OSError as error:
        reason = error.strerror if os.path.lexists(bag) else 'there is no such bag'
        return [], f'{bag}: {reason}'


def _hash(bag: Path) -> str:
    try:
        return hash_files(bag)
    except OSError:  # its job will report it
        return ''


def _sizes(files: list[list[Any]]) -> tuple[int, ...]:
    return tuple(sorted(size for _, size, _ in files))


def _common_parts(path: Path, other: Path) -> int:
    """Number of equal trailing parts of two paths."""
    pairs = zip(reversed(path.parts), reversed(other.parts), strict=False)
    return len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))
