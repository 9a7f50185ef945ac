# SPDX-License-Identifier: Apache-2.0
"""Crash-safe writing: a file or folder appears complete or not at all.

New content is written into a hidden folder beside its target and then moved into place. The hidden
folder holds a file that stays locked while its writer runs, so the next writer recognizes and
removes the remains of killed processes. Process ids would not work, because containers that share a
disk reuse them.
"""

import errno
import fcntl
import glob
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

SUFFIX = '.partial'  # suffix of hidden folders
LOCK = 'lock'  # name of the locked file in a hidden folder


def atomic_write(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Replace the file `path` by what `write` writes to the binary file that it gets.

    Raises:
        OSError: `path` is a folder or device, or cannot be written. The error names `path`; the old
            file, if any, is unchanged.
    """
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if path.exists() and not path.is_file():
            raise OSError(errno.EINVAL, 'it is not a regular file')
        with workspace(path) as folder:
            partial = folder / path.name
            with partial.open('xb') as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
    except OSError as error:  # `error` names the hidden file or no file
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def atomic_write_bytes(path: Path, content: bytes) -> None:
    """Replace the file `path` by `content`; errors as for `atomic_write`."""
    atomic_write(path, lambda file: file.write(content))


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Yield the path of a folder to create; it replaces `path` when the block ends.

    If the block raises, the new folder is removed and `path` stays as it was.

    Raises:
        OSError: nothing can be written beside `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with workspace(path) as folder:
        new = folder / 'new' / path.name
        new.parent.mkdir()
        yield new
        _flush(new)
        if os.path.lexists(path):
            path.rename(folder / 'old')
        new.rename(path)


@contextmanager
def workspace(path: Path) -> Iterator[Path]:
    """Yield a new hidden folder beside `path`, locked during the block and removed at its end.

    Raises:
        OSError: the folder cannot be created.
    """
    remove_abandoned(path)
    folder = Path(tempfile.mkdtemp(SUFFIX, f'.{path.name}.', path.parent))
    held = None
    try:
        held = lock(folder)
        yield folder
    finally:
        _remove(folder, path)
        if held:
            held.close()


def lock(folder: Path) -> BinaryIO:
    """Keep `remove_abandoned` away from a hidden folder until the returned file is closed."""
    unlocked = folder / f'{LOCK}.new'
    file = unlocked.open('xb')
    with suppress(OSError):  # on file systems without locks, nothing is ever removed
        fcntl.flock(file, fcntl.LOCK_EX)
    os.rename(unlocked, folder / LOCK)  # other writers see it only once it is locked
    return file


def try_lock(file: BinaryIO) -> bool:
    """Lock an open file until it is closed or its process ends.

    Returns:
        False if another process has locked it; True also on file systems without locks.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EWOULDBLOCK, errno.EACCES)
    return True


def remove_abandoned(path: Path) -> bool:
    """Remove the hidden folders that killed writers of `path` left.

    Returns:
        Whether a writer was killed while it replaced a folder, so that the old folder was restored.
    """
    existed = os.path.lexists(path)
    for folder in path.parent.glob(f'.{glob.escape(path.name)}.????????{SUFFIX}'):
        with suppress(OSError), (folder / LOCK).open('r+b') as file:  # NFS locks writable files
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(folder, path)
    return not existed and os.path.lexists(path)


def _remove(folder: Path, path: Path) -> None:
    """Remove a hidden folder; restore the old `path` if its replacement had not been moved yet."""
    old, new = folder / 'old', folder / 'new' / path.name
    if os.path.lexists(old) and os.path.lexists(new) and not os.path.lexists(path):
        old.rename(path)
    shutil.rmtree(folder, ignore_errors=True)


def _flush(folder: Path) -> None:
    """Flush the files of a folder to the disk."""
    for file in folder.rglob('*'):
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
