"""Files written whole or not at all."""

import errno
import glob
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let `write` fill a file beside `path`, then put it in its place: no half is ever seen.

    Raises:
        OSError: `path`, which it names, can't be written or is a folder; nothing is left behind.
    """
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        _write(path, write)
    except OSError as error:  # of the file beside it, which nobody gave, or of none
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def _write(path: Path, write: Callable[[BinaryIO], object]) -> None:
    _sweep(path)
    partial = path.with_name(f'{path.name}.{os.getpid()}.partial')
    try:
        with partial.open('wb') as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _sweep(path: Path) -> None:
    """Remove what writers of this file left behind when they were killed."""
    for partial in path.parent.glob(f'{glob.escape(path.name)}.*.partial'):
        pid = partial.name.split('.')[-2]
        if pid.isdigit() and not Path('/proc', pid).exists() and Path('/proc/self').exists():
            partial.unlink(missing_ok=True)


def write_content(path: Path, content: bytes) -> None:
    """Write these bytes, as `write_whole` does."""
    write_whole(path, lambda file: file.write(content))
