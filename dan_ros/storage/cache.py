# SPDX-License-Identifier: Apache-2.0
"""Private folders in the user's cache.

TensorRT engines in the cache are programs, so a folder that another user owns or can write to, or
that is a symbolic link, is never used.
"""

import os
import pwd
import stat
from pathlib import Path

from dan_ros.errors import DanError

PRIVATE = 0o700  # permissions: read, write and enter for the owner only
REMEDY = 'remove it, or set XDG_CACHE_HOME to your own folder'


def cache_path(kind: str) -> Path:
    """Return the folder for 'models' or 'engines' without creating it.

    It is in `$XDG_CACHE_HOME/dan_ros`, by default `~/.cache/dan_ros`. An empty `HOME` counts as
    unset.

    Raises:
        DanError: this user has no home folder.
    """
    try:
        home = os.environ.get('HOME') or pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        home = ''
    cache = os.environ.get('XDG_CACHE_HOME') or (home and f'{home}/.cache')
    if not cache:
        raise DanError('this user has no home folder: set XDG_CACHE_HOME to your own folder')
    return Path(cache) / 'dan_ros' / kind


def has_cache_folder(kind: str) -> bool:
    """Return whether the folder, or something else at its path, exists or cannot be read.

    Raises:
        DanError: this user has no home folder.
    """
    try:
        cache_path(kind).lstat()
    except OSError as error:
        return not isinstance(error, FileNotFoundError | NotADirectoryError)
    return True


def make_cache_folder(kind: str) -> Path:
    """Create the folder for 'models' or 'engines' if it is missing, and make it private.

    Raises:
        DanError: see `make_private`; or this user has no home folder.
    """
    folder = cache_path(kind)
    make_private(folder.parent)
    make_private(folder)
    return folder


def make_private(folder: Path) -> None:
    """Create a private folder, or make an existing one private.

    If it makes a folder private, it also removes files of other users from it.

    Raises:
        DanError: the folder belongs to another user, is a link or a file, or cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=PRIVATE)
        status = folder.lstat()  # status of a link itself, not of its target
        if not stat.S_ISDIR(status.st_mode):
            raise DanError(f'{folder} is a link, which could lead to files of others: {REMEDY}')
        if status.st_uid != os.getuid():
            raise DanError(f'{folder} belongs to another user, whose files are not used: {REMEDY}')
        if stat.S_IMODE(status.st_mode) != PRIVATE:
            folder.chmod(PRIVATE)
            for entry in folder.iterdir():
                if entry.lstat().st_uid != os.getuid() and not entry.is_dir():
                    entry.unlink()
    except OSError as error:
        raise DanError(f'the folder {folder} cannot be used: {error.strerror}; {REMEDY}') from None
