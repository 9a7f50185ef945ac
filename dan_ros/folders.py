"""A folder written whole or not at all.

It is filled within a hidden folder beside its place, `.<name>.<token>`:

    new/<name>  what is being written
    old         what lay in the place, for the moment between the two moves at the end

The hidden folder is locked while its process runs, see `files`. There is a whole folder at any
time: where the process is killed between the two moves, `tidy_up` puts the old one back.
"""

import glob
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dan_ros.cache_folders import PRIVATE
from dan_ros.files import ANY_TOKEN, TOKEN_BYTES, claim, remove_abandoned


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
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
        if claim(hidden, descriptor):
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
