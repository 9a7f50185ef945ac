"""TensorRT engines kept between runs.

An engine is a program: it is read only from a folder that nobody else can write to, and never
fetched. Each file holds what it was made for, and the hash of what it holds, before the engine
itself; it appears whole or not at all, and is made once even if two processes ask for it at once.
"""

import fcntl
import hashlib
import json
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from dan_ros.errors import BackendError, DanError
from dan_ros.storage.atomic import atomic_write
from dan_ros.storage.cache import make_cache_folder, make_private

MAGIC = b'dan_ros engine 2\n'  # raise the number when engines are built in another way
SUFFIX, SET_ASIDE = '.engine', '.unusable'
HEADER_LIMIT = 1 << 16

Say = Callable[[str], object]


@dataclass(frozen=True)
class EngineKey:
    """What an engine was built for; it serves nothing else.

    Attributes:
        model_sha256: of the ONNX file.
        runtime: flavour and version of TensorRT.
        gpu, sm, driver: see `cuda.Device`; 'any' where the engine serves all.
        precision: fp32, fp16 or int8.
        max_batch: most faces at once.
    """

    model_sha256: str
    runtime: str
    gpu: str
    sm: str
    driver: str
    precision: str
    max_batch: int

    @property
    def digest(self) -> str:
        """Changes with every field."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Entry:
    """An engine in the cache.

    Attributes:
        path: its file.
        model: name of the model it is of.
        key: what it was built for; None where the file is damaged.
        size: bytes.
    """

    path: Path
    model: str
    key: EngineKey | None
    size: int


class EngineCache:
    """A folder of engines.

    Args:
        folder: is made, for this user alone; the one in the user's cache if None.

    Raises:
        BackendError: the folder belongs to somebody else, is a link, or can't be made.
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
        """Where an engine lies, whether it is there or not."""
        stem = re.sub(r'\W+', '_', Path(model).stem)[:64]
        return self.folder / f'{stem}-{key.precision}-{key.digest[:16]}{SUFFIX}'

    def read_or_build(
        self,
        key: EngineKey,
        model: str,
        build: Callable[[], bytes],
        is_usable: Callable[[bytes], bool] = lambda plan: True,
        say: Say = lambda text: None,
        must_keep: bool = True,
    ) -> bytes:
        """The engine, built where there is none that can be used.

        Args:
            key: what it is for.
            model: name of the model.
            build: makes the engine.
            is_usable: whether an engine read from a file really loads.
            say: told in a sentence what is done.
            must_keep: whether it is an error if the engine can't be kept; else it is said.

        Raises:
            BackendError: the engine can't be kept.
        """
        path = self.path_of(key, model)
        with self._locked(path, say):
            if path.exists():
                plan, problem = _read(path, key)
                if plan is not None and is_usable(plan):
                    say(f'engine {path.name} taken from the cache')
                    return plan
                aside = path.with_suffix(SET_ASIDE)
                path.replace(aside)
                problem = problem or 'TensorRT can not load it here'
                say(f'engine {path.name} is set aside as {aside.name} and built again: {problem}')
            plan = build()
            try:
                self._write(path, key, model, plan)
            except OSError as error:
                problem = f'the engine {path} can not be kept: {error.strerror}'
                if must_keep:
                    raise BackendError(f'{problem}; make room, or set XDG_CACHE_HOME') from None
                say(f'{problem}; it will be built again at the next start')
            return plan

    def entries(self) -> list[Entry]:
        """Everything in the cache, engines set aside as well."""
        found = []
        for path in sorted(self.folder.iterdir()):
            if path.suffix in (SUFFIX, SET_ASIDE):
                header = _read_header(path) if path.suffix == SUFFIX else None
                model, key = header or (path.stem, None)
                found.append(Entry(path, model, key, path.stat().st_size))
        return found

    def remove(self, entry: Entry) -> None:
        """Delete an engine and its lock."""
        entry.path.unlink(missing_ok=True)
        entry.path.with_suffix('.lock').unlink(missing_ok=True)

    def _write(self, path: Path, key: EngineKey, model: str, plan: bytes) -> None:
        header = {
            'model': model,
            'sha256': hashlib.sha256(plan).hexdigest(),
            'key': asdict(key),
        }
        content = MAGIC + json.dumps(header).encode() + b'\n'
        atomic_write(path, lambda file: (file.write(content), file.write(plan)))

    @contextmanager
    def _locked(self, path: Path, say: Say) -> Iterator[None]:
        with path.with_suffix('.lock').open('a') as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say(f'another process builds the engine {path.name}: waiting for it')
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _read(path: Path, key: EngineKey) -> tuple[bytes | None, str]:
    """The engine in a file, or None and what is wrong with it."""
    if stat.S_IMODE(path.stat().st_mode) & 0o022 or path.stat().st_uid != os.getuid():
        return None, 'others can write to it'
    header = _read_header(path)
    if header is None:
        return None, 'it is damaged'
    if header[1] != key:
        return None, 'it was built for something else'
    with path.open('rb') as file:
        file.readline()
        claimed = json.loads(file.readline())['sha256']
        plan = file.read()
    if hashlib.sha256(plan).hexdigest() != claimed:
        return None, 'it is damaged'
    return plan, ''


def _read_header(path: Path) -> tuple[str, EngineKey] | None:
    """Model and key of an engine's file; None if it is no such file."""
    with path.open('rb') as file:
        if file.readline(len(MAGIC)) != MAGIC:
            return None
        try:
            header = json.loads(file.readline(HEADER_LIMIT))
            values = {field.name: header['key'][field.name] for field in fields(EngineKey)}
            return str(header['model']), EngineKey(**values)
        except (ValueError, KeyError, TypeError):
            return None
