# SPDX-License-Identifier: Apache-2.0
"""Keeps TensorRT engines between runs.

An engine is a program, so it is read only from a folder that no other user can write to, and it is
never downloaded. A file holds the engine's key and hash before the engine itself. It is written
atomically, and a lock lets only one process build it.
"""

import fcntl
import hashlib
import json
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from dan_ros.backends.base import OnProgress, ignore_progress
from dan_ros.errors import BackendError, DanError
from dan_ros.storage.atomic import atomic_write
from dan_ros.storage.cache import make_cache_folder, make_private

MAGIC = b'dan_ros engine 2\n'  # increase the number when engines are built differently
SUFFIX, SET_ASIDE = '.engine', '.unusable'
MAX_HEADER_BYTES = 1 << 16


@dataclass(frozen=True)
class EngineKey:
    """What an engine was built for; it is used only if all of this matches."""

    model_sha256: str  # SHA-256 of the ONNX file
    runtime: str  # TensorRT's name and version
    gpu: str  # name in `cuda.Device`; 'any' for an engine that runs on every RTX GPU
    sm: str  # sm in `cuda.Device`, or 'any'
    driver: str  # driver in `cuda.Device`, or 'any'
    precision: str  # fp32, fp16 or int8
    max_batch: int  # largest number of faces per run

    @property
    def digest(self) -> str:
        """SHA-256 of all fields, hexadecimal."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Entry:
    """An engine file in the cache."""

    path: Path  # the file
    model: str  # name of the model it was built from
    key: EngineKey | None  # what it was built for; None if the file is damaged or set aside
    size: int  # bytes


class EngineCache:
    """A folder of engines.

    Args:
        folder: created with access for this user only; None uses the user's cache.

    Raises:
        BackendError: the folder belongs to another user, is a link, or cannot be created.
    """

    def __init__(self, folder: Path | None = None) -> None:
        try:
            if folder is None:
                folder = make_cache_folder('engines')
            else:
                make_private(folder)
        except DanError as error:
            raise BackendError(str(error)) from None
        self.folder = folder

    def path_of(self, key: EngineKey, model: str) -> Path:
        """The engine's file; it may not exist."""
        stem = re.sub(r'\W+', '_', Path(model).stem)[:64]
        return self.folder / f'{stem}-{key.precision}-{key.digest[:16]}{SUFFIX}'

    def read_or_build(
        self,
        key: EngineKey,
        model: str,
        build: Callable[[], bytes],
        is_usable: Callable[[bytes], bool] = lambda plan: True,
        on_progress: OnProgress = ignore_progress,
        must_store: bool = True,
    ) -> bytes:
        """Read an engine from the cache, or build and store it.

        `is_usable` tells whether TensorRT can load an engine from the cache. Without `must_store`,
        failing to store the engine is only reported.

        Raises:
            BackendError: the engine cannot be stored.
        """
        path = self.path_of(key, model)
        with _locked(path, on_progress):
            plan = _read_usable(path, key, is_usable, on_progress)
            if plan is None:
                plan = build()
                try:
                    _write(path, key, model, plan)
                except OSError as error:
                    problem = f'cannot store the engine {path}: {error.strerror}; free some space'
                    if must_store:
                        raise BackendError(f'{problem}, or set XDG_CACHE_HOME') from None
                    on_progress(f'{problem}, or it will be built again at the next start')
            return plan

    def read_extra(self, name: str) -> bytes:
        """Read what `store_extra` stored under a name; b'' if nothing."""
        path = self._extra_path(name)
        return path.read_bytes() if path.is_file() else b''

    def store_extra(self, name: str, content: bytes) -> None:
        """Store data that only saves time, such as a timing cache; ignore write errors."""
        with suppress(OSError):
            atomic_write(self._extra_path(name), lambda file: file.write(content))

    def entries(self) -> list[Entry]:
        """All engine files, including those set aside."""
        files = sorted(self.folder.iterdir())
        return [_to_entry(path) for path in files if path.suffix in (SUFFIX, SET_ASIDE)]

    def remove(self, entry: Entry) -> None:
        """Delete an engine and its lock file."""
        entry.path.unlink(missing_ok=True)
        entry.path.with_suffix('.lock').unlink(missing_ok=True)

    def _extra_path(self, name: str) -> Path:
        return self.folder / re.sub(r'[ /]', '_', name)


@contextmanager
def _locked(path: Path, on_progress: OnProgress) -> Iterator[None]:
    with path.with_suffix('.lock').open('a') as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_progress(f'waiting for another process that builds the engine {path.name}')
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _write(path: Path, key: EngineKey, model: str, plan: bytes) -> None:
    header = {'model': model, 'sha256': hashlib.sha256(plan).hexdigest(), 'key': asdict(key)}
    content = MAGIC + json.dumps(header).encode() + b'\n'
    atomic_write(path, lambda file: (file.write(content), file.write(plan)))


def _read_usable(
    path: Path, key: EngineKey, is_usable: Callable[[bytes], bool], on_progress: OnProgress
) -> bytes | None:
    """The engine in a file; None if there is no file, or if it is unusable and was set aside."""
    if not path.exists():
        return None
    try:
        plan = _read(path, key)
        if not is_usable(plan):
            raise ValueError('TensorRT cannot load it here')
    except ValueError as problem:
        aside = path.with_suffix(SET_ASIDE)
        path.replace(aside)
        on_progress(f'set the engine {path.name} aside as {aside.name}, building again: {problem}')
        return None
    on_progress(f'using the cached engine {path.name}')
    return plan


def _read(path: Path, key: EngineKey) -> bytes:
    """Read an engine.

    Raises:
        ValueError: it must not be used; the message gives the reason.
    """
    status = path.stat()
    if stat.S_IMODE(status.st_mode) & 0o022 or status.st_uid != os.getuid():
        raise ValueError('others can write to it')
    with path.open('rb') as file:
        _, sha256, found = _read_header(file)
        plan = file.read()
    if found != key:
        raise ValueError('its key does not match')
    if hashlib.sha256(plan).hexdigest() != sha256:
        raise ValueError('it is damaged')
    return plan


def _read_header(file: BinaryIO) -> tuple[str, str, EngineKey]:
    """Model, hash and key of an engine.

    Raises:
        ValueError: it is not an engine file of this package.
    """
    if file.readline(len(MAGIC)) == MAGIC:
        with suppress(ValueError, KeyError, TypeError):
            header = json.loads(file.readline(MAX_HEADER_BYTES))
            return header['model'], header['sha256'], EngineKey(**header['key'])
    raise ValueError('it is damaged')


def _to_entry(path: Path) -> Entry:
    size = path.stat().st_size
    with suppress(ValueError), path.open('rb') as file:
        if path.suffix == SUFFIX:
            model, _, key = _read_header(file)
            return Entry(path, model, key, size)
    return Entry(path, path.stem, None, size)
