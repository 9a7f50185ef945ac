"""Folders of the user's cache, which nobody else can read or write.

What lies there is trusted more than other files: an engine is a program, and a fetched model is
written where the folder says. So a folder is used only if it is a real one, of this user.
"""

import os
import pwd
import stat
from pathlib import Path

from dan_ros.errors import DanError

PRIVATE = 0o700


def cache_path(kind: str) -> Path:
    """Where files of one kind are kept, 'models' or 'engines'; nothing is made.

    Raises:
        DanError: this user has no home.
    """
    try:
        root = Path(os.environ.get('XDG_CACHE_HOME') or _home() / '.cache')
    except RuntimeError:
        raise DanError(
            'this user has no home folder for a cache: set XDG_CACHE_HOME to a folder of its own'
        ) from None
    return root / 'dan_ros' / kind


def has_cache_folder(kind: str) -> bool:
    """Whether there may be files of one kind; nothing is made.

    Raises:
        DanError: this user has no home.
    """
    try:
        cache_path(kind).lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:  # `make_cache_folder` says what is wrong with it
        return True
    return True


def make_cache_folder(kind: str) -> Path:
    """The folder for files of one kind, made where it is missing, closed where it is open.

    Raises:
        DanError: it belongs to somebody else, is a link, or can't be made.
    """
    folder = cache_path(kind)
    make_private(folder.parent)
    make_private(folder)
    return folder


def make_private(folder: Path) -> None:
    """Make a folder for this user alone.

    One that is there and open to others is closed, and what others have put into it is removed.

    Raises:
        DanError: it belongs to somebody else, is a link or no folder, or can't be made.
    """
    remedy = 'remove it, or set XDG_CACHE_HOME to a folder of your own'
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=PRIVATE)
        found = folder.lstat()  # not where a link leads
        if not stat.S_ISDIR(found.st_mode):
            raise DanError(f'{folder} is a link, which others may lead elsewhere: {remedy}')
        if found.st_uid != os.getuid():
            raise DanError(f'{folder} belongs to another user, whose files are not used: {remedy}')
        if stat.S_IMODE(found.st_mode) != PRIVATE:
            folder.chmod(PRIVATE)
            for entry in folder.iterdir():
                if entry.lstat().st_uid != os.getuid() and not entry.is_dir():
                    entry.unlink()
    except OSError as error:
        raise DanError(f'the folder {folder} can not be used: {error.strerror}; {remedy}') from None


def _home() -> Path:
    """As `Path.home`, but an empty HOME is none: that would be the root of the disk.

    Raises:
        RuntimeError: this user has no home.
    """
    if os.environ.get('HOME') != '':
        return Path.home()
    try:
        home = pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        home = ''
    if not home:
        raise RuntimeError('this user has no home')
    return Path(home)
