"""Files written whole or not at all.

A file in the making is locked until it is in its place. So one that nobody has locked was left by a
process that was killed, and the next writer removes it; process ids would not tell, since
containers that share a folder have the same ones.
"""

import errno
import fcntl
import glob
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from dan_ros.storage.cache import PRIVATE

TOKEN_BYTES = 8
ANY_TOKEN = '[0-9a-f]' * 2 * TOKEN_BYTES  # as a pattern of names


def atomic_write(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let `write` fill a file beside `path`, then put it in its place: no half is ever seen.

    Raises:
        OSError: `path`, which it names, can't be written or is a folder; nothing is left behind.
    """
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        for partial in path.parent.glob(f'{glob.escape(path.name)}.{ANY_TOKEN}.partial'):
            remove_abandoned(partial, Path.unlink)
        _write(path, write)
    except OSError as error:  # it names the file beside it, which nobody gave, or none
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def _write(path: Path, write: Callable[[BinaryIO], object]) -> None:
    partial, file = _open_partial(path)
    try:
        with file:  # and its lock is held until it is in its place
            write(file)
            file.flush()
            os.fsync(file.fileno())
            partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _open_partial(path: Path) -> tuple[Path, BinaryIO]:
    """A new file beside `path`, locked."""
    while True:
        partial = path.with_name(f'{path.name}.{secrets.token_hex(TOKEN_BYTES)}.partial')
        file = partial.open('xb')
        if lock(partial, file.fileno()):
            return partial, file
        file.close()


def lock(path: Path, descriptor: int) -> bool:
    """Lock what this process has just made, as long as `descriptor` is open.

    Returns:
        Whether it is still there: before it was locked, `remove_abandoned` may have come.
    """
    with suppress(OSError):  # a file system without locks: there nothing is ever removed
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    return path.exists()


def remove_abandoned(path: Path, remove: Callable[[Path], object]) -> None:
    """Call `remove` for what was made with `claim`, file or folder, unless its maker still runs."""
    access = os.O_RDONLY if path.is_dir() else os.O_RDWR  # NFS locks only what it may write
    with suppress(OSError):  # it is locked, gone, or not ours
        descriptor = os.open(path, access | os.O_NOFOLLOW)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove(path)
        finally:
            os.close(descriptor)


def atomic_write_bytes(path: Path, content: bytes) -> None:
    """Write these bytes, as `atomic_write` does."""
    atomic_write(path, lambda file: file.write(content))


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Where to make a folder that takes the place of `path` at the end; an error removes it.

    What lies at `path` until then is replaced.

    Raises:
        OSError: nothing can be written there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    hidden, descriptor = make_claimed(path.parent, path.name)
    try:
        new = hidden / 'new' / path.name
        new.parent.mkdir()
        yield new
        _flush(new)
        if os.path.lexists(path):
            path.rename(hidden / 'old')
        new.rename(path)
    finally:
        _remove(hidden, path)
        os.close(descriptor)


def tidy_up(path: Path) -> bool:
    """Remove what processes that were killed have left beside `path`.

    Returns:
        Whether one was killed while it replaced `path`, so that the old folder was put back.
    """
    was_there = os.path.lexists(path)
    remove_abandoned_folders(path.parent, path.name, lambda hidden: _remove(hidden, path))
    return not was_there and os.path.lexists(path)


def remove_abandoned_folders(
    parent: Path, name: str, remove: Callable[[Path], object] = shutil.rmtree
) -> None:
    """Call `remove` for what `make_claimed` made for a process that was killed."""
    for hidden in parent.glob(f'.{glob.escape(name)}.{ANY_TOKEN}'):
        remove_abandoned(hidden, remove)


def make_claimed(parent: Path, name: str) -> tuple[Path, int]:
    """A new hidden folder `.<name>.<token>`, and the descriptor that locks it while it is open."""
    while True:
        hidden = parent / f'.{name}.{secrets.token_hex(TOKEN_BYTES)}'
        hidden.mkdir(mode=PRIVATE)
        try:
            descriptor = os.open(hidden, os.O_RDONLY)
        except FileNotFoundError:  # another process took it for abandoned before it was locked
            continue
        if lock(hidden, descriptor):
            return hidden, descriptor
        os.close(descriptor)


def _flush(folder: Path) -> None:
    """Have the files of a folder on the disk before an old one is given up for it."""
    for file in folder.rglob('*'):
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _remove(hidden: Path, path: Path) -> None:
    """Remove a hidden folder; between the two moves the old folder goes back first."""
    old, new = hidden / 'old', hidden / 'new' / path.name
    if os.path.lexists(old) and os.path.lexists(new) and not os.path.lexists(path):
        old.rename(path)
    shutil.rmtree(hidden, ignore_errors=True)
