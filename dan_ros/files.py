"""Files written whole or not at all."""

import glob
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let `write` fill a file beside `path`, then put it in its place: no half is ever seen.

    Raises:
        OSError: it can't be written; nothing is left behind.
    """
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
