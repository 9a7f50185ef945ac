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
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

TOKEN_BYTES = 8
ANY_TOKEN = '[0-9a-f]' * 2 * TOKEN_BYTES  # as a pattern of names


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
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
        if claim(partial, file.fileno()):
            return partial, file
        file.close()


def claim(path: Path, descriptor: int) -> bool:
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


def write_content(path: Path, content: bytes) -> None:
    """Write these bytes, as `write_whole` does."""
    write_whole(path, lambda file: file.write(content))
