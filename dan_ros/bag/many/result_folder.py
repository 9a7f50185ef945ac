# SPDX-License-Identifier: Apache-2.0
"""The result folder; only the process that holds its lock changes it.

Workers write each bag into its own folder below `.dan_ros/work`. Once a bag is complete, its
parts are moved to their places, and a line is added to `.dan_ros/records.jsonl`. If the process is
killed, at most one bag lacks its line; it is converted again.
"""

import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from dan_ros.bag.many.sources import STATE
from dan_ros.bag.parquet_tables import FACES, FRAMES
from dan_ros.bag.reader import METADATA
from dan_ros.errors import DataError
from dan_ros.storage.atomic import atomic_write_bytes, try_lock

BAGS, TABLES = 'bags', 'parquet'
RECORDS = 'records.jsonl'


class ResultFolder:
    """The results of many bags.

    Attributes:
        path: the folder, absolute.
        records: finished bags by name.
        token: text of the file `token` in `work`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.token = secrets.token_hex(16)
        self.records: dict[str, dict[str, Any]] = {}
        self._state = path / STATE
        self._work = self._state / 'work'
        self._journal: BinaryIO | None = None
        self._attempts = 0

    @classmethod
    @contextmanager
    def open(cls, path: Path) -> 'Iterator[ResultFolder]':
        """Create or open the folder, and lock it against other runs.

        Raises:
            DataError: the folder has other content, another run writes into it, or it cannot be
                written.
        """
        folder = cls(path)
        try:
            folder._check()
            folder._state.mkdir(parents=True, exist_ok=True)
            with (folder._state / 'lock').open('ab') as lock:
                if not try_lock(lock):
                    raise DataError(
                        f'another run writes into {path}; wait for its end or choose another folder'
                    )
                folder._begin()
                try:
                    yield folder
                finally:
                    folder._end()
        except BrokenPipeError:  # of the terminal
            raise
        except OSError as error:
            raise DataError(
                f'cannot write {path}: {error.strerror or error}; free some disk space or choose '
                'another folder'
            ) from error

    def new_work(self) -> Path:
        """Create an empty folder for the results of one attempt at a bag."""
        self._attempts += 1
        folder = self._work / str(self._attempts)  # short, because SQLite limits paths to 512 bytes
        folder.mkdir()
        return folder

    def discard(self, work: Path) -> None:
        """Remove the folder of an attempt."""
        shutil.rmtree(work, ignore_errors=True)

    def publish(self, name: str, work: Path, record: Mapping[str, Any]) -> None:
        """Move the results of a bag to their places; older results are replaced."""
        self._forget(name)
        new = {work / name: self.path / BAGS / name}
        for table in (FRAMES, FACES):
            target = self._partition(table, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            new[work / f'{table}.parquet'] = target
        (self.path / BAGS).mkdir(exist_ok=True)
        for source, target in new.items():
            if target.is_dir():
                target.rename(work / 'old')
            source.replace(target)
        self.record(name, record)
        self.discard(work)

    def record(self, name: str, record: Mapping[str, Any]) -> None:
        """Record that a bag is finished."""
        self.records[name] = dict(record)
        self._append({**record, 'name': name})

    def has_results(self, name: str) -> bool:
        """Whether the results of a bag are in their places."""
        parts = [self._partition(table, name) for table in (FRAMES, FACES)]
        return all(p.is_file() for p in (*parts, self.path / BAGS / name / METADATA))

    def drop_removed(self) -> None:
        """Forget the bags whose results were removed by the user."""
        for name in [name for name in self.records if not self.has_results(name)]:
            self._forget(name)

    def strays(self) -> list[str]:
        """Return the parts of results, relative to the folder, that belong to no bag in `records`.

        They remain if a user removed the other parts, or if a process was killed between two moves.
        """
        patterns = (f'{BAGS}/[!.]*', f'{TABLES}/{FRAMES}/bag=*', f'{TABLES}/{FACES}/bag=*')
        return [
            str(part.relative_to(self.path))
            for pattern in patterns
            for part in sorted(self.path.glob(pattern))
            if part.name.removeprefix('bag=') not in self.records
        ]

    def _partition(self, table: str, name: str) -> Path:
        return self.path / TABLES / table / f'bag={name}' / f'{table}.parquet'

    def _check(self) -> None:
        """Check that the folder is new, empty, or from an earlier run of this command."""
        if not os.path.lexists(self.path) or (self.path / STATE).is_dir():
            return
        if not self.path.is_dir():
            raise DataError(f'{self.path} is not a folder; choose another one')
        if any(self.path.iterdir()):
            raise DataError(
                f'{self.path} exists already and has no results of many bags; choose another folder'
            )

    def _begin(self) -> None:
        shutil.rmtree(self._work, ignore_errors=True)  # left by a run that was killed
        self._work.mkdir(exist_ok=True)
        (self._work / 'token').write_text(self.token)
        self._read_records()
        lines = [_to_line({**record, 'name': name}) for name, record in self.records.items()]
        atomic_write_bytes(self._state / RECORDS, b''.join(lines))
        self._journal = (self._state / RECORDS).open('ab')

    def _end(self) -> None:
        if self._journal:
            with suppress(OSError):
                self._journal.close()
        shutil.rmtree(self._work, ignore_errors=True)

    def _read_records(self) -> None:
        with suppress(FileNotFoundError), (self._state / RECORDS).open('rb') as file:
            for line in file:
                try:
                    record = json.loads(line)
                    name = record.pop('name')
                except (ValueError, KeyError, AttributeError):  # cut off when a run was killed
                    continue
                if record:
                    self.records[name] = record
                else:
                    self.records.pop(name, None)

    def _forget(self, name: str) -> None:
        if self.records.pop(name, None):
            self._append({'name': name})

    def _append(self, record: dict[str, Any]) -> None:
        assert self._journal is not None
        self._journal.write(_to_line(record))
        self._journal.flush()
        os.fsync(self._journal.fileno())


def _to_line(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, separators=(',', ':')).encode() + b'\n'
